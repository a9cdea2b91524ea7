"""Queries about encrypted secrets."""

from sqlalchemy import Connection, select, update

from yaptide.persistence.models import KeycloakUserModel
from yaptide.persistence.models.base import table_of

_KEYCLOAK = table_of(KeycloakUserModel)


def private_keys(connection: Connection) -> list[tuple[int, str]]:
    """Number of the user and encrypted private key, of those who have one; nobody else can change them meanwhile."""
    query = select(_KEYCLOAK.c.id, _KEYCLOAK.c.private_key).where(_KEYCLOAK.c.private_key.is_not(None))
    return [(user_id, key) for user_id, key in connection.execute(query.order_by(_KEYCLOAK.c.id).with_for_update())]


def set_private_key(connection: Connection, user_id: int, token: str) -> None:
    """Replace an encrypted private key."""
    connection.execute(update(_KEYCLOAK).where(_KEYCLOAK.c.id == user_id).values(private_key=token))
