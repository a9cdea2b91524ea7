"""Users, by the way they sign in, and their sessions."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.schema import SchemaItem

from yaptide.domain.rights import Scope
from yaptide.persistence.models.base import Base, one_of
from yaptide.persistence.models.simulations import SimulationModel

YAPTIDE_USER = "YaptideUser"
KEYCLOAK_USER = "KeycloakUser"


class UserModel(Base):
    """A user who can sign in and own simulations."""

    __tablename__ = "User"
    __table_args__: tuple[SchemaItem, ...] = (
        UniqueConstraint("username", "auth_provider"),
        CheckConstraint("username <> ''", name="username_not_empty"),
        CheckConstraint("quota_bytes >= 0", name="quota_not_negative"),
    )
    __mapper_args__ = {"polymorphic_on": "auth_provider"}  # noqa: RUF012 - SQLAlchemy reads it from the class

    id: Mapped[int] = mapped_column(primary_key=True, doc="ID of the user")
    username: Mapped[str] = mapped_column(doc="User name; unique for each way to sign in")
    auth_provider: Mapped[str] = mapped_column(
        one_of(YAPTIDE_USER, KEYCLOAK_USER, name="auth_provider"), doc="Table with the credentials"
    )
    quota_bytes: Mapped[int | None] = mapped_column(
        BigInteger, doc="Maximum bytes of all payloads of the user's simulations; null: no limit"
    )

    simulations: Mapped[list[SimulationModel]] = relationship(
        back_populates="user", cascade="all, delete-orphan", passive_deletes=True
    )
    sessions: Mapped[list["SessionModel"]] = relationship(
        back_populates="user", cascade="all, delete-orphan", passive_deletes=True
    )
    tokens: Mapped[list["TokenModel"]] = relationship(
        back_populates="user", cascade="all, delete-orphan", passive_deletes=True
    )


class YaptideUserModel(UserModel):
    """A user with a password stored in this database."""

    __tablename__ = "YaptideUser"
    __mapper_args__ = {"polymorphic_identity": YAPTIDE_USER}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("User.id", ondelete="CASCADE"), primary_key=True, doc="ID of the user")
    password_hash: Mapped[str | None] = mapped_column(doc="argon2id hash; null: cannot sign in with a password")
    name_skeleton: Mapped[str | None] = mapped_column(
        String(64),
        index=True,
        unique=True,
        doc="SHA-256 of the name's skeleton; null: the name looks like that of an older user",
    )
    known_networks: Mapped[str | None] = mapped_column(
        Text, doc="Digests of networks of the last sign-ins, latest first, separated by spaces"
    )


class KeycloakUserModel(UserModel):
    """A user who signs in through Keycloak, with SSH credentials for clusters."""

    __tablename__ = "KeycloakUser"
    __table_args__ = (Index(None, "issuer", "subject", unique=True),)
    __mapper_args__ = {"polymorphic_identity": KEYCLOAK_USER}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("User.id", ondelete="CASCADE"), primary_key=True, doc="ID of the user")
    issuer: Mapped[str | None] = mapped_column(Text, doc="Keycloak realm, `iss` of its tokens; null: not known yet")
    subject: Mapped[str | None] = mapped_column(
        Text, doc="Identity in that realm, `sub` of its tokens; null: set at the next sign-in with this name"
    )
    cert: Mapped[str | None] = mapped_column(Text, doc="SSH certificate, OpenSSH text")
    private_key: Mapped[str | None] = mapped_column(Text, doc="SSH private key, encrypted")


class SessionModel(Base):
    """A sign-in. Tokens refer to it and end with it: deleting the row revokes them everywhere at once."""

    __tablename__ = "Session"
    __table_args__ = (Index(None, "user_id"), Index(None, "expires"))

    id: Mapped[str] = mapped_column(String(64), primary_key=True, doc="Random identifier, contained in the tokens")
    user_id: Mapped[int] = mapped_column(ForeignKey("User.id", ondelete="CASCADE"), doc="User who signed in")
    expires: Mapped[datetime] = mapped_column(doc="Expiry of the refresh token (UTC)")
    started: Mapped[datetime | None] = mapped_column(
        doc="Time of the sign-in (UTC); null: by a version that did not store it"
    )
    address: Mapped[str | None] = mapped_column(String(64), doc="Address of the sign-in; null: unknown")
    device: Mapped[str | None] = mapped_column(String(200), doc="Program that signed in, its User-Agent; null: unknown")

    user: Mapped[UserModel] = relationship(back_populates="sessions")


class TokenModel(Base):
    """An API token, with which programs act for a user. Deleting the row revokes it everywhere at once."""

    __tablename__ = "Token"
    __table_args__ = (UniqueConstraint("user_id", "name"), Index(None, "token_sha256", unique=True))

    id: Mapped[int] = mapped_column(primary_key=True, doc="ID of the token")
    user_id: Mapped[int] = mapped_column(ForeignKey("User.id", ondelete="CASCADE"), doc="User for whom it acts")
    name: Mapped[str] = mapped_column(String(64), doc="Name; unique for each user")
    token_sha256: Mapped[str] = mapped_column(
        String(64), doc="SHA-256 of the token, hexadecimal. The token has 256 random bits: a slow hash adds nothing"
    )
    scope: Mapped[str] = mapped_column(one_of(*Scope, name="token_scope"), doc="What it may do")
    created: Mapped[datetime] = mapped_column(doc="Time of its creation (UTC)")
    expires: Mapped[datetime] = mapped_column(doc="Time after which it is invalid (UTC)")
    last_used: Mapped[datetime | None] = mapped_column(doc="Last use (UTC), accurate to a minute; null: never used")

    user: Mapped[UserModel] = relationship(back_populates="tokens")
