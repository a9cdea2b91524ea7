"""The pages of results in a real browser: what they read out is what is stored."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.pages import MOST_BYTES, PHONE, check_page, chromium, loaded_bytes, open_page, sign_in
from tests.support.processes import Server, beam, place
from yaptide_client.results import Results


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Iterator[tuple[Server, str, Results]]:
    """A server, and a simulation by MCsquare: 100 MeV protons beside a block of bone."""
    folder: Path = tmp_path_factory.mktemp("results")
    source = beam(folder / "input", primaries=8000, energy=100.0, grid=(20, 100, 16), spacing=(3, 1, 3))
    with (source / "ct.txt").open("a") as ct:
        ct.write("box 36 54 20 60 0 48 800\n")
    with place(folder / "place") as there:
        server = there.up().register()
        with server.client() as client:
            job = client.submit(source, ntasks=2, title="Protons beside bone")
            job.wait()
            yield server, job.job_id, job.results()


@pytest.fixture
def page(browser: Browser, simulated: tuple[Server, str, Results]) -> Iterator[Page]:
    with open_page(browser, simulated[0]) as page:
        sign_in(page)
        yield page


def read_out(page: Page) -> str:
    return page.locator("[data-readout]").inner_text()


def number_of(text: str) -> float:
    """The value in a read-out."""
    value, power = re.search(r": \(?([\d.]+) (?:± [\d.]+\)?)?(?:×10(\S+))?", text).groups()
    exponent = (power or "⁰").translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
    return float(value) * 10.0 ** int(exponent)


def show(page: Page, job_id: str, estimator: str) -> None:
    page.goto(f"/simulations/{job_id}/results?estimator={estimator.replace(' ', '%20')}&page=0")
    page.locator("[data-ready]").wait_for()


def test_from_the_list_to_the_curve(page: Page, simulated: tuple[Server, str, Results]) -> None:
    results = simulated[2]
    curve = results.estimators[0].pages[0]
    page.get_by_role("link", name="Protons beside bone").click()
    page.get_by_role("link", name="Show results").click()
    page.locator("[data-ready]").wait_for()
    assert page.locator(".u-over").count() == 2
    slider = page.get_by_label("Cursor along depth")
    peak = int(np.argmax(curve.values))
    assert int(slider.input_value()) == peak
    slider.press("ArrowLeft")
    slider.press("ArrowLeft")
    text = read_out(page)
    assert text.startswith(f"depth {curve.axes[0].values[peak - 2]:g} mm: ")
    assert number_of(text) == pytest.approx(curve.values[peak - 2], rel=1e-4)
    assert "± " in text
    assert " eV/g (" in text
    assert slider.get_attribute("aria-valuetext") == text
    expect(page.locator("dl")).to_contain_text("R80")
    assert loaded_bytes(page) < MOST_BYTES


def test_the_logarithmic_scale_and_the_mouse(page: Page, simulated: tuple[Server, str, Results]) -> None:
    _, job_id, results = simulated
    show(page, job_id, "Dose")
    before = page.locator(".drawing canvas").first.evaluate("canvas => canvas.toDataURL()")
    page.get_by_label("Logarithmic scale").check()
    assert page.locator(".drawing canvas").first.evaluate("canvas => canvas.toDataURL()") != before
    plot = page.locator(".u-over").first.bounding_box()
    page.mouse.move(plot["x"] + 0.255 * plot["width"], plot["y"] + 20)
    expect(page.locator("[data-readout]")).to_contain_text("depth 25.5 mm")
    curve = results.estimators[0].pages[0]
    assert number_of(read_out(page)) == pytest.approx(curve.values[25], rel=1e-4)
    check_page(page, "results-curve")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download picture").click()
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")


def test_a_map(page: Page, simulated: tuple[Server, str, Results]) -> None:
    _, job_id, results = simulated
    slice_ = results.page("Dose slice", 0)
    show(page, job_id, "Dose slice")
    assert loaded_bytes(page) < MOST_BYTES
    x, depth = (page.locator(f"[data-sliders] [data-axis='{axis}']") for axis in (1, 2))
    x.fill("9")
    depth.fill("30")
    expect(page.locator("[data-readout]")).to_contain_text(re.compile("depth 30.5 mm: .* ± "))
    assert number_of(read_out(page)) == pytest.approx(slice_.grid()[9, 30], rel=1e-4)
    page.get_by_label("Show").select_option("errors")
    check_page(page, "results-map")


def test_three_planes_over_the_ct(page: Page, simulated: tuple[Server, str, Results]) -> None:
    _, job_id, results = simulated
    grid = results.page("Dose grid", 0)
    show(page, job_id, "Dose grid")
    expect(page.get_by_label("CT level")).to_be_visible()
    sliders = [page.locator(f"[data-sliders] [data-axis='{axis}']") for axis in (1, 2, 3)]
    planes = page.locator(".drawing canvas[role=img]")
    for bins in ((10, 30, 8), (9, 50, 7), (13, 30, 7)):
        before = planes.first.evaluate("canvas => canvas.toDataURL()")
        for slider, at in zip(sliders, bins, strict=True):
            slider.fill(str(at))
        y, z = (grid.axes[axis].values[bins[axis]] for axis in (1, 2))
        expect(page.locator("[data-readout]")).to_contain_text(re.compile(f"y {y:g} mm, z {z:g} mm: .* eV/g"))
        assert number_of(read_out(page)) == pytest.approx(grid.grid()[bins], rel=1e-4)
        assert planes.first.evaluate("canvas => canvas.toDataURL()") != before
    assert read_out(page).endswith("CT 800 HU")
    sliders[2].press("ArrowRight")
    expect(planes.first).to_have_attribute("aria-label", re.compile(f"^Axial, z = {grid.axes[2].values[8]:g} mm"))
    box = planes.nth(1).bounding_box()
    planes.nth(1).click(position={"x": box["width"] / 2, "y": box["height"] / 4})
    expect(planes.first).not_to_have_attribute("aria-label", re.compile(f"^Axial, z = {grid.axes[2].values[8]:g} mm"))
    page.get_by_label("Hide below").fill("20")
    check_page(page, "results-grid")


def test_on_a_phone_nothing_is_cut_off(browser: Browser, simulated: tuple[Server, str, Results]) -> None:
    server, job_id, _ = simulated
    with open_page(browser, server) as page:
        page.set_viewport_size(PHONE)
        sign_in(page)
        for estimator in ("Dose", "Dose slice", "Dose grid"):
            show(page, job_id, estimator)
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
            for canvas in page.locator(".drawing canvas").all():
                box = canvas.bounding_box()
                assert box["x"] + box["width"] <= PHONE["width"]
