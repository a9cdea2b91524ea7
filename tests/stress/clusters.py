"""Two clusters as computing centres have them, one with accounting (slurmdbd and MariaDB) and one without.

`python -m pytest tests/stress/clusters.py`: users with another login shell, text around answers, limits, daemons that
go away. Every simulation completes once, or waits and tells its user why.
"""

from collections.abc import Iterator

import pytest

from tests.acceptance.test_batch import (
    DEADLINE,
    LONG,
    SHORT,
    Site,
    ended,
    files,
    numbers,
    program,
    reasons,
    site,
    states,
    submit,
    test_a_login_shell_that_exits_is_waited_for,
    test_any_login_shell_and_text_around_answers,
    test_only_the_cluster_itself_refuses,
    waits_because,
)
from tests.support.processes import until
from tests.support.slurm import SlurmCluster, serve
from tests.support.slurm_accounts import AccountedCluster, serve_with_accounts
from yaptide.domain.states import EntityState

__all__ = [
    "files",
    "program",
    "site",
    "test_a_login_shell_that_exits_is_waited_for",
    "test_any_login_shell_and_text_around_answers",
    "test_only_the_cluster_itself_refuses",
]


@pytest.fixture(scope="module", params=["without accounts", "with accounts"])
def slurm_cluster(request: pytest.FixtureRequest) -> Iterator[SlurmCluster]:
    with serve() if request.param == "without accounts" else serve_with_accounts() as cluster:
        yield cluster


@pytest.fixture
def accounted(site: Site) -> AccountedCluster:
    if not isinstance(site.cluster, AccountedCluster):
        pytest.skip("this cluster has no accounting")
    return site.cluster


def attempts(there: Site) -> set[int]:
    return {number for (number,) in there.there.query("SELECT attempts FROM Task")}


def test_munge_that_is_away_for_25_seconds(site, files):
    site.up()
    with site.client() as client:
        before = submit(client, files(LONG))
        site.wait_for_running(before, 2)
        site.cluster.stop("munged")
        try:
            after = submit(client, files(SHORT))
            waits_because(site, after, "rotocol authentication error")
        finally:
            site.cluster.start_munged()
        assert ended(after) is EntityState.COMPLETED
        assert states(before) == ["RUNNING", "RUNNING"]
        before.cancel()
        assert attempts(site) == {1}


def test_an_account_that_may_submit_three_jobs(site, accounted, files):
    site.up()
    with site.client() as client:
        source = files(7 * SHORT)
        accounted.limit("MaxSubmitJobs=3")
        try:
            with accounted.holding():
                jobs = [submit(client, source, 7), submit(client, files(2 * SHORT), 2)]
                waits_because(site, jobs[0], "3 of 7 tasks are submitted; The cluster accepts no more jobs")
                waits_because(site, jobs[1], "AssocMaxSubmitJobLimit")
            assert [ended(job) for job in jobs] == [EntityState.COMPLETED] * 2, [job.history() for job in jobs]
        finally:
            accounted.limit("MaxSubmitJobs=-1")
        assert attempts(site) == {1}
        whole = submit(client, source, 7)
        assert ended(whole) is EntityState.COMPLETED
        assert numbers(whole) == numbers(jobs[0])


def test_an_account_whose_jobs_wait_for_a_limit(site, accounted, files):
    site.up()
    with site.client() as client:
        accounted.limit("GrpJobs=0")
        try:
            job = submit(client, files(SHORT), 1)
            waits_because(site, job, "may not use more at once (AssocGrpJobsLimit)")
            waits_because(site, job, "in the queue")
        finally:
            accounted.limit("GrpJobs=-1")
        assert ended(job) is EntityState.COMPLETED


def test_the_accounts_tell_who_canceled(site, accounted, files):
    site.up()
    with site.client() as client, accounted.holding():
        job = submit(client, files(SHORT))
        until(lambda: len(site.submitted(job)) == 2, "it is submitted", DEADLINE)
        array = site.submitted(job)[0]
        for task in (1, 2):  # a single task that is canceled while it waits leaves the queue
            accounted.command("scancel", f"{array}_{task}")
        assert ended(job) is EntityState.CANCELED
        assert "it was canceled on the cluster by user number 0" in reasons(job)


def test_accounts_that_are_away_hold_nothing_up(site, accounted, files):
    site.up()
    accounted.stop("slurmdbd")
    try:
        with site.client() as client:
            job = submit(client, files(2 * SHORT))
            assert ended(job) is EntityState.COMPLETED
            assert attempts(site) == {1}
    finally:
        accounted.start_slurmdbd()
