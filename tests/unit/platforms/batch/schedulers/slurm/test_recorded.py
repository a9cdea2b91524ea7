"""What SLURM printed at other sites, from their public records (the source is beside each)."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from yaptide.domain.errors import YaptideError
from yaptide.platforms.batch.schedulers.slurm import Slurm
from yaptide.platforms.batch.schedulers.slurm.reasons import explain_wait
from yaptide.platforms.batch.ssh import Finished

RECORDED = json.loads((Path(__file__).parents[5] / "fixtures/slurm-answers.json").read_text())
slurm = Slurm()


@dataclass
class Shell:
    answer: Finished

    def run_command(self, *words):
        return self.answer


READ = {
    "sbatch": slurm.parse_job_number,
    "squeue": lambda answer: slurm.query_queue(Shell(answer)),
    "sacct": lambda answer: slurm.query_accounting(Shell(answer), [1]),
    "reason": lambda answer: explain_wait(answer.text),
}


@pytest.mark.parametrize("record", RECORDED, ids=map(str, range(len(RECORDED))))
def test_recorded_answers_are_understood(record):
    answer = Finished(record.get("exit_code", 0), record.get("out", "").encode(), record.get("err", "").encode())
    try:
        assert READ[record["command"]](answer) == record["expected"]
    except YaptideError as error:
        assert type(error).__name__ == record["expected"], error  # noqa: PT017
