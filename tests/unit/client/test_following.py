"""Following simulations: one request for all, changes only, and pauses that grow."""

import io

import pytest

from yaptide_client import Client, Job, following
from yaptide_client.errors import NotFound, Unavailable
from yaptide_client.states import EntityState


def row(job_id, state="RUNNING", done=0, **more):
    return {"job_id": job_id, "job_state": state, "requested_primaries": 10, "simulated_primaries": done, **more}


class Server:
    """Answers each request with the next rows; None is an unchanged answer."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def read_progress(self, job_ids, etag, patience):
        self.asked.append((tuple(job_ids), etag, patience))
        rows = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return rows, etag if rows is None else f"tag-{len(self.asked)}"


@pytest.fixture
def clock(monkeypatch):
    pauses = []
    monkeypatch.setattr(following.time, "sleep", pauses.append)
    monkeypatch.setattr(following.time, "monotonic", lambda: sum(pauses))
    return pauses


def watch(server, *job_ids, timeout=1e6, every=1.0, patience=60.0):
    return list(following.watch_progress(server, job_ids, timeout, every, patience))


def test_only_changes_are_yielded(clock):
    first, second = row("a"), row("a", "COMPLETED", 10)
    server = Server([first, row("b", "FAILED", reason="r")], [first], None, [second])
    assert watch(server, "a", "b") == [first, row("b", "FAILED", reason="r"), second]
    assert [job_ids for job_ids, _, _ in server.asked] == [("a", "b"), ("a",), ("a",), ("a",)]
    assert [etag for _, etag, _ in server.asked] == [None, None, "tag-2", "tag-2"]


def test_many_are_asked_for_in_parts(clock):
    job_ids = [f"job-{number}" for number in range(250)]

    class All(Server):
        def read_progress(self, job_ids, etag, patience):
            self.asked.append(job_ids)
            return [row(job_id, "COMPLETED", 10) for job_id in job_ids], "tag"

    server = All()
    assert [shown["job_id"] for shown in watch(server, *job_ids)] == job_ids
    assert [len(part) for part in server.asked] == [100, 100, 50]
    assert clock == []


def test_pauses_grow_up_to_a_limit(clock):
    with pytest.raises(Unavailable):
        watch(Server([row("a")]), "a", timeout=4000)
    assert clock[:20] == [1.0] * 20
    assert max(clock) == 15
    assert clock == sorted(clock)
    assert 3985 < sum(clock) <= 4000


def test_it_tells_what_has_not_ended(clock):
    server = Server([row("a", "PENDING", waiting="no worker"), row("b")])
    with pytest.raises(Unavailable, match=r"^a is PENDING, and 1 more have not ended, after 5 seconds: no worker$"):
        watch(server, "a", "b", timeout=5)


def test_a_simulation_that_was_deleted_is_an_error(clock):
    with pytest.raises(NotFound, match="b"):
        watch(Server([row("a")]), "a", "b")


def test_it_waits_for_a_server_no_longer_than_its_time(clock):
    server = Server([row("a")])
    with pytest.raises(Unavailable):
        watch(server, "a", timeout=5, patience=3)
    assert [patience for _, _, patience in server.asked] == [3, 3, 3, 2, 1, 0]


def test_a_job_waits_with_its_followers(clock, monkeypatch, capsys):
    client = Client("http://server")
    server = Server([row("a", done=1)], [row("a", "COMPLETED", 10)])
    monkeypatch.setattr(client, "read_progress", server.read_progress)
    monkeypatch.setattr(Job, "status", lambda job: {"status_of": job.job_id})
    followed = []
    assert client.job("a").wait(follow=followed.append, progress=True) is EntityState.COMPLETED
    assert followed == [{"status_of": "a"}] * 2
    assert capsys.readouterr().err == ("a: RUNNING, 10% of 10 primaries\na: COMPLETED, 100% of 10 primaries\n")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_a_bar_on_a_terminal_and_few_lines_elsewhere():
    terminal, file = Terminal(), io.StringIO()
    for out in (terminal, file):
        show = following.show_progress(out)
        for done in (0, 0, 5, 5):
            show(row("a", done=done))
        show(row("a", "FAILED", 5, reason="no beam"))
    assert terminal.getvalue().count("\r") == 5
    assert "[##########..........] a: RUNNING, 50%" in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")
    assert file.getvalue().splitlines() == [
        "a: RUNNING, 0% of 10 primaries",
        "a: RUNNING, 50% of 10 primaries",
        "a: FAILED, 50% of 10 primaries: no beam",
    ]


def test_text_of_a_cluster_cannot_control_the_terminal(clock):
    """Reasons contain text that a cluster prints: it stays in its line, without control characters."""
    hostile = "busy\x1b]0;title\x07\x9b2J\r\nb: COMPLETED"
    out = io.StringIO()
    show = following.show_progress(out)
    show(row("a", "PENDING", waiting=hostile))
    show(row("a", "FAILED", reason=hostile))
    first, second = out.getvalue().splitlines()
    assert first == "a: PENDING, 0% of 10 primaries: busy ]0;title 2J b: COMPLETED"
    assert second.endswith(": busy ]0;title 2J b: COMPLETED")
    with pytest.raises(Unavailable, match=r"a is PENDING after 5 seconds: busy \]0;title 2J b: COMPLETED$"):
        watch(Server([row("a", "PENDING", waiting=hostile)]), "a", timeout=5)
