"""Why SLURM lets a job wait, in words for the user.

The names are those of SLURM's list of job reason codes, with the older ones that PSI/J 0.9 lists
(https://slurm.schedmd.com/job_reason_codes.html, https://github.com/ExaWorks/psij-python). What follows a comma, as in
``ReqNodeNotAvail, UnavailableNodes:n[1-3]``, are details.
"""

import re

_UNAVAILABLE = "the requested nodes are not available: in use, reserved, or down"
_WORDS = {
    "AccountingPolicy": "an accounting limit is reached",
    "AccountNotAllowed": "the account may not use the partition; choose another --account or --partition",
    "AssociationJobLimit": "the account may not run more jobs at once",
    "AssociationResourceLimit": "the account may not use more resources at once",
    "AssociationTimeLimit": "the account's time is used up",
    "AssocGrpBillingMinutes": "the account's grant is used up",
    "AssocGrpCPUMinutesLimit": "the account's grant is used up",
    "AssocGrpCPURunMinutesLimit": "the account's running jobs may still need all the time that it has",
    "AssocMaxJobsLimit": "the account may not run more jobs at once",
    "BadConstraints": "no node of the cluster has what it asks for; change its options",
    "BeginTime": "its earliest start time has not come",
    "BurstBufferOperation": "its burst buffer is not ready",
    "BurstBufferResources": "no burst buffer is free",
    "BurstBufferStageIn": "its burst buffer is being filled",
    "Cleaning": "it was put back into the queue, and its earlier run is being cleaned up",
    "Constraints": "no free node has what it asks for",
    "DeadLine": "it cannot end before its deadline",
    "Dependency": "other jobs must end first",
    "DependencyNeverSatisfied": "it waits for a job that cannot end as required; cancel it",
    "FedJobLock": "clusters of the federation are deciding where it runs",
    "FrontEndDown": "no front-end node is available",
    "InactiveLimit": "the system's limit of inactivity is reached",
    "InvalidAccount": "its account is invalid; choose another with --account",
    "InvalidQOS": "its QOS is invalid; choose another with --qos",
    "JobArrayTaskLimit": "the limit of tasks that run at once is reached",
    "JobHeldAdmin": "an administrator holds it",
    "JobHeldUser": "it is held; release it with scontrol release",
    "JobHoldMaxRequeue": "it was put back into the queue too often, and is held",
    "JobLaunchFailure": "it could not be started, and is held",
    "Licenses": "no license is free",
    "MaxRequeue": "it was put back into the queue too often",
    "NodeDown": "a node that it needs is down",
    "None": None,
    "NonZeroExitCode": "its earlier run failed",
    "NotYetStarted": "the scheduler has not considered it yet",
    "OutOfMemory": "its earlier run needed more memory than it had",
    "PartitionDown": "the partition is down",
    "PartitionInactive": "the partition is inactive",
    "PartitionNodeLimit": "it asks for more or fewer nodes than the partition allows, or these nodes are down",
    "PartitionTimeLimit": "it asks for more time than the partition allows; give it less with --time",
    "Priority": "other jobs have higher priority",
    "Prolog": "its nodes are being prepared",
    "QOSJobLimit": "the QOS may not run more jobs at once",
    "QOSMaxJobsPerUserLimit": "its user may not run more jobs at once",
    "QOSNotAllowed": "the partition does not allow its QOS; choose another with --qos",
    "QOSResourceLimit": "the QOS may not use more resources at once",
    "QOSTimeLimit": "the time of the QOS is used up",
    "QOSUsageThreshold": "the use of the QOS is over its threshold",
    "ReqNodeNotAvail": _UNAVAILABLE,
    "Reservation": "its reservation has not begun",
    "ReservationDeleted": "its reservation was deleted; change --reservation",
    "Resources": "no nodes are free",
    "SchedDefer": "the scheduler starts jobs later",
    "SystemFailure": "SLURM, a file system or the network failed",
    "TimeLimit": "its time limit is reached",
    "WaitingForScheduling": "the scheduler has not considered it yet",
}
#: Families of names, of which SLURM has one for each resource: Cpu, GRES, Mem, Node, BB, Energy, License, ...
_FAMILIES = (
    (re.compile(r"AssocGrp.*Minutes.*"), "the account's grant is used up"),
    (re.compile(r"AssocGrp.*"), "the account and those below it may not use more at once"),
    (re.compile(r"AssocMax.*"), "it asks for more than one job of the account may have; change its options"),
    (re.compile(r"QOSGrp.*Minutes.*"), "the grant of the QOS is used up"),
    (re.compile(r"QOSGrp.*"), "all jobs of the QOS together may not use more at once"),
    (re.compile(r"QOSMax.*PerUser.*"), "its user may not use more at once"),
    (re.compile(r"QOSMax.*(PerAccount|PA)\b.*"), "the account may not use more at once"),
    (re.compile(r"QOSMax.*"), "it asks for more than one job of the QOS may have; change its options"),
    (re.compile(r"QOSMin.*"), "it asks for less than a job of the QOS must have; change its options"),
    (
        re.compile(r"Nodes required for job are DOWN.*"),
        "the requested nodes are not available: in use, reserved, or down",
    ),
)


def explain_wait(text: str) -> str | None:
    """The reason in words, with SLURM's own name of it; None if there is none."""
    name = text.strip().strip("()").partition(",")[0].strip()
    if name in ("", "null", "None"):
        return None
    words = _WORDS.get(name)
    for pattern, meaning in _FAMILIES if words is None else ():
        if pattern.fullmatch(name):
            words = meaning
            break
    return f"{words} ({name[:40]})" if words else f"the cluster says {name[:40]}"
