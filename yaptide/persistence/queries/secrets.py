"""Queries about encrypted secrets."""

from typing import NamedTuple

from sqlalchemy import Connection, select, update

from yaptide.persistence.models import KeycloakUserModel, UserModel
from yaptide.persistence.models.base import table_of

_USER = table_of(UserModel)
_KEYCLOAK = table_of(KeycloakUserModel)


def private_keys(connection: Connection, *, lock: bool = True) -> list[tuple[int, str]]:
    """Return user id and encrypted private key of all users that have one; with `lock`, rows are locked."""
    query = select(_KEYCLOAK.c.id, _KEYCLOAK.c.private_key).where(_KEYCLOAK.c.private_key.is_not(None))
    query = query.order_by(_KEYCLOAK.c.id)
    return [(user_id, key) for user_id, key in connection.execute(query.with_for_update() if lock else query)]


class Stored(NamedTuple):
    """Stored credentials of a Keycloak user; `private_key` is encrypted."""

    username: str
    cert: str | None
    private_key: str | None


def find_credentials(connection: Connection, user_id: int) -> Stored | None:
    """Return the stored credentials of a Keycloak user; None for other users."""
    query = select(_USER.c.username, _KEYCLOAK.c.cert, _KEYCLOAK.c.private_key)
    row = connection.execute(query.join(_KEYCLOAK, _KEYCLOAK.c.id == _USER.c.id).where(_USER.c.id == user_id)).first()
    return None if row is None else Stored(*row)


def set_credentials(connection: Connection, user_id: int, cert: str, token: str) -> None:
    """Replace the certificate and the encrypted private key of a Keycloak user."""
    connection.execute(update(_KEYCLOAK).where(_KEYCLOAK.c.id == user_id).values(cert=cert, private_key=token))


def set_private_key(connection: Connection, user_id: int, token: str) -> None:
    """Replace an encrypted private key."""
    connection.execute(update(_KEYCLOAK).where(_KEYCLOAK.c.id == user_id).values(private_key=token))
