"""Output of SLURM's commands: every state, job number and list is understood, or refused."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from yaptide.domain.errors import ClusterUnavailable
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.platforms.batch.schedulers.base import JobInfo
from yaptide.platforms.batch.schedulers.slurm import answers

#: All states that SLURM's documentation names, and ours.
STATES = {
    "BOOT_FAIL": "FAILED",
    "CANCELLED": "CANCELED",
    "CANCELLED by 1000": "CANCELED",
    "CANCELLED+": "CANCELED",
    "COMPLETED": "COMPLETED",
    "COMPLETING": "RUNNING",
    "CONFIGURING": "PENDING",
    "DEADLINE": "FAILED",
    "FAILED": "FAILED",
    "LAUNCH_FAILED": "FAILED",
    "NODE_FAIL": "FAILED",
    "OUT_OF_MEMORY": "FAILED",
    "PENDING": "PENDING",
    "PREEMPTED": "FAILED",
    "REQUEUED": "PENDING",
    "REQUEUE_FED": "PENDING",
    "REQUEUE_HOLD": "PENDING",
    "RESIZING": "RUNNING",
    "RESV_DEL_HOLD": "PENDING",
    "REVOKED": "FAILED",
    "RUNNING": "RUNNING",
    "SIGNALING": "RUNNING",
    "SPECIAL_EXIT": "PENDING",
    "STAGE_OUT": "RUNNING",
    "STOPPED": "RUNNING",
    "SUSPENDED": "RUNNING",
    "TIMEOUT": "FAILED",
}


@pytest.mark.parametrize("word", STATES)
def test_every_state_of_slurm_is_one_of_ours(word):
    state, reason = answers.map_state(word)
    assert state == STATES[word]
    assert reason or state not in FINAL_STATES - {EntityState.COMPLETED}


@pytest.mark.parametrize(
    ("word", "exit_code", "why", "says"),
    [
        ("FAILED", "3:0", "NonZeroExitCode", "exit code 3"),
        ("FAILED", "127:0", "NonZeroExitCode", "there is no python3 on its node"),
        ("FAILED", "0:9", "JobLaunchFailure", "more memory"),
        ("FAILED", "0:53", "JobLaunchFailure", "could not start it"),
        ("FAILED", "0:11", "", "signal 11"),
        ("FAILED", "0:1", "BadConstraints", "no node of the cluster"),
        ("FAILED", "0:0", "PartitionDown", "PartitionDown"),
        ("FAILED", "nonsense", "", "it failed"),
        ("OUT_OF_MEMORY", "0:125", "", "--mem"),
        ("TIMEOUT", "0:0", "", "--time"),
        ("CANCELLED by 1000", "0:0", "", "user number 1000"),
        ("PENDING", "0:0", "Priority", "other jobs have higher priority"),
        ("PENDING", "0:0", "QOSGrpCpuLimit", "QOSGrpCpuLimit"),
        ("REQUEUED", "0:0", "", "back into the queue"),
        ("FROBNICATED", "0:0", "", "FROBNICATED"),
    ],
)
def test_reasons(word, exit_code, why, says):
    assert says in answers.map_state(word, exit_code, why)[1]


def test_an_unknown_state_ends_nothing():
    assert answers.map_state("FROBNICATED")[0] is EntityState.UNKNOWN


@given(st.text(), st.text(), st.text())
def test_whatever_slurm_says_has_a_meaning(word, exit_code, why):
    state, reason = answers.map_state(word, exit_code, why)
    assert isinstance(state, EntityState)
    assert len(reason or "") < 200


@pytest.mark.parametrize(
    ("text", "job", "indices"),
    [
        ("12", 12, []),
        ("12_3", 12, [3]),
        ("12_[3-7,9%2]", 12, [3, 4, 5, 6, 7, 9]),
        ("12_[0]", 12, [0]),
        ("12_[1-10:4,20%50]", 12, [1, 5, 9, 20]),
        (" 12_[1,3]\n", 12, [1, 3]),
    ],
)
def test_expand(text, job, indices):
    assert answers.expand_indices(text) == (job, indices)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "12_",
        "12_[",
        "12_[]",
        "12_[3-]",
        "12_[7-3]",
        "12_[1,3,...]",
        "12.batch",
        "12+1",
        "12_[1-9999999]",
        "-1",
    ],
)
def test_what_is_no_number_of_a_job_is_refused(text):
    with pytest.raises(ValueError, match=r"job number|too many"):
        answers.expand_indices(text)


@given(st.text())
def test_any_text_is_a_number_of_a_job_or_refused(text):
    try:
        answers.expand_indices(text)
    except ValueError:
        return


QUEUE = "ARRAY_JOB_ID|ARRAY_TASK|STATE|EXIT_CODE|REASON|START_TIME|NAME\n"
ACCOUNTS = "JobID|State|ExitCode|Reason|Start|JobName\n"


def test_the_queue_is_read():
    rows = (
        (2, 1, "COMPLETED", 0, "None", "2026-11-26T02:13:14", "job"),
        (2, 2, "FAILED", 768, "NonZeroExitCode", "2026-11-26T02:13:14", "job"),
        (2, 3, "FAILED", 9, "JobLaunchFailure", "2026-11-26T02:13:15", "job"),
        (2, 4, "PENDING", 0, "JobArrayTaskLimit", "N/A", "job"),
        (3, "N/A", "PENDING", 0, "Dependency", "N/A", "job"),
        (4, "N/A", "FAILED", 4021, "JobLaunchFailure", "2026-11-26T02:13:15", "other"),
        (5, 2, "RUNNING", 0, "None", "2026-11-26T02:13:15", "job.301"),
    )
    lines = ["|".join(f"{value!s:<12}" for value in row) for row in rows]
    text = "\n".join(("Welcome | to the cluster", QUEUE + lines[0], "maintenance tomorrow", *lines[1:], "bye"))
    completed, failed, killed, waits, after, unstarted, later = answers.read_queue(text)
    assert (later.job, later.index, later.name) == (5, 302, "job.301")
    time = datetime(2026, 11, 26, 2, 13, 14, tzinfo=UTC)
    assert completed == JobInfo(2, 1, EntityState.COMPLETED, None, time, "job")
    assert failed == JobInfo(2, 2, EntityState.FAILED, "it ended with exit code 3", time, "job")
    assert "memory" in killed.reason
    assert (waits.state, waits.start) == (EntityState.PENDING, None)
    assert (after.job, after.index, after.reason) == (3, None, "other jobs must end first (Dependency)")
    assert "could not start it" in unstarted.reason
    assert answers.read_queue(QUEUE) == []


def test_accounts_are_read():
    text = (
        f"text\n{ACCOUNTS}12_1|COMPLETED|0:0|None|2026-11-26T02:13:14|a\n12_2|CANCELLED by 1000|0:15|None|None|a\n"
        "12_4|RUNNING|0:0|JobArrayTaskLimit|2026-11-26T02:13:14|a\n12_[3-4,6%2]|PENDING|0:0|Resources|Unknown|a\n"
        "13|TIMEOUT|0:0|TimeLimit|2026-11-26T02:13:14|a\n14_[1-2]|PENDING|0:0|None|Unknown|a.7\ntext\n"
    )
    states = {(one.job, one.index): str(one.state) for one in answers.read_accounting(text)}
    assert states == {
        (12, 1): "COMPLETED",
        (12, 2): "CANCELED",
        (12, 3): "PENDING",
        (12, 4): "RUNNING",
        (12, 6): "PENDING",
        (13, None): "FAILED",
        (14, 7): "PENDING",
        (14, 8): "PENDING",
    }
    assert len(answers.read_accounting(text)) == len(states)


ROWS = ["x|1|PENDING|0|None|N/A|a", "1|1|PENDING|0|None|yesterday|a", "||||||"]


@pytest.mark.parametrize("text", ["", "nonsense", "1|2", "1|1|PENDING|0|None|N/A|a", *(QUEUE + row for row in ROWS)])
def test_an_answer_that_cannot_be_read_says_nothing_about_jobs(text):
    """Text alone, without the header, does not mean that there are no jobs."""
    for read in (answers.read_queue, answers.read_accounting):
        with pytest.raises(ClusterUnavailable, match="cannot be read"):
            read(text)


def test_positions_in_the_queue():
    text = "Welcome\n12|main|100\n13|main|300\n14|gpu|5\n15|main|100\n12|main|100\nx|y\n"
    assert answers.read_positions(text) == {13: (1, 3), 12: (2, 3), 15: (3, 3), 14: (1, 1)}
    assert answers.read_positions("") == {}
