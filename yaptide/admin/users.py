"""`yaptide users`; `db_manage.py` has the same commands."""

from pathlib import Path
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
    format_name,
    format_time,
    out,
    print_facts,
    print_json,
    print_message,
    print_table,
)
from yaptide.admin.store import connect_database, least_password, open_store
from yaptide.persistence.models.users import KEYCLOAK_USER
from yaptide.persistence.queries.administration import Holdings
from yaptide.services import administration

app = typer.Typer(help="List, add, change and remove users.", no_args_is_help=True)


@app.command("list")
def list_users(as_json: AsJson = False) -> None:
    """List all users with their stored bytes and quotas.

    Example: yaptide users list
    """
    rows = administration.list_users(connect_database())
    if as_json:
        print_json({"users": [dict(row._mapping) for row in rows]})
        return
    table = [
        (
            format_name(row.username),
            row.auth_provider,
            row.simulations,
            format_bytes(row.stored_bytes),
            limited(row.quota_bytes),
        )
        for row in rows
    ]
    print_table(("user", "provider", "simulations", "stored", "quota"), table)


@app.command("show")
def show_user(name: UserName, provider: Provider = "", as_json: AsJson = False) -> None:
    """Show a user: stored bytes, quota, and when the SSH certificate expires.

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
        "provider": row.auth_provider,
        "simulations": row.simulations,
        "stored": format_bytes(row.stored_bytes),
        "quota": limited(row.quota_bytes),
    }
    if user.is_keycloak:
        facts["Keycloak ID"] = (
            f"{row.subject} of {row.issuer}" if row.subject else "set at the next sign-in by this name"
        )
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
    quota: Annotated[str, typer.Option(help="Maximum stored bytes, e.g. 5GB; none: no limit.")] = "none",
) -> None:
    """Add a user. Prompts for the password.

    Example: yaptide users add alice
    """
    name = administration.check_new_name(name)
    limit = parse_size(quota)
    password = ask_password(password_file, password_on_command_line)
    administration.add_user(connect_database(), name, password, limit, least_password())
    print_message(f"Added user {name}")


@app.command("update")
def update_user(
    name: UserName,
    provider: Provider = "",
    new_name: Annotated[str | None, typer.Option(help="New name.", show_default=False)] = None,
    quota: Annotated[str | None, typer.Option(help="New quota, e.g. 5GB; none: no limit.", show_default=False)] = None,
    password_file: PasswordFile = None,
    password_on_command_line: PasswordGiven = None,
) -> None:
    """Change the name, quota or password of a user. Without options, prompts for a new password.

    Example: yaptide users update alice --quota 5GB
    """
    limit = None if quota is None else parse_size(quota)
    database = connect_database()
    user = administration.find_user(database, name, provider)
    has_password = password_file is not None or password_on_command_line is not None
    if has_password or (new_name is None and quota is None):
        password = ask_password(password_file, password_on_command_line)
        administration.set_password(database, user, password, least_password())
        print_message(f"Changed the password of user {name}")
    if quota is not None:
        administration.set_quota(database, user, limit)
        print_message(f"Changed the quota of user {name} to {_format_quota(limit)}")
    if new_name is not None:
        administration.rename_user(database, user, new_name)
        print_message(f"Renamed user {name} to {new_name}")


@app.command("passwd")
def set_password(
    name: UserName,
    password_file: PasswordFile = None,
    password_on_command_line: PasswordGiven = None,
    end_tokens: Annotated[bool, typer.Option("--end-tokens", help="Revoke all API tokens of the user, too.")] = False,
) -> None:
    """Change the password of a user and end their sessions.

    Example: yaptide users passwd alice --password-file secret.txt
    """
    database = connect_database()
    user = administration.find_user(database, name, administration.LOCAL)
    password = ask_password(password_file, password_on_command_line)
    ending = administration.Ending(tokens=end_tokens)
    administration.set_password(database, user, password, least_password(), ending)
    print_message(f"Changed the password of user {name}" + (" and revoked the API tokens" if end_tokens else ""))


@app.command("reset-link")
def make_reset_link(
    name: UserName,
    url: Annotated[
        str, typer.Option(help="URL of the server for users; default: YAPTIDE_BACKEND_URL.", show_default=False)
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Print a link with which a user sets a new password: once, within an hour. Whoever has the link can do it.

    Example: yaptide users reset-link alice --url https://yaptide.example.org
    """
    from yaptide.services import reset_links  # noqa: PLC0415 - db_manage.py runs without its dependencies

    store = open_store()
    user = administration.find_user(store.backend.database, name, administration.LOCAL)
    link = reset_links.make_link(store.backend, user, url or store.settings.backend_url)
    if as_json:
        print_json({"username": user.username, "link": link.text, "expires": link.expires})
        return
    print_message(f"Link for {user.username}, valid until {format_time(link.expires)} and for one use:")
    out.print(link.text, markup=False, highlight=False, soft_wrap=True)


@app.command("sessions")
def list_sessions(
    name: UserName,
    provider: Provider = "",
    end: Annotated[bool, typer.Option("--end", help="End all of them.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the sessions of a user: when, from where and with which program the user signed in; or end them.

    Example: yaptide users sessions alice
    """
    from yaptide.services import accounts  # noqa: PLC0415 - as above

    backend = open_store().backend
    user = administration.find_user(backend.database, name, provider)
    sessions = accounts.list_sessions(backend, user)
    if end:
        accounts.end_other_sessions(backend, user, None)
        print_message(f"Ended {format_count(len(sessions), 'session')} of {user.username}")
    if as_json:
        columns = ("id", "started", "expires", "address", "device")
        print_json({"sessions": [{column: getattr(each, column) for column in columns} for each in sessions]})
    elif not end:
        table = [
            (format_time(each.started), format_time(each.expires), each.address or "-", each.device or "-")
            for each in sessions
        ]
        print_table(("signed in", "ends", "address", "program"), table)


@app.command("export")
def export_user(
    name: UserName,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive to write.")],
    provider: Provider = "",
    as_json: AsJson = False,
) -> None:
    """Write all simulations of a user that have ended to an archive, which yaptide import reads.

    Example: yaptide users export alice alice.zip
    """
    from yaptide.services import accounts  # noqa: PLC0415 - as above

    backend = open_store().backend
    exported = accounts.write_export(backend, administration.find_user(backend.database, name, provider), file)
    if as_json:
        print_json({"simulations": exported.job_ids, "unfinished": exported.unfinished, "bytes": file.stat().st_size})
        return
    left_out = f"; {exported.unfinished} have not ended and are left out" if exported.unfinished else ""
    print_message(f"Exported {format_count(len(exported.job_ids), 'simulation')} of {name} to {file}{left_out}")


@app.command("quota")
def set_quota(
    name: UserName,
    limit: Annotated[str, typer.Argument(metavar="SIZE", help="Maximum, e.g. 5GB or 200MiB; none: no limit.")],
    provider: Provider = "",
) -> None:
    """Limit the bytes that a user's simulations may store. Stored data stays; new data over the limit is rejected.

    Example: yaptide users quota alice 5GB
    """
    update_user(name, provider, None, limit, None, None)


@app.command("remove")
def remove_user(name: UserName, provider: Provider = "", yes: Yes = False) -> None:
    """Remove a user with all their simulations, after showing how many.

    Example: yaptide users remove alice
    """
    database = connect_database()
    user = administration.find_user(database, name, provider)
    holdings = administration.count_holdings(database, user)
    ask_confirmation(f"Remove {user.username} ({user.auth_provider}) with {_describe_holdings(holdings)}?", yes)
    administration.remove_user(database, user, holdings)
    print_message(f"Removed user {name} with {_describe_holdings(holdings)}")


@app.command("link")
def link_user(
    name: UserName,
    subject: Annotated[str, typer.Option(metavar="SUB", help="Keycloak ID of the new owner.", show_default=False)] = "",
    issuer: Annotated[
        str,
        typer.Option(metavar="URL", help="Realm of the new owner; default: the configured one.", show_default=False),
    ] = "",
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give an account with all its simulations to another Keycloak user, e.g. one that was created anew.

    Without --subject, the account goes to the next user who signs in with its name. Its sessions end, and its SSH
    credentials are removed. To keep the simulations with the current user and free the name instead: yaptide users
    update NAME --new-name OTHER.

    Example: yaptide users link alice
    """
    database = connect_database()
    user = administration.find_user(database, name, KEYCLOAK_USER)
    identity = administration.chosen_subject(database, user, subject, issuer)
    holdings = administration.count_holdings(database, user)
    recipient = (
        f"the user {identity.subject} of {identity.issuer}"
        if identity
        else f"the next user who signs in through Keycloak as {user.username}"
    )
    ask_confirmation(
        f"Give {user.username} ({user.auth_provider}) with {_describe_holdings(holdings)} to {recipient}?", yes
    )
    administration.link_user(database, user, identity)
    if as_json:
        keycloak = {"issuer": identity and identity.issuer, "subject": identity and identity.subject}
        print_json({"username": user.username, **keycloak})
    else:
        print_message(f"User {user.username} now belongs to {recipient}")


def _describe_holdings(holdings: Holdings) -> str:
    unfinished = f", {holdings.open} of them unfinished" if holdings.open else ""
    size = format_bytes(holdings.stored_bytes)
    return f"{format_count(holdings.simulations, 'simulation')} ({size}{unfinished})"


def _format_quota(limit: int | None) -> str:
    return "no limit" if limit is None else format_bytes(limit)
