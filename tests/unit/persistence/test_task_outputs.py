"""The file of a task's scores: its log files. Scores and damage are in tests/integration/test_contract_work.py."""

from pathlib import Path

import numpy as np
import pytest

from yaptide.domain.estimators import Estimator, Page, TaskOutput
from yaptide.persistence import task_outputs

ESTIMATORS = (Estimator("dose", "dose", (Page(0, "dose", "Gy", (), np.ones(1)),)),)


@pytest.mark.parametrize("logs", [{}, {"output.log": "Größe: 5 > 4\n", "other.log": ""}])
def test_log_files_come_back_and_change_nothing_else(tmp_path: Path, logs):
    path = tmp_path / "0.npz"
    with path.open("wb") as file:
        task_outputs.write_output(file, TaskOutput(1, ESTIMATORS, logs))
    assert task_outputs.read_logs(path) == logs
    task_outputs.check_output(path, 10_000)
    (result,) = task_outputs.read_output(path)
    assert (result.name, result.pages[0].values.tolist()) == ("dose", [1.0])
