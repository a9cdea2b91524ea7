"""Users with their credentials, and clusters."""

from typing import Any

from sqlalchemy import select

from yaptide.domain.names import make_skeleton
from yaptide.persistence.adoption.values import optional_text, to_text, to_word
from yaptide.persistence.adoption.work import Names, Work
from yaptide.persistence.engine import Record
from yaptide.persistence.models.users import KEYCLOAK_USER, YAPTIDE_USER

_UNNAMED = "unnamed"


def copy_accounts(work: Work) -> None:
    """Copy users and clusters; ids and password hashes do not change."""
    _copy_users(work)
    _copy_clusters(work)


def _copy_users(work: Work) -> None:
    user, local, keycloak = (work.old[name] for name in ("User", YAPTIDE_USER, KEYCLOAK_USER))
    query = (
        select(user, local.c.id.label("local"), local.c.password_hash, keycloak.c.id.label("keycloak"))
        .add_columns(keycloak.c.cert, keycloak.c.private_key)
        .outerjoin(local, local.c.id == user.c.id)
        .outerjoin(keycloak, keycloak.c.id == user.c.id)
    )
    names = {provider: Names() for provider in (YAPTIDE_USER, KEYCLOAK_USER)}
    plain_names: dict[tuple[str, str], str] = {}
    skeletons: set[str | None] = set()
    for rows in work.batches(query, user.c.id):
        for row in rows:
            name, provider = _copy_user(work, row, names, skeletons)
            first = plain_names.setdefault((provider, "".join(name.split())), name)
            if first != name:
                why = f"the name {name!r} differs from that of user {first!r} only in blanks"
                work.decide(f"User {row.id}", repr(name), "kept; rename it with: yaptide users update", why)
    if work.size(local):
        why = f"a password of more than {work.options.longest_password} characters cannot be recognised by its hash"
        work.decide(YAPTIDE_USER, "", "users with longer passwords cannot sign in", why)


def _copy_user(work: Work, row: Record, names: dict[str, Names], skeletons: set[str | None]) -> tuple[str, str]:
    location, old_name = f"User {row.id}", to_text(row.username)
    provider = to_word(row.auth_provider, YAPTIDE_USER, KEYCLOAK_USER)
    if provider is None:
        provider = KEYCLOAK_USER if row.local is None and row.keycloak is not None else YAPTIDE_USER
        work.decide(location, old_name, f"signs in as {provider}", f"auth_provider was {to_text(row.auth_provider)!r}")
    name = names[provider].take(old_name or _UNNAMED)
    if name != old_name:
        work.decide(location, name, "renamed", f"the name {old_name!r} was empty or taken")
    work.add("User", [{"id": row.id, "username": name, "auth_provider": provider}])
    if row.local is not None or provider == YAPTIDE_USER:
        _tell_obstacle(work, location, name, to_text(row.password_hash))
        skeleton_value = None if make_skeleton(name) in skeletons else make_skeleton(name)  # only the oldest
        skeletons.add(skeleton_value)
        password_hash = optional_text(row.password_hash)
        work.add(YAPTIDE_USER, [{"id": row.id, "password_hash": password_hash, "name_skeleton": skeleton_value}])
    if row.keycloak is not None or provider == KEYCLOAK_USER:
        work.add(KEYCLOAK_USER, [{"id": row.id, **_credentials(work, row, name)}])
    return name, provider


def _tell_obstacle(work: Work, location: str, name: str, password_hash: str) -> None:
    """Report a user who cannot sign in with the old password."""
    obstacle = work.options.find_obstacle(password_hash) if password_hash else "it had no password hash"
    if obstacle is not None:
        work.decide(location, name, "cannot sign in until a password is set: yaptide users update", obstacle)


def _credentials(work: Work, row: Record, name: str) -> dict[str, Any]:
    key = to_text(row.private_key)
    if key:
        work.decide(f"{KEYCLOAK_USER} {row.id}", name, "private key encrypted", "it was stored unencrypted")
    return {"cert": optional_text(row.cert), "private_key": work.options.encrypt(key) if key else None}


def _copy_clusters(work: Work) -> None:
    table = work.old["Cluster"]
    names = Names()
    for rows in work.batches(select(table), table.c.id):
        for row in rows:
            old_name = to_text(row.cluster_name)
            name = names.take(old_name or _UNNAMED)
            if name != old_name:
                work.decide(f"Cluster {row.id}", name, "renamed", f"the name {old_name!r} was empty or taken")
            work.add("Cluster", [{"id": row.id, "cluster_name": name}])
