"""Why jobs wait, in words."""

import pytest
from hypothesis import given, strategies as st

from yaptide.platforms.batch.schedulers.slurm.reasons import explain_wait

#: The reasons that PSI/J lists (https://github.com/ExaWorks/psij-python, executors/batch/slurm.py).
PSIJ = [
    *(["AssociationJobLimit", "AssociationResourceLimit", "AssociationTimeLimit", "BadConstraints"]),
    *(["BeginTime", "Cleaning", "Dependency", "FrontEndDown", "InactiveLimit", "InvalidAccount"]),
    *(["InvalidQOS", "JobHeldAdmin", "JobHeldUser", "JobLaunchFailure", "Licenses", "NodeDown"]),
    *(["NonZeroExitCode", "PartitionDown", "PartitionInactive", "PartitionNodeLimit"]),
    *(["PartitionTimeLimit", "Priority", "Prolog", "QOSJobLimit", "QOSResourceLimit", "QOSTimeLimit"]),
    *(["ReqNodeNotAvail", "Reservation", "Resources", "SystemFailure", "TimeLimit"]),
    *(["QOSUsageThreshold", "WaitingForScheduling"]),
]
#: One of each family of limits (https://slurm.schedmd.com/job_reason_codes.html).
LIMITS = [
    *(["AssocGrpCpuLimit", "AssocGrpGRES", "AssocGrpMemMinutes", "AssocMaxCpuPerJobLimit"]),
    *(["AssocMaxWallDurationPerJobLimit", "QOSGrpNodeLimit", "QOSGrpCPUMinutesLimit"]),
    *(["QOSMaxCpuPerUserLimit", "QOSMaxGRESPerAccount", "QOSMaxNodePerJobLimit", "QOSMinGRES"]),
]


@pytest.mark.parametrize("name", PSIJ + LIMITS)
def test_every_reason_has_words(name):
    words = explain_wait(f"({name}, details)")
    assert words.endswith(f" ({name})")
    assert not words.startswith("the cluster says")


@pytest.mark.parametrize("text", ["", "None", "(null)", "(None)", " "])
def test_no_reason(text):
    assert explain_wait(text) is None


@given(st.text())
def test_an_unknown_reason_is_quoted(text):
    assert len(explain_wait(text) or "") < 200
