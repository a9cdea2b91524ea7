"""Scripts for SLURM, and the commands that submit, query and cancel jobs."""

import re
import subprocess
from dataclasses import dataclass, field

import pytest
from hypothesis import given, strategies as st

from yaptide.domain.errors import ClusterRefused, ClusterUnavailable, InvalidInput
from yaptide.platforms.batch.schedulers.base import RUN_NAME, JobRequest, NoAccounts, QueueFull
from yaptide.platforms.batch.schedulers.slurm import Slurm

NAME = "20260301-120000-4f8c2b54-6f9a-4a63-8a51-0d6e1f2a3b4cBATCH"
slurm = Slurm()


@dataclass
class Told:
    """An answer, and a shell that gives it."""

    exit_code: int = 0
    text: str = ""
    complaint: str = ""
    words: list[str] = field(default_factory=list)

    def run_command(self, *words):
        self.words = list(words)
        return self


def job(**changes):
    values = {"name": NAME, "folder": "/scratch/alice/job", "options": {"--time": "10"}} | changes
    return JobRequest(**values)


def test_the_commands_that_submit():
    """Word by word: what is missing, or is there too often, is another job."""
    common = ["sbatch", "--parsable", f"--job-name={NAME}", "--chdir=/scratch/alice/job"]
    array = slurm.array_command(job(), "/scratch/alice/job/array.sh", range(1, 101), 7)
    assert array == [
        *common,
        "--output=task-%a.log",
        "--signal=B:USR1@30",
        "--array=1-100%7",
        "--time=10",
        "/scratch/alice/job/array.sh",
        "0",
    ]
    later = slurm.array_command(job(), "array.sh", range(301, 401))
    assert later == [
        *common[:2],
        f"--job-name={NAME}.301",
        common[3],
        "--output=task-300+%a.log",
        "--signal=B:USR1@30",
        "--array=1-100",
        "--time=10",
        "array.sh",
        "300",
    ]
    collect = slurm.collect_command(job(), "/scratch/alice/job/collect.sh", [12, 13])
    assert collect == [
        *common,
        "--output=collect.log",
        "--dependency=afterany:12:13",
        "--time=10",
        "/scratch/alice/job/collect.sh",
    ]
    single = slurm.single_command(job(options={"--mem": "1G", "--exclusive": ""}), "/scratch/alice/job/job.sh")
    assert single == [*common, "--output=job.log", "--exclusive", "--mem=1G", "/scratch/alice/job/job.sh"]


@pytest.mark.parametrize("tasks", [1, 1_000_000])
@pytest.mark.parametrize("most", [None, 0])
def test_without_a_limit_all_tasks_of_an_array_may_run_at_once(tasks, most):
    assert f"--array=1-{tasks}" in slurm.array_command(job(), "x", range(1, tasks + 1), most)


#: Nothing is cut short, and times are in UTC, whatever the user's profile on the cluster says.
PLAIN = ["env", "SLURM_BITSTR_LEN=0", "SLURM_TIME_FORMAT=standard", "TZ=UTC"]
QUEUE = [
    *(*PLAIN, "squeue", "--array", "--all", "--states=all", "--me"),
    "--Format=ArrayJobID:12|,ArrayTaskID:9|,State:15|,exit_code:9|,Reason:40|,StartTime:20|,Name:80",
]
HEADER = "ARRAY_JOB_ID|ARRAY_TASK|STATE|EXIT_CODE|REASON|START_TIME|NAME\n"
ACCOUNTS = "JobID|State|ExitCode|Reason|Start|JobName\n"


def test_the_commands_that_ask():
    """Also of jobs that ended a moment ago, tasks of an array one by one, and only of the user's own."""
    message = Told(text=HEADER)
    slurm.query_queue(message)
    assert message.words == QUEUE
    slurm.find_jobs(message, NAME)
    assert message.words == QUEUE
    message = Told(text=ACCOUNTS)
    assert slurm.query_accounting(message, [12, 13]) == []
    assert message.words == [
        *PLAIN,
        "timeout",
        "20",
        "sacct",
        "-X",
        "-P",
        "-o",
        "JobID,State,ExitCode,Reason,Start,JobName",
        "-j",
        "12,13",
    ]


def test_the_commands_that_cancel():
    message = Told()
    slurm.cancel_job(message, 12)
    assert message.words == ["scancel", "12"]


def test_a_job_of_a_name_is_found_the_first_one_first():
    line = "{}          |{}        |RUNNING        |0        |None                                    |N/A  |{}"
    rows = ((13, "N/A", NAME), (12, 7, NAME), (12, 3, NAME), (14, 1, f"{NAME}.8"), (15, 1, f"{NAME}x"))
    message = Told(text=HEADER + "\n".join(line.format(*one) for one in rows))
    found = [(info.job, info.index) for info in slurm.find_jobs(message, NAME)]
    assert found == [(12, 3), (12, 7), (13, None), (14, 8)]


@pytest.mark.parametrize("name", ["", "; touch x", "$(id)", "../..", "a\nb", "a b", "-J", "a,b", "a|b", "x" * 300])
def test_a_name_that_is_not_ours_is_refused(name):
    with pytest.raises(InvalidInput, match="name of a job"):
        slurm.array_command(job(name=name), "x", range(1, 2))


@pytest.mark.parametrize("tasks", [range(0), range(1, 0), range(1, 10**9), range(2)])
def test_numbers_of_tasks_that_no_job_has_are_refused(tasks):
    with pytest.raises(InvalidInput):
        slurm.array_command(job(), "x", tasks)


#: Text that can be an argument of a program.
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


def test_a_script_for_an_array_passes_on_which_run_of_which_task_it_is():
    words = ["sh", "-c", 'echo "$YAPTIDE_TASK_ID $YAPTIDE_RUN_NAME"']
    text = slurm.array_script(job(folder="/"), words, "set -eu\nexport YAPTIDE_TASK_ID=x")
    given = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_JOB_ID": "12"}
    names = []
    for more in ({}, {"SLURM_RESTART_COUNT": "2"}):
        for arguments, expected in (([], "3"), (["0"], "3"), (["300"], "303")):
            command = ["/bin/bash", "-c", text, "sh", *arguments]
            done = subprocess.run(command, env=given | more, capture_output=True, check=True)
            number, name = done.stdout.decode().split()
            assert number == expected
        names.append(re.fullmatch(RUN_NAME, name).groups())
    assert names == [("slurm-12_3", "0"), ("slurm-12_3", "2")]


def test_the_number_of_a_submitted_job():
    assert slurm.parse_job_number(Told(text="12\n")) == 12
    assert slurm.parse_job_number(Told(text="12;cluster\n")) == 12


@pytest.mark.parametrize("text", ["Welcome\n12\n", "Submitted batch job 12", "job 7 was first\n12;ares\nbye"])
def test_the_number_is_found_among_other_text(text):
    assert slurm.parse_job_number(Told(text=text)) == 12


@pytest.mark.parametrize("text", ["", "12 13", "x", "12\n13\n"])
def test_a_success_without_a_number_is_searched_for(text):
    with pytest.raises(ClusterUnavailable, match="searched for by its name"):
        slurm.parse_job_number(Told(text=text))


def test_what_may_pass_is_told_from_what_does_not():
    with pytest.raises(ClusterRefused, match="Invalid account"):
        slurm.parse_job_number(Told(1, complaint="sbatch: error: Invalid account"))
    plugin = "sbatch: error: Please give an account sbatch: error: Batch job submission failed: Unspecified error"
    with pytest.raises(ClusterRefused, match="Please give an account"):  # the site's submission plugin
        slurm.parse_job_number(Told(1, complaint=plugin))
    for passing in ("Socket timed out on send/recv operation", "Unable to contact slurm controller", "Welcome!"):
        for text in (passing, f"sbatch: error: Batch job submission failed: {passing}"):
            if passing != "Welcome!" or text == passing:
                with pytest.raises(ClusterUnavailable, match=passing):
                    slurm.parse_job_number(Told(1, complaint=text))
        with pytest.raises(ClusterUnavailable, match=passing):
            slurm.query_queue(Told(1, complaint=passing))


def test_a_command_that_is_missing_may_come_back():
    with pytest.raises(ClusterUnavailable, match="not found"):
        slurm.parse_job_number(Told(127, complaint="sh: 1: sbatch: not found"))


def test_a_limit_of_submitted_jobs_is_told_from_limits_of_one_job():
    policy = "sbatch: error: {} sbatch: error: Batch job submission failed: Job violates accounting/QOS policy"
    for name in ("AssocMaxSubmitJobLimit", "QOSMaxSubmitJobPerUserLimit", "AssocGrpSubmitJobsLimit"):
        with pytest.raises(QueueFull, match=name):
            slurm.parse_job_number(Told(1, complaint=policy.format(name)))
    with pytest.raises(ClusterRefused, match="QOSMaxCpuPerJobLimit"):
        slurm.parse_job_number(Told(1, complaint=policy.format("QOSMaxCpuPerJobLimit")))


def test_the_limit_of_arrays():
    config = "MailProg                = /bin/true\nMaxArraySize            = 1001\nMaxBatchRequeue         = 5\n"
    assert slurm.find_array_limit(Told(text=config)) == 1000
    assert slurm.find_array_limit(Told(1)) is None


def test_canceling_what_has_ended_is_no_error():
    for complaint in (
        "scancel: error: Kill job error on job id 12: Invalid job id specified",
        "Job already completing",
    ):
        slurm.cancel_job(Told(1, complaint=complaint), 12)
    with pytest.raises(ClusterUnavailable, match="did not cancel job 12"):
        slurm.cancel_job(Told(1, complaint="Access/permission denied"), 12)


def test_accounts_that_cannot_be_read():
    for failed in (Told(1, complaint="Slurm accounting storage is disabled"), Told(127), Told(124), Told(text="x|y")):
        with pytest.raises(NoAccounts, match="sacct does not work"):
            slurm.query_accounting(failed, [1])
