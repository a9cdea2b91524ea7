"""Where the server of a data folder listens."""

import pytest

from yaptide.admin import address


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:5001"),
        ("0.0.0.0", "http://127.0.0.1:5001"),  # noqa: S104 - nothing listens
        ("::", "http://[::1]:5001"),
        ("::1", "http://[::1]:5001"),
    ],
)
def test_it_is_noted_as_long_as_it_listens(tmp_path, host, url):
    assert address.read_address(tmp_path) is None
    with address.published_address(tmp_path / "data", host, 5001):
        assert address.read_address(tmp_path / "data") == url
    assert address.read_address(tmp_path / "data") is None


def test_the_note_of_another_server_stays(tmp_path):
    with address.published_address(tmp_path, "127.0.0.1", 5001):
        later = address.published_address(tmp_path, "127.0.0.1", 5002)
        later.__enter__()
    assert address.read_address(tmp_path) == "http://127.0.0.1:5002"
    later.__exit__(None, None, None)
    assert address.read_address(tmp_path) is None
