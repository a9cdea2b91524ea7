"""`yaptide tokens`: API tokens of users of this store."""

from typing import Annotated

import typer

from yaptide.admin.arguments import AsJson, Provider, Yes, ask_confirmation
from yaptide.admin.display import format_time, out, print_json, print_message, print_table
from yaptide.admin.store import local_user, open_store
from yaptide.domain.rights import Scope
from yaptide.services import administration, tokens
from yaptide.services.backend import Backend, utc_now
from yaptide.services.users import User

app = typer.Typer(help="Create, list and revoke API tokens, with which programs act for a user.", no_args_is_help=True)

TokenName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the token, e.g. of the program.")]
Owner = Annotated[str, typer.Option("--user", help="User of the token; default: you.", show_default=False)]


@app.command("create")
def create_token(
    name: TokenName,
    expires: Annotated[str, typer.Option(help="Lifetime, at most 366d, e.g. 90d or 12h.")] = tokens.LIFETIME,
    scope: Annotated[Scope, typer.Option(help="What it may do; each scope includes the ones before it.")] = Scope.READ,
    user: Owner = "",
    provider: Provider = "",
    as_json: AsJson = False,
) -> None:
    """Create a token and print it to standard output. It is not shown again.

    Example: yaptide tokens create laptop --expires 90d --scope submit --user alice
    """
    backend = open_store().backend
    owner = _find_owner(backend, user, provider)
    token = tokens.create_token(backend, owner, name, scope, expires)
    if as_json:
        facts = {"user": owner.username, "name": token.name, "scope": token.scope, "token": token.text}
        print_json({**facts, "created": token.created, "expires": token.expires})
        return
    print_message(f"Token {token.name} of {owner.username}, scope {scope}, valid until {format_time(token.expires)}:")
    out.print(token.text, markup=False, highlight=False, soft_wrap=True)


@app.command("list")
def list_tokens(
    user: Owner = "",
    provider: Provider = "",
    all_users: Annotated[bool, typer.Option("--all", help="List tokens of all users.")] = False,
    as_json: AsJson = False,
) -> None:
    """List tokens, with the time of their last use.

    Example: yaptide tokens list --all
    """
    backend = open_store().backend
    rows = tokens.list_tokens(backend, None if all_users else _find_owner(backend, user, provider))
    if as_json:
        print_json({"tokens": [dict(row._mapping) for row in rows]})
        return
    table = [
        (
            *(row.username, row.name, row.scope, format_time(row.created)),
            format_time(row.expires) if row.expires > utc_now() else "expired",
            format_time(row.last_used) if row.last_used else "never",
        )
        for row in rows
    ]
    print_table(("user", "name", "scope", "created", "expires", "last used"), table)


@app.command("revoke")
def revoke_token(
    name: TokenName, user: Owner = "", provider: Provider = "", yes: Yes = False, as_json: AsJson = False
) -> None:
    """Revoke a token at once.

    Example: yaptide tokens revoke laptop --user alice
    """
    backend = open_store().backend
    owner = _find_owner(backend, user, provider)
    ask_confirmation(f"Revoke token {name} of {owner.username}?", yes)
    tokens.revoke_token(backend, owner, name)
    if as_json:
        print_json({"user": owner.username, "revoked": name})
    else:
        print_message(f"Revoked token {name} of {owner.username}")


def _find_owner(backend: Backend, name: str, provider: str) -> User:
    """Return the named user, or without a name the user of this machine."""
    return administration.find_user(backend.database, name, provider) if name else local_user(backend, "")
