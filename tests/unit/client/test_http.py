"""Clients and jobs as Python objects: their repr, and copies in other processes."""

import gzip
import pickle

import httpx
import numpy as np
import pytest

from yaptide_client import Client, Results
from yaptide_client.errors import Forbidden, InvalidInput
from yaptide_client.estimators import Axis, Estimator, Page
from yaptide_client.files import read_folder

PAGE = Page(0, "Dose", "Gy", (Axis("Depth", "mm", np.arange(200.0)),), np.ones(200), np.ones(200))
RESULTS = Results((Estimator("Dose", "dose", (PAGE,)),))


@pytest.fixture
def client():
    """A client whose session is a cookie."""
    with Client("http://127.0.0.1:5000", timeout=7) as made:
        made._http.cookies.set("access_token_cookie", "a secret", domain="127.0.0.1", path="/")
        yield made


def test_they_look_short_and_tell_no_secret(client):
    assert repr(client) == "<Client of http://127.0.0.1:5000>"
    assert repr(client.job("a-job")) == "<Job a-job>"
    assert repr(RESULTS) == "<Results: Dose [0]>"
    assert repr(PAGE) == "<Page 0: Dose [Gy] on [<Axis Depth [mm]: 200 bins>], 200 values>"


def test_a_copy_in_another_process_is_signed_in(client):
    copy = pickle.loads(pickle.dumps(client.job("a-job")))  # noqa: S301 - it is ours
    other = copy._client
    assert (copy.job_id, repr(other), other._http.timeout.read) == ("a-job", repr(client), 7)
    sent = []

    def answer(request):
        sent.append((request.headers["Cookie"], request.url.path))
        return httpx.Response(200, json={"job_state": "COMPLETED"})

    with other:
        other._http._transport = httpx.MockTransport(answer)
        other._http._mounts = {}
        assert copy.status() == {"job_state": "COMPLETED"}
    assert sent == [("access_token_cookie=a secret", "/jobs")]


def test_simulations_are_found_by_their_title(client):
    asked = []

    def answer(request):
        asked.append(dict(request.url.params))
        return httpx.Response(200, json={"simulations": [{"job_id": "a-job"}]})

    client._http._transport = httpx.MockTransport(answer)
    client._http._mounts = {}
    assert client.simulations(title="50 % & more") == client.simulations() == [{"job_id": "a-job"}]
    assert asked == [
        {"page_idx": "1", "page_size": "100", "title": "50 % & more"},
        {"page_idx": "1", "page_size": "100"},
    ]


def test_results_come_through_a_pickle():
    copy = pickle.loads(pickle.dumps(RESULTS))  # noqa: S301 - it is ours
    assert copy.page("Dose", 0).values.tolist() == PAGE.values.tolist()
    assert repr(copy) == repr(RESULTS)


def test_paths_may_be_texts(tmp_path):
    (tmp_path / "config.txt").write_text("Num_Primaries 1000\n")
    assert read_folder(str(tmp_path)) == read_folder(tmp_path) == {"config.txt": "Num_Primaries 1000\n"}
    with pytest.raises(InvalidInput, match="No such input directory"):
        read_folder(str(tmp_path / "missing"))
    RESULTS.save_npz(str(tmp_path / "dose.npz"))
    with np.load(tmp_path / "dose.npz") as loaded:
        assert loaded["e0_p0_values"].shape == (200,)
    from yaptide_client import plots  # noqa: PLC0415 - matplotlib takes long to load

    plots.save_figure(plots.draw_overview(RESULTS, "beam"), str(tmp_path / "dose.png"))
    assert (tmp_path / "dose.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("status", "message", "is_refreshed"),
    [
        (401, "No token provided", True),
        (403, "Log in again: the token is invalid or has expired", True),
        (403, "User is not allowed to use this endpoint", False),
    ],
)
def test_a_token_that_has_ended_is_renewed(client, status, message, is_refreshed):
    asked = []

    def answer(request):
        asked.append(request.url.path)
        if "/auth/refresh" in asked:
            return httpx.Response(200, json={"job_state": "COMPLETED"})
        return httpx.Response(status, json={"message": message})

    client._http._transport = httpx.MockTransport(answer)
    client._http._mounts = {}
    if is_refreshed:
        assert client.job("a-job").status() == {"job_state": "COMPLETED"}
        assert asked == ["/jobs", "/auth/refresh", "/jobs"]
    else:
        with pytest.raises(Forbidden, match="not allowed"):
            client.job("a-job").status()
        assert asked == ["/jobs"]


def test_a_large_body_is_compressed_unless_the_server_cannot_inflate_it(client):
    sent = []

    def answer(request):
        sent.append((request.headers.get("Content-Encoding"), request.headers["Content-Type"], request.content))
        is_known = len(sent) > 3 or "Content-Encoding" not in request.headers
        refusal = httpx.Response(400, json={"message": "The body is not JSON: unexpected character"})
        return httpx.Response(202, json={"job_id": "a-job"}) if is_known else refusal

    client._http._transport = httpx.MockTransport(answer)
    client._http._mounts = {}
    client.submit({"a.txt": "short"})
    for _ in range(2):
        assert client.submit({"a.txt": "x" * (1 << 20)}).job_id == "a-job"
    (short, *_), (first, kind, data), (second, _, plain), (third, _, again) = sent
    assert (short, first, second, third, kind) == (None, "gzip", None, "gzip", "application/json")
    assert gzip.decompress(data) == plain
    assert len(again) < len(plain) / 100
