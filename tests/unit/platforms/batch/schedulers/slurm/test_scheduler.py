"""What SLURM's answers mean, and the scripts and commands it is given."""

import shlex
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from yaptide.domain.errors import ClusterRefused, ClusterUnavailable, InvalidInput
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.platforms.batch.schedulers.slurm import scheduler as slurm
from yaptide.platforms.batch.schedulers.slurm.scheduler import Job, Seen

NAME = "20260301-120000-4f8c2b54-6f9a-4a63-8a51-0d6e1f2a3b4cBATCH"
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


@dataclass
class Told:
    """An answer, and a shell that gives it."""

    exit_code: int = 0
    text: str = ""
    complaint: str = ""
    words: list[str] = field(default_factory=list)

    def run(self, *words):
        self.words = list(words)
        return self


@pytest.mark.parametrize("word", STATES)
def test_every_state_of_slurm_is_one_of_ours(word):
    state, reason = slurm.map_state(word)
    assert state == STATES[word]
    assert reason or state not in FINAL_STATES - {EntityState.COMPLETED}


@pytest.mark.parametrize(
    ("word", "exit_code", "why", "says"),
    [
        ("FAILED", "3:0", "NonZeroExitCode", "exit code 3"),
        ("FAILED", "0:9", "JobLaunchFailure", "more memory"),
        ("FAILED", "0:53", "JobLaunchFailure", "could not start it"),
        ("FAILED", "0:11", "", "signal 11"),
        ("FAILED", "0:1", "BadConstraints", "no node of the cluster"),
        ("FAILED", "0:0", "PartitionDown", "PartitionDown"),
        ("FAILED", "nonsense", "", "it failed"),
        ("OUT_OF_MEMORY", "0:125", "", "--mem"),
        ("TIMEOUT", "0:0", "", "--time"),
        ("CANCELLED by 1000", "0:0", "", "user number 1000"),
        ("PENDING", "0:0", "Priority", "others are before it"),
        ("PENDING", "0:0", "QOSGrpCpuLimit", "QOSGrpCpuLimit"),
        ("REQUEUED", "0:0", "", "back into the queue"),
        ("FROBNICATED", "0:0", "", "FROBNICATED"),
    ],
)
def test_reasons(word, exit_code, why, says):
    assert says in slurm.map_state(word, exit_code, why)[1]


def test_an_unknown_state_ends_nothing():
    assert slurm.map_state("FROBNICATED")[0] is EntityState.UNKNOWN


@given(st.text(), st.text(), st.text())
def test_whatever_slurm_says_has_a_meaning(word, exit_code, why):
    state, reason = slurm.map_state(word, exit_code, why)
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
    assert slurm.expand_indices(text) == (job, indices)


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
    with pytest.raises(ValueError, match=r"number of a job|too many"):
        slurm.expand_indices(text)


@given(st.integers(1, 2**31), st.sets(st.integers(0, 10_000), min_size=1))
def test_names_of_tasks_are_taken_apart_as_they_were_made(job, indices):
    assert slurm.expand_indices(slurm.compress_indices(job, indices)) == (job, sorted(indices))


@given(st.text())
def test_any_text_is_a_number_of_a_job_or_refused(text):
    try:
        slurm.expand_indices(text)
    except ValueError:
        return


def test_the_queue_is_read():
    rows = (
        (2, 1, "COMPLETED", 0, "None", "2026-11-26T02:13:14"),
        (2, 2, "FAILED", 768, "NonZeroExitCode", "2026-11-26T02:13:14"),
        (2, 3, "FAILED", 9, "JobLaunchFailure", "2026-11-26T02:13:15"),
        (2, 4, "PENDING", 0, "JobArrayTaskLimit", "N/A"),
        (3, "N/A", "PENDING", 0, "Dependency", "N/A"),
        (4, "N/A", "FAILED", 4021, "JobLaunchFailure", "2026-11-26T02:13:15"),
    )
    text = "".join("|".join(f"{value!s:<12}" for value in row) + "\n" for row in rows)
    completed, failed, killed, waits, after, unstarted = slurm.read_queue(text)
    time = datetime(2026, 11, 26, 2, 13, 14, tzinfo=UTC)
    assert completed == Seen(2, 1, EntityState.COMPLETED, None, time)
    assert failed == Seen(2, 2, EntityState.FAILED, "it ended with exit code 3", time)
    assert "memory" in killed.reason
    assert (waits.state, waits.start) == (EntityState.PENDING, None)
    assert (after.job, after.index, after.reason) == (3, None, "other jobs have to end first")
    assert "could not start it" in unstarted.reason
    assert slurm.read_queue("") == []


def test_accounts_are_read():
    text = (
        "12_1|COMPLETED|0:0|None|2026-11-26T02:13:14\n12_2|CANCELLED by 1000|0:15|None|None\n"
        "12_4|RUNNING|0:0|JobArrayTaskLimit|2026-11-26T02:13:14\n12_[3-4,6%2]|PENDING|0:0|Resources|Unknown\n"
        "13|TIMEOUT|0:0|TimeLimit|2026-11-26T02:13:14\n"
    )
    states = {(one.job, one.index): str(one.state) for one in slurm.read_accounts(text)}
    assert states == {
        (12, 1): "COMPLETED",
        (12, 2): "CANCELED",
        (12, 3): "PENDING",
        (12, 4): "RUNNING",
        (12, 6): "PENDING",
        (13, None): "FAILED",
    }
    assert len(slurm.read_accounts(text)) == len(states)


@pytest.mark.parametrize("text", ["nonsense", "1|2", "x|1|PENDING|0|None|N/A", "1|1|PENDING|0|None|yesterday", "|||||"])
def test_an_answer_that_cannot_be_read_is_refused(text):
    for read in (slurm.read_queue, slurm.read_accounts):
        with pytest.raises(ClusterRefused, match="cannot be read"):
            read(text)


def job(**changes):
    values = {"name": NAME, "folder": "/scratch/alice/job", "options": {"--time": "10"}} | changes
    return Job(**values)


def test_the_commands_that_submit():
    """Word by word: what is missing, or is there too often, is another job."""
    common = ["sbatch", "--parsable", f"--job-name={NAME}", "--chdir=/scratch/alice/job"]
    array = slurm.array_command(job(), "/scratch/alice/job/array.sh", 100, 7)
    assert array == [
        *common,
        "--output=task-%a.log",
        "--signal=B:USR1@30",
        "--array=1-100%7",
        "--time=10",
        "/scratch/alice/job/array.sh",
    ]
    collect = slurm.collect_command(job(), "/scratch/alice/job/collect.sh", 12)
    assert collect == [
        *common,
        "--output=collect.log",
        "--dependency=afterany:12",
        "--time=10",
        "/scratch/alice/job/collect.sh",
    ]
    single = slurm.single_command(job(options={"--mem": "1G", "--exclusive": ""}), "/scratch/alice/job/job.sh")
    assert single == [*common, "--output=job.log", "--exclusive", "--mem=1G", "/scratch/alice/job/job.sh"]


@pytest.mark.parametrize("tasks", [1, 1_000_000])
@pytest.mark.parametrize("most", [None, 0])
def test_without_a_limit_all_tasks_of_an_array_may_run_at_once(tasks, most):
    assert f"--array=1-{tasks}" in slurm.array_command(job(), "x", tasks, most)


#: Nothing is cut short, and times are in UTC, whatever the user's profile on the cluster says.
PLAIN = ["env", "SLURM_BITSTR_LEN=0", "SLURM_TIME_FORMAT=standard", "TZ=UTC"]
QUEUE = [
    *(*PLAIN, "squeue", "--noheader", "--array", "--all", "--states=all", "--me"),
    "--Format=ArrayJobID:12|,ArrayTaskID:9|,State:15|,exit_code:9|,Reason:40|,StartTime:20",
]


def test_the_commands_that_ask():
    """Also of jobs that ended a moment ago, tasks of an array one by one, and only of the user's own."""
    told = Told()
    slurm.query_queue(told)
    assert told.words == QUEUE
    slurm.find_jobs(told, NAME)
    assert told.words == [*QUEUE, f"--name={NAME}"]
    slurm.query_accounting(told, [12, 13])
    assert told.words == [*PLAIN, "sacct", "-X", "-P", "-n", "-o", "JobID,State,ExitCode,Reason,Start", "-j", "12,13"]


def test_the_commands_that_cancel():
    told = Told()
    slurm.cancel_job(told, 12)
    assert told.words == ["scancel", "12"]
    slurm.cancel_job(told, 12, {3, 9, 4})
    assert told.words == ["scancel", "12_[3-4,9]"]


def test_a_job_of_a_name_is_found_the_first_one_first():
    line = "{}          |{}        |RUNNING        |0        |None                                    |N/A"
    told = Told(text="\n".join(line.format(*one) for one in ((13, "N/A"), (12, 7), (12, 3))))
    assert [(seen.job, seen.index) for seen in slurm.find_jobs(told, NAME)] == [(12, 3), (12, 7), (13, None)]


@pytest.mark.parametrize("name", ["", "; touch x", "$(id)", "../..", "a\nb", "a b", "-J", "a,b", "a|b", "x" * 300])
def test_a_name_that_is_not_ours_is_refused(name):
    with pytest.raises(InvalidInput, match="name of a job"):
        slurm.array_command(job(name=name), "x", 1)


@pytest.mark.parametrize("tasks", [0, -1, 10**9])
def test_numbers_of_tasks_that_no_job_has_are_refused(tasks):
    with pytest.raises(InvalidInput):
        slurm.array_command(job(), "x", tasks)


#: Text that a program can be told.
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


@given(st.lists(WORDS, max_size=4), WORDS)
def test_a_shell_hands_the_words_of_a_script_on_as_they_are(tmp_path_factory, words, name):
    base = tmp_path_factory.mktemp("job")
    folder = base / ("f" + "".join(name.split("/")))
    try:
        folder.mkdir()
    except OSError:  # too long for a name of a file
        return
    text = slurm.job_script(job(folder=str(folder)), ["/usr/bin/printf", "%s\\0", *words])
    done = subprocess.run(["/bin/bash", "-c", text], cwd=base, capture_output=True, check=True)
    assert done.stdout.split(b"\0")[:-1] == ([word.encode() for word in words] or [b""])
    assert [path.name for path in base.iterdir()] == [folder.name]
    assert not list(folder.iterdir())


def test_the_prologue_comes_first_and_signals_reach_the_command():
    text = slurm.job_script(job(), ["python3", "agent.py"], "module load x\nexport A=1\n")
    assert text == (
        "#!/bin/bash -l\nmodule load x\nexport A=1\ncd -- /scratch/alice/job || exit 1\nexec python3 agent.py\n"
    )


def test_the_number_of_a_submitted_job():
    assert slurm.submit_job(Told(text="12\n"), ["sbatch"]) == 12
    assert slurm.submit_job(Told(text="12;cluster\n"), ["sbatch"]) == 12


@pytest.mark.parametrize("text", ["", "Submitted batch job 12", "12 13", "x"])
def test_an_answer_without_a_number_is_no_success(text):
    with pytest.raises(ClusterRefused, match="did not take the job"):
        slurm.submit_job(Told(text=text), ["sbatch"])


def test_what_may_pass_is_told_from_what_does_not():
    with pytest.raises(ClusterRefused, match="Invalid account"):
        slurm.submit_job(Told(1, complaint="sbatch: error: Invalid account"), ["sbatch"])
    for passing in ("Socket timed out on send/recv operation", "Unable to contact slurm controller"):
        with pytest.raises(ClusterUnavailable, match=passing):
            slurm.submit_job(Told(1, complaint=passing), ["sbatch"])
        with pytest.raises(ClusterUnavailable, match=passing):
            slurm.query_queue(Told(1, complaint=passing))


def test_canceling_what_has_ended_is_no_error():
    for complaint in (
        "scancel: error: Kill job error on job id 12: Invalid job id specified",
        "Job already completing",
    ):
        slurm.cancel_job(Told(1, complaint=complaint), 12)
    with pytest.raises(ClusterRefused, match="does not cancel job 12"):
        slurm.cancel_job(Told(1, complaint="Access/permission denied"), 12)
    told = Told()
    slurm.cancel_job(told, 12, [4, 2, 3])
    assert told.words == ["scancel", "12_[2-4]"]


def test_a_cluster_without_accounts_is_told_from_one_that_fails():
    assert slurm.query_accounting(Told(1, complaint="Slurm accounting storage is disabled"), [1]) is None
    with pytest.raises(ClusterRefused):
        slurm.query_accounting(Told(1, complaint="sacct: error: no"), [1])
    told = Told()
    assert slurm.query_accounting(told, [1, 2]) == []
    assert told.words[-1] == "1,2"
    assert shlex.join(told.words).startswith("env SLURM_BITSTR_LEN=0")
