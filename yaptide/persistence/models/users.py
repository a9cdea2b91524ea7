"""Users, by the way they sign in, and their sessions."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.schema import SchemaItem

from yaptide.persistence.models.base import Base, one_of
from yaptide.persistence.models.simulations import SimulationModel

YAPTIDE_USER = "YaptideUser"
KEYCLOAK_USER = "KeycloakUser"


class UserModel(Base):
    """Somebody who may sign in and own simulations."""

    __tablename__ = "User"
    __table_args__: tuple[SchemaItem, ...] = (
        UniqueConstraint("username", "auth_provider"),
        CheckConstraint("username <> ''", name="username_not_empty"),
        CheckConstraint("quota_bytes >= 0", name="quota_not_negative"),
    )
    __mapper_args__ = {"polymorphic_on": "auth_provider"}  # noqa: RUF012 - SQLAlchemy reads it from the class

    id: Mapped[int] = mapped_column(primary_key=True, doc="Number of the user")
    username: Mapped[str] = mapped_column(doc="Name to sign in with; unique for each way of signing in")
    auth_provider: Mapped[str] = mapped_column(
        one_of(YAPTIDE_USER, KEYCLOAK_USER, name="auth_provider"), doc="Which table below holds the credentials"
    )
    quota_bytes: Mapped[int | None] = mapped_column(
        BigInteger, doc="Bytes that all payloads of the user's simulations may take; null: no limit"
    )

    simulations: Mapped[list[SimulationModel]] = relationship(
        back_populates="user", cascade="all, delete-orphan", passive_deletes=True
    )
    sessions: Mapped[list["SessionModel"]] = relationship(
        back_populates="user", cascade="all, delete-orphan", passive_deletes=True
    )


class YaptideUserModel(UserModel):
    """A user with a password kept here."""

    __tablename__ = "YaptideUser"
    __mapper_args__ = {"polymorphic_identity": YAPTIDE_USER}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("User.id", ondelete="CASCADE"), primary_key=True, doc="The user")
    password_hash: Mapped[str | None] = mapped_column(doc="argon2id hash; null: cannot sign in with a password")
    name_skeleton: Mapped[str | None] = mapped_column(
        String(64),
        index=True,
        unique=True,
        doc="SHA-256 of what the name looks like; null: an older user looked the same before this was known",
    )
    known_networks: Mapped[str | None] = mapped_column(
        Text, doc="Digests of networks that the user has signed in from, the last first, with spaces between them"
    )


class KeycloakUserModel(UserModel):
    """A user who signs in through Keycloak, with the SSH credentials that clusters ask for."""

    __tablename__ = "KeycloakUser"
    __table_args__ = (Index(None, "issuer", "subject", unique=True),)
    __mapper_args__ = {"polymorphic_identity": KEYCLOAK_USER}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey("User.id", ondelete="CASCADE"), primary_key=True, doc="The user")
    issuer: Mapped[str | None] = mapped_column(Text, doc="Realm of Keycloak, `iss` of its tokens; null: not known yet")
    subject: Mapped[str | None] = mapped_column(
        Text, doc="Whose account it is in that realm, `sub` of its tokens; null: whoever signs in next by this name"
    )
    cert: Mapped[str | None] = mapped_column(Text, doc="SSH certificate, OpenSSH text")
    private_key: Mapped[str | None] = mapped_column(Text, doc="SSH private key, encrypted")


class SessionModel(Base):
    """One sign-in. Tokens name it, and end with it: deleting the row signs out everywhere at once."""

    __tablename__ = "Session"
    __table_args__ = (Index(None, "user_id"), Index(None, "expires"))

    id: Mapped[str] = mapped_column(String(64), primary_key=True, doc="Random name, in the tokens")
    user_id: Mapped[int] = mapped_column(ForeignKey("User.id", ondelete="CASCADE"), doc="Who signed in")
    expires: Mapped[datetime] = mapped_column(doc="When the refresh token ends (UTC)")

    user: Mapped[UserModel] = relationship(back_populates="sessions")
