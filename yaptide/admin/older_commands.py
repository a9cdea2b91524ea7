"""Command lines of the older backend's `db_manage.py`, translated into those of today, with a warning."""

from collections.abc import Callable

from yaptide.admin.display import print_message
from yaptide.admin.store import connect_database
from yaptide.persistence.models.users import KEYCLOAK_USER, YAPTIDE_USER
from yaptide.services import administration

#: Older options of each command, and today's.
_OPTIONS = {
    "add-user": {"--password": "--password-on-command-line"},
    "update-user": {"--password": "--password-on-command-line"},
    "list-tasks": {"--auth-provider": "--provider"},
    "list-simulations": {"--auth-provider": "--provider"},
}
_SIMULATION = "--sim_id"
_YES = "--yes"


def translate(words: list[str]) -> list[str]:
    """Return the words of a command line of today; print a warning if they differ from the ones given.

    Numbers of simulations become job_ids. Commands that removed something did not ask, so `--yes` is added to those in
    the older form. Raises NotFound if there is no such simulation.
    """
    if not words or words[0] not in {*_OPTIONS, *_POSITIONAL, "list-users", "list-clusters"}:
        return words
    command, rest = words[0], [word for word in words[1:] if not _is_verbose(word)]
    rest = [_translate_option(command, word) for word in rest]
    translated = [command, *_POSITIONAL.get(command, list)(rest)]
    if translated != words:
        shown = [command, *(word.partition("=")[0] for word in translated[1:] if word.startswith("--"))]  # no password
        print_message(f"Warning: this is a command line of an older version; today: db_manage.py {' '.join(shown)} ...")
    return translated


def _is_verbose(word: str) -> bool:
    return word == "--verbose" or (word.startswith("-v") and not word.strip("-v"))


def _translate_option(command: str, word: str) -> str:
    name, equals, value = word.partition("=")
    return _OPTIONS.get(command, {}).get(name, name) + equals + value


def _translate_list_tasks(words: list[str]) -> list[str]:
    """Translate `--sim_id N` to the job_id of the simulation."""
    translated = [part for word in words for part in _split_option(word)]
    if _SIMULATION in translated[:-1]:
        position = translated.index(_SIMULATION)
        translated[position : position + 2] = [_find_job(translated[position + 1])]
        return translated
    return words


def _split_option(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith(f"{_SIMULATION}=") else [word]


def _translate_simulation(words: list[str]) -> list[str]:
    """Translate the number of a simulation, the first word, to its job_id."""
    if not words or not words[0].isdecimal():
        return words
    job_id = _find_job(words[0])
    return words if job_id == words[0] else [job_id, *words[1:], *_confirmation(words)]


def _translate_remove_user(words: list[str]) -> list[str]:
    """Translate `NAME PROVIDER`."""
    if len(words) > 1 and words[1] in (YAPTIDE_USER, KEYCLOAK_USER):
        return [words[0], "--provider", words[1], *words[2:], *_confirmation(words)]
    return words


def _confirmation(words: list[str]) -> list[str]:
    return [] if _YES in words else [_YES]


def _find_job(number: str) -> str:
    return administration.find_job_id(connect_database(), number)


_POSITIONAL: dict[str, Callable[[list[str]], list[str]]] = {
    "list-tasks": _translate_list_tasks,
    "remove-simulation": _translate_simulation,
    "remove-task": _translate_simulation,
    "remove-user": _translate_remove_user,
}
