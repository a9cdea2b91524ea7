"""What a failure of `sbatch` means: SLURM's own "no" is final, everything else may pass.

SLURM names its reason after "Batch job submission failed:". Before it, there may be the name of a limit, and text of
the site's submission plugin.
"""

import re

from yaptide.domain.errors import ClusterUnavailable
from yaptide.platforms.batch.schedulers.base import Answer, ArrayTooLarge, JobRefused, QueueFull

_FAILED = re.compile(r"Batch job submission failed: (.*)", re.IGNORECASE)
_SUBMIT_LIMIT = re.compile(r"\b(Assoc|QOS)\w*Submit\w*", re.IGNORECASE)
_OTHER_LIMIT = re.compile(r"\b(Assoc|QOS)(Max|Min|Grp)\w*", re.IGNORECASE)
_POLICY = re.compile(r"violates accounting/QOS policy", re.IGNORECASE)
_ARRAY = "Invalid job array specification"
#: SLURM cannot decide now; the words that its libraries have for this.
_PASSING = re.compile(
    r"Unable to contact|timed out|Timed out|Protocol authentication|Zero Bytes|Unexpected message|try again|"
    r"[Tt]emporarily|Transport endpoint|Connection (refused|reset|timed)|No route to host|not responding|standby mode|"
    r"I/O error writing|Invalid authentication credential|Slurm database|partition not available|in a state down|"
    r"No space left|Communication connection|Message (send|receive) failure|Unspecified error$"
)
#: sbatch itself rejects an option or the script.
_WRONG = re.compile(
    r"sbatch: (error: |fatal: )?(Invalid|invalid|unrecognized|option|ambiguous)|mutually exclusive|Unable to open file"
)
_PLUGIN = re.compile(r"sbatch: error: (?!If munged|Munge|authentication|slurm_|Batch job|auth_)")


def make_refusal(answer: Answer) -> JobRefused | ClusterUnavailable:
    """The error for a failed `sbatch`: JobRefused or ArrayTooLarge if that is final, else ClusterUnavailable."""
    text = answer.complaint
    failed = _FAILED.search(text)
    refused = f"The cluster did not accept the job: {text}"
    if _SUBMIT_LIMIT.search(text) or (_POLICY.search(text) and not _OTHER_LIMIT.search(text)):
        return QueueFull(f"The cluster accepts no more jobs of this account for now: {text}")
    if _ARRAY in text:
        return ArrayTooLarge(refused)
    if failed is not None:
        says_why = failed[1] == "Unspecified error" and _PLUGIN.search(text) is not None
        return JobRefused(refused) if says_why or not _PASSING.search(failed[1]) else ClusterUnavailable(refused)
    if answer.exit_code not in (126, 127) and _WRONG.search(text) and not _PASSING.search(text):
        return JobRefused(refused)
    return ClusterUnavailable(refused)
