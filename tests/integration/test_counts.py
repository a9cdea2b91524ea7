"""How many simulations a list shows: as many as there are, whatever happens to them."""

from datetime import timedelta

from tests.support.api import submit
from tests.support.invariants import broken_invariants
from yaptide.domain.states import FINAL_STATES, EntityState
from yaptide.services import administration, retention, simulations
from yaptide.services.access import ADMINISTRATOR
from yaptide.services.backend import utc_now
from yaptide.services.retention import Old

STATES = [str(state) for state in EntityState]


def list_numbers(client) -> dict[str, int]:
    """How many simulations the list shows in each state; those of all states together are their sum."""

    def ask(states: str) -> int:
        return client.get("/user/simulations", query_string={"job_state": states}).json["simulations_count"]

    assert ask("") == ask(",".join(STATES)) == sum(map(ask, STATES))
    return {state: number for state in STATES if (number := ask(state))}


def test_a_list_counts_the_simulations_that_there_are(signed_in, stranger, backend, database):
    jobs = [submit(signed_in) for _ in range(6)]
    assert list_numbers(signed_in) == {"PENDING": 6}
    jobs[0].report_task(0, task_state="RUNNING")
    jobs[1].bring_to("CANCELED")
    jobs[2].bring_to("COMPLETED")
    jobs[3].bring_to("MERGING_RUNNING")
    jobs[4].report(job_state="RUNNING")
    jobs[4].report(job_state="PENDING")  # which is not taken
    numbers = {"PENDING": 1, "RUNNING": 2, "CANCELED": 1, "COMPLETED": 1, "MERGING_RUNNING": 1}
    assert list_numbers(signed_in) == numbers
    assert jobs[0].delete("/user/simulations").status_code == 403  # it has to be canceled first
    assert list_numbers(signed_in) == numbers
    jobs[1].delete("/user/simulations")
    contents = administration.count_contents(database, jobs[0].job_id)
    administration.remove_simulation(database, jobs[0].job_id, contents, force=True)
    assert list_numbers(signed_in) == {"PENDING": 1, "RUNNING": 1, "COMPLETED": 1, "MERGING_RUNNING": 1}
    old = Old(utc_now() + timedelta(days=1), tuple(FINAL_STATES))
    retention.purge_simulations(database, backend.spool, old, [job.job_id for job in jobs])
    assert list_numbers(signed_in) == {"PENDING": 1, "RUNNING": 1, "MERGING_RUNNING": 1}
    assert list_numbers(stranger) == {}
    assert broken_invariants(database) == []


def test_an_administrator_lists_the_simulations_of_all_users(signed_in, stranger, backend):
    submit(signed_in), submit(stranger).bring_to("FAILED")
    page = simulations.Page(states=(EntityState.FAILED,))
    assert simulations.list_simulations(backend, ADMINISTRATOR, page)[0] == 1
    assert simulations.list_simulations(backend, ADMINISTRATOR, simulations.Page())[0] == 2
