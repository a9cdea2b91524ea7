"""The pages in Firefox: from signing in to the curve of a simulation."""

from tests.support.firefox import firefox
from tests.support.processes import PASSWORD, USER, beam, place

#: Whether a canvas has pixels of more than one colour.
IS_DRAWN = """(() => {
  const canvas = document.querySelector("[data-ready] canvas");
  if (!canvas) return false;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size > 20;
})()"""


def test_from_signing_in_to_a_curve(tmp_path) -> None:
    with place(tmp_path / "place") as there, firefox() as page:
        server = there.up().register()
        with server.client() as client:
            client.submit(beam(tmp_path / "beam"), 4).wait()
        page.goto(server.url)
        page.type("input[name=username]", USER)
        page.type("input[name=password]", PASSWORD)
        page.click("button", "Sign in")
        page.click("a", "beam")
        page.click("a", "Show results")
        page.wait_for(IS_DRAWN)
        assert page.wait_for("document.querySelector('[data-readout]').textContent.includes(' ± ')")
        assert page.problems == []
