"""Queries about encrypted secrets."""

from typing import NamedTuple

from sqlalchemy import Connection, select, update

from yaptide.persistence.models.tables import KEYCLOAK, USER


def private_keys(connection: Connection, *, lock: bool = True) -> list[tuple[int, str]]:
    """Return user id and encrypted private key of all users that have one; with `lock`, rows are locked."""
    query = select(KEYCLOAK.c.id, KEYCLOAK.c.private_key).where(KEYCLOAK.c.private_key.is_not(None))
    query = query.order_by(KEYCLOAK.c.id)
    return [(user_id, key) for user_id, key in connection.execute(query.with_for_update() if lock else query)]


class Stored(NamedTuple):
    """Stored credentials of a Keycloak user; `private_key` is encrypted."""

    username: str
    cert: str | None
    private_key: str | None


def find_credentials(connection: Connection, user_id: int) -> Stored | None:
    """Return the stored credentials of a Keycloak user; None for other users."""
    query = select(USER.c.username, KEYCLOAK.c.cert, KEYCLOAK.c.private_key)
    row = connection.execute(query.join(KEYCLOAK, KEYCLOAK.c.id == USER.c.id).where(USER.c.id == user_id)).first()
    return None if row is None else Stored(*row)


def set_credentials(connection: Connection, user_id: int, cert: str, token: str) -> None:
    """Replace the certificate and the encrypted private key of a Keycloak user."""
    connection.execute(update(KEYCLOAK).where(KEYCLOAK.c.id == user_id).values(cert=cert, private_key=token))


def set_private_key(connection: Connection, user_id: int, token: str) -> None:
    """Replace an encrypted private key."""
    connection.execute(update(KEYCLOAK).where(KEYCLOAK.c.id == user_id).values(private_key=token))
