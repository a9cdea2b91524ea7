"""The pages in Firefox: from signing in to the curve of the example."""

from tests.support.firefox import firefox
from tests.support.processes import PASSWORD, USER, place

#: Whether a canvas has pixels of more than one colour.
IS_DRAWN = """(() => {
  const canvas = document.querySelector("[data-ready] canvas");
  if (!canvas) return false;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return new Set(new Uint32Array(data.buffer)).size > 20;
})()"""


def test_from_signing_in_to_the_curve_of_the_example(tmp_path) -> None:
    with place(tmp_path / "place") as there, firefox() as page:
        server = there.up().register()
        page.goto(server.url)
        page.type("input[name=username]", USER)
        page.type("input[name=password]", PASSWORD)
        page.click("button", "Sign in")
        page.click("a", "New simulation")
        page.click("button", "Run the example")
        page.click("a", "Show results")
        page.wait_for(IS_DRAWN)
        assert page.wait_for("document.querySelector('[data-readout]').textContent.includes(' ± ')")
        assert page.problems == []
