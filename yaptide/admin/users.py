"""`yaptide users`, and the same in `db_manage.py`."""

from typing import Annotated

import typer

from yaptide.admin.arguments import (
    AsJson,
    PasswordFile,
    PasswordGiven,
    Provider,
    UserName,
    Yes,
    ask_confirmation,
    ask_password,
    parse_size,
)
from yaptide.admin.display import (
    format_bytes,
    format_count,
    format_limit as limited,
    format_time,
    print_facts,
    print_json,
    print_message,
    print_table,
)
from yaptide.admin.store import connect_database, least_password
from yaptide.persistence.models.users import KEYCLOAK_USER
from yaptide.persistence.queries.administration import Holdings
from yaptide.services import administration

app = typer.Typer(help="List, add, change and remove users.", no_args_is_help=True)


@app.command("list")
def list_users(as_json: AsJson = False) -> None:
    """List all users, with what they store and how much they may.

    Example: yaptide users list
    """
    rows = administration.list_users(connect_database())
    if as_json:
        print_json({"users": [dict(row._mapping) for row in rows]})
        return
    table = [
        (row.username, row.auth_provider, row.simulations, format_bytes(row.stored_bytes), limited(row.quota_bytes))
        for row in rows
    ]
    print_table(("user", "signs in as", "simulations", "stored", "quota"), table)


@app.command("show")
def show_user(name: UserName, provider: Provider = "", as_json: AsJson = False) -> None:
    """Show a user: what they store, how much they may, and until when their SSH certificate is good.

    Example: yaptide users show alice
    """
    from yaptide.services.credentials import certificate_end  # noqa: PLC0415 - needs an extra

    database = connect_database()
    user = administration.find_user(database, name, provider)
    row = next(row for row in administration.list_users(database) if row.id == user.id)
    certificate = administration.read_certificate(database, user)
    until = None if certificate is None else certificate_end(certificate)
    if as_json:
        print_json({**row._mapping, "has_certificate": certificate is not None, "certificate_valid_until": until})
        return
    facts: dict[str, object] = {
        "user": row.username,
        "signs in as": row.auth_provider,
        "simulations": row.simulations,
        "stored": format_bytes(row.stored_bytes),
        "quota": limited(row.quota_bytes),
    }
    if user.is_keycloak:
        facts["at Keycloak"] = f"{row.subject} of {row.issuer}" if row.subject else "whoever signs in next by this name"
    if certificate is not None:
        facts["SSH certificate"] = f"valid until {format_time(until)}" if until else "cannot be read"
    elif user.is_keycloak:
        facts["SSH certificate"] = "none"
    print_facts(facts, name)


@app.command("add")
def add_user(
    name: UserName,
    password_file: PasswordFile = None,
    password_on_command_line: PasswordGiven = None,
    quota: Annotated[str, typer.Option(help="Bytes that the simulations may take, such as 5GB.")] = "none",
) -> None:
    """Add a user. The password is asked for.

    Example: yaptide users add alice
    """
    name = administration.check_new_name(name)
    limit = parse_size(quota)
    secret = ask_password(password_file, password_on_command_line)
    administration.add_user(connect_database(), name, secret, limit, least_password())
    print_message(f"User {name} was added")


@app.command("update")
def update_user(
    name: UserName,
    provider: Provider = "",
    new_name: Annotated[str | None, typer.Option(help="Another name.", show_default=False)] = None,
    quota: Annotated[str | None, typer.Option(help="As `quota` takes it.", show_default=False)] = None,
    password_file: PasswordFile = None,
    password_on_command_line: PasswordGiven = None,
) -> None:
    """Change a user: the name, the quota or the password, which is asked for if nothing else is to be changed.

    Example: yaptide users update alice --quota 5GB
    """
    limit = None if quota is None else parse_size(quota)
    database = connect_database()
    user = administration.find_user(database, name, provider)
    secret = password_file is not None or password_on_command_line is not None
    if secret or (new_name is None and quota is None):
        given = ask_password(password_file, password_on_command_line)
        administration.set_password(database, user, given, least_password())
        print_message(f"User {name} has a new password")
    if quota is not None:
        administration.set_quota(database, user, limit)
        print_message(f"User {name} may store {_may(limit)}")
    if new_name is not None:
        administration.rename_user(database, user, new_name)
        print_message(f"User {name} is now {new_name}")


@app.command("passwd")
def set_password(
    name: UserName, password_file: PasswordFile = None, password_on_command_line: PasswordGiven = None
) -> None:
    """Give a user another password, and end their sessions.

    Example: yaptide users passwd alice --password-file secret.txt
    """
    update_user(name, administration.LOCAL, None, None, password_file, password_on_command_line)


@app.command("quota")
def set_quota(
    name: UserName,
    limit: Annotated[str, typer.Argument(metavar="SIZE", help="Such as 5GB or 200MiB; none: no limit.")],
    provider: Provider = "",
) -> None:
    """Limit the bytes that a user's simulations may take. What is stored already stays; more is refused.

    Example: yaptide users quota alice 5GB
    """
    update_user(name, provider, None, limit, None, None)


@app.command("remove")
def remove_user(name: UserName, provider: Provider = "", yes: Yes = False) -> None:
    """Remove a user with all their simulations, after showing what goes with them.

    Example: yaptide users remove alice
    """
    database = connect_database()
    user = administration.find_user(database, name, provider)
    seen = administration.count_holdings(database, user)
    ask_confirmation(f"Remove {user.username} ({user.auth_provider}) with {_held(seen)}?", yes)
    administration.remove_user(database, user, seen)
    print_message(f"User {name} was removed, with {_held(seen)}")


@app.command("link")
def link_user(
    name: UserName,
    subject: Annotated[
        str, typer.Option(metavar="SUB", help="To the user with this ID at Keycloak.", show_default=False)
    ] = "",
    issuer: Annotated[
        str, typer.Option(metavar="URL", help="In this realm; default: the present one.", show_default=False)
    ] = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give an account to another user of Keycloak, with all its simulations: who has the name now, or was made anew.

    Without --subject it goes to whoever signs in next by its name. Sessions end, SSH credentials are removed. To leave
    the simulations with who has them, and the name to the other one: yaptide users update NAME --new-name OTHER.

    Example: yaptide users link alice
    """
    database = connect_database()
    user = administration.find_user(database, name, KEYCLOAK_USER)
    whose = administration.chosen_subject(database, user, subject, issuer)
    seen = administration.count_holdings(database, user)
    to = (
        f"the user {whose.subject} of {whose.issuer}"
        if whose
        else f"who signs in through Keycloak as {user.username} next"
    )
    ask_confirmation(f"Give {user.username} ({user.auth_provider}) with {_held(seen)} to {to}?", yes)
    administration.link_user(database, user, whose)
    if as_json:
        facts = {"username": user.username, "issuer": whose and whose.issuer, "subject": whose and whose.subject}
        print_json(facts)
    else:
        print_message(f"User {user.username} belongs to {to}")


def _held(seen: Holdings) -> str:
    still = f", {seen.open} of them not ended" if seen.open else ""
    return f"{format_count(seen.simulations, 'simulation')} ({format_bytes(seen.stored_bytes)}{still})"


def _may(limit: int | None) -> str:
    return "without limit" if limit is None else format_bytes(limit)
