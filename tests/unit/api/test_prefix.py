"""The path below which a reverse proxy shows the server."""

import pytest

from yaptide.api.prefix import move_below


def move(path, *, times=1):
    environ = {"SCRIPT_NAME": "", "PATH_INFO": path}
    for _ in range(times):
        move_below(environ, "/jobs")
    return environ["SCRIPT_NAME"], environ["PATH_INFO"]


@pytest.mark.parametrize(
    ("path", "below"),
    [("/jobs/list", "/list"), ("/jobs", "/"), ("/jobs/", "/"), ("/jobsite", "/jobsite"), ("/inputs", "/inputs")],
)
def test_a_path_with_or_without_the_prefix_is_one_below_it(path, below):
    assert move(path) == ("/jobs", below)


def test_the_shell_and_the_application_see_the_same_path():
    assert move("/jobs/jobs/list", times=2) == ("/jobs", "/jobs/list")
