"""Every setting: its name, its default and what it is for, once. docs/settings.md is made from this class."""

import os
import re
import secrets
import sys
import tempfile
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from yaptide.domain.errors import InvalidInput
from yaptide.services.backend import Keycloak, Limits
from yaptide.services.passwords import LEAST, MAX_PASSWORD
from yaptide.services.throttle import REGISTRATIONS, SIGN_INS

_TRUSTWORTHY = re.compile(
    r"https://[^\s/?#@]+(/[^\s?#]*)?|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?(/[^\s?#]*)?"
)
_ORIGIN = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]+)?")


class Settings(BaseSettings):
    """Settings of yaptide, read from environment variables, or from a file of `NAME=value` lines.

    The file is `.env` in the working directory, or the one that `YAPTIDE_ENV_FILE` names. Variables win over the file.
    """

    model_config = SettingsConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    database_uri: str = Field(
        "",
        validation_alias="FLASK_SQLALCHEMY_DATABASE_URI",
        description="URL of the database, such as `sqlite:////folder/file.db` or "
        "`postgresql+psycopg://user:password@host/name`. Default: the file `yaptide.db` in the data folder.",
    )
    data_dir: Path = Field(
        default_factory=lambda: _default_data_dir(),  # noqa: PLW0108 - it is below
        validation_alias="YAPTIDE_DATA_DIR",
        description="Data folder: SQLite file, spool, working folders of tasks, the key that signs tokens. "
        "Default: the user's data folder of the system, such as `~/.local/share/yaptide`.",
    )
    simulators_dir: Path = Field(
        default_factory=lambda: Path(sys.prefix) / "share" / "yaptide" / "simulators",
        validation_alias="YAPTIDE_SIMULATORS_DIR",
        description="Where simulators are installed. Default: `share/yaptide/simulators` beside the program.",
    )
    signing_key: SecretStr = Field(
        SecretStr(""),
        validation_alias="FLASK_SECRET_KEY",
        description="Key that signs tokens, 32 characters or more. Default: made once and kept in the data folder.",
    )
    secret_keys: SecretStr = Field(
        SecretStr(""),
        validation_alias="YAPTIDE_SECRET_KEYS",
        description="Keys from `yaptide secrets new-key`, separated by commas, that private keys are encrypted with: "
        "the first encrypts, all decrypt. Default: none; private keys cannot be stored.",
    )
    spool_at: str = Field(
        "",
        validation_alias="YAPTIDE_SPOOL",
        description="Where scores of tasks wait until they are merged: a folder, or `s3://bucket/folder` in any store "
        "that speaks S3, found by AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. "
        "Default: the folder `spool` in the data folder.",
    )
    broker_url: SecretStr = Field(
        SecretStr(""),
        validation_alias="CELERY_BROKER_URL",
        description="Broker through which tasks are given to workers: `redis://host:6379/0` or "
        "`amqp://user:password@host:5672/name`. Default: none; tasks run on this machine.",
    )
    backend_url: str = Field(
        "http://127.0.0.1:5000",
        validation_alias="YAPTIDE_BACKEND_URL",
        description="URL of the server that workers, and nodes of clusters, report to; the latter only by `https://`.",
    )
    silence_seconds: float = Field(
        60.0,
        ge=2,
        validation_alias="YAPTIDE_SILENCE_SECONDS",
        description="After how many seconds without a sign of life a worker counts as dead.",
    )
    cluster_seconds: float = Field(
        10.0,
        ge=0.5,
        validation_alias="YAPTIDE_CLUSTER_SECONDS",
        description="Seconds between two looks at what runs on a cluster, for each user.",
    )
    workers: int = Field(
        0, ge=0, le=1024, validation_alias="YAPTIDE_WORKERS", description="Tasks run at once; 0: one for each core."
    )
    foreign_codes: str = Field(
        "",
        validation_alias="YAPTIDE_FOREIGN_WORKERS",
        description="Simulators, separated by commas, whose simulations are accepted though nothing of this "
        "installation can run them, since workers of others take them ([workers.md](workers.md)), "
        "such as `shieldhit,fluka`. Default: none; they are refused.",
    )
    editor_simulator: str = Field(
        "auto",
        validation_alias="YAPTIDE_EDITOR_SIMULATOR",
        description="Simulator that runs projects of the web editor which were made for one that cannot run them here; "
        "`off`: they are refused. Default: the first that projects can be converted for, such as `mcsquare`, "
        "unless there are workers (CELERY_BROKER_URL) or clusters.",
    )
    cors_origins: str = Field(
        "http://localhost:3000,http://127.0.0.1:3000",
        validation_alias="YAPTIDE_CORS_ORIGINS",
        description="Web front ends that may use the API from another origin, separated by commas; other pages cannot "
        "change anything ([serving.md](serving.md#pages-from-elsewhere)).",
    )
    max_body_mib: int = Field(
        64,
        ge=1,
        validation_alias="YAPTIDE_MAX_BODY_MIB",
        description="Largest body of a request with input or log files, MiB; others have 1 MiB at most.",
    )
    max_results_mib: int = Field(
        1024, ge=1, validation_alias="YAPTIDE_MAX_RESULTS_MIB", description="Largest body of `POST /results`, MiB."
    )
    request_seconds: float = Field(
        20.0,
        gt=0,
        validation_alias="YAPTIDE_REQUEST_SECONDS",
        description="Seconds that a body may take to come in, and an answer to be read, beside YAPTIDE_REQUEST_RATE.",
    )
    request_rate: float = Field(
        8192.0,
        gt=0,
        validation_alias="YAPTIDE_REQUEST_RATE",
        description="Least bytes per second at which bodies are taken and answers are sent.",
    )
    max_tasks: int = Field(
        10_000, ge=1, validation_alias="YAPTIDE_MAX_TASKS", description="Most tasks of one simulation."
    )
    task_hours: float = Field(
        24.0, gt=0, validation_alias="YAPTIDE_TASK_HOURS", description="Hours after which a running task is stopped."
    )
    access_minutes: int = Field(
        10, ge=1, validation_alias="YAPTIDE_ACCESS_MINUTES", description="Lifetime of an access token, minutes."
    )
    refresh_minutes: int = Field(
        120, ge=1, validation_alias="YAPTIDE_REFRESH_MINUTES", description="Lifetime of a session, minutes."
    )
    update_key_days: int = Field(
        30,
        ge=1,
        validation_alias="YAPTIDE_UPDATE_KEY_DAYS",
        description="Days after the end of a simulation in which its workers may still report.",
    )

    registration: Literal["open", "closed"] = Field(
        "open",
        validation_alias="YAPTIDE_REGISTRATION",
        description="`open`: anybody may register as a user; `closed`: only operators add users.",
    )
    min_password_length: int = Field(
        LEAST,
        ge=1,
        le=MAX_PASSWORD,
        validation_alias="YAPTIDE_MIN_PASSWORD_LENGTH",
        description="Least number of characters of a new password; those that there are go on.",
    )
    sign_ins_per_minute: int = Field(
        SIGN_INS,
        ge=1,
        validation_alias="YAPTIDE_SIGN_INS_PER_MINUTE",
        description="Sign-ins in a minute from one address; see [serving](serving.md#signing-in).",
    )
    registrations_per_hour: int = Field(
        REGISTRATIONS,
        ge=1,
        validation_alias="YAPTIDE_REGISTRATIONS_PER_HOUR",
        description="Registrations in an hour from one address.",
    )
    proxies: int = Field(
        0,
        ge=0,
        le=10,
        validation_alias="YAPTIDE_PROXIES",
        description="Reverse proxies in front of the server, each of which sets `X-Forwarded-For`, `-Proto` and "
        "`-Host`. With 0 these headers change nothing.",
    )
    metrics: Literal["local", "network", "off"] = Field(
        "local",
        validation_alias="YAPTIDE_METRICS",
        description="Who may read `/metrics`: `local`, programs on this machine; `network`, everybody who reaches the "
        "port; `off`, nobody. What a proxy passes on is always refused.",
    )
    log_format: Literal["text", "json"] = Field(
        "text",
        validation_alias="YAPTIDE_LOG_FORMAT",
        description="Lines of the log: `text` to read, or `json` objects.",
    )
    log_level: Literal["", "debug", "info", "warning", "error"] = Field(
        "",
        validation_alias="YAPTIDE_LOG_LEVEL",
        description="What is logged: `debug`, `info` (each request), `warning` or `error`, and what is worse. "
        "Default: `warning` for text, `info` for JSON.",
    )
    keycloak_base_url: str = Field(
        "",
        validation_alias="KEYCLOAK_BASE_URL",
        description="URL of the Keycloak server whose users may sign in, with or without its `/auth`; see "
        "[keycloak.md](keycloak.md). Default: none; nobody signs in through Keycloak.",
    )
    keycloak_realm: str = Field(
        "", validation_alias="KEYCLOAK_REALM", description="Name of the realm on it. Default: none."
    )
    keycloak_issuer: str = Field(
        "",
        validation_alias="KEYCLOAK_ISSUER",
        description="The realm's URL as its tokens have it, instead of the two above, such as "
        "`https://sso.example.org/realms/science`. Default: none.",
    )
    keycloak_clients: str = Field(
        "",
        validation_alias="KEYCLOAK_CLIENTS",
        description="Client IDs in Keycloak, separated by commas: a token has to be issued to one of them (`azp`) or "
        "to be for one of them (`aud`). Default: none; has to be set where Keycloak is used.",
    )
    keycloak_web_client: str = Field(
        "",
        validation_alias="YAPTIDE_KEYCLOAK_WEB_CLIENT",
        description="Client ID in Keycloak of yaptide's own pages, whose users then find a button to sign in through "
        "Keycloak; see [keycloak.md](keycloak.md). Default: none; no such button.",
    )
    keycloak_required_claim: str = Field(
        "",
        validation_alias="KEYCLOAK_REQUIRED_CLAIM",
        description="`name=value`: a claim of the token, and what has to be in it for its user to be let in, such as "
        "`plgridAccessServices=PLG_YAPTIDE_ACCESS`; `realm_access.roles=yaptide` for a claim within a claim. "
        "Default: none; every user of the realm is let in.",
    )
    cert_auth_url: str = Field(
        "",
        validation_alias="CERT_AUTH_URL",
        description="URL that gives the bearer of a token of Keycloak an SSH key with its certificate; "
        "`YAPTIDE_SECRET_KEYS` has to be set as well. Default: none; users upload theirs.",
    )

    @property
    def url(self) -> str | Path:
        """URL of the database, or its file: the name of a folder may hold what divides a URL."""
        return self.database_uri or self.data_dir / "yaptide.db"

    @property
    def spool(self) -> str:
        """Where tasks leave their scores until they are merged: a folder, or the URL of a bucket."""
        return self.spool_at or str(self.data_dir / "spool")

    @property
    def work(self) -> Path:
        """Where running tasks have their folders."""
        return self.data_dir / "work"

    @property
    def origins(self) -> list[str]:
        """Allowed origins of web front ends."""
        return _origins(self.cors_origins)

    @property
    def foreign_workers(self) -> frozenset[str]:
        """The simulators whose simulations workers of others take."""
        return frozenset(_parts(self.foreign_codes))

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: str) -> str:
        # Cookies are sent along: an origin that means all of them would let any page act for whoever is signed in.
        for origin in _origins(value):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not one origin, such as https://ui.example.org")
        return value

    @field_validator("keycloak_base_url", "keycloak_issuer", "cert_auth_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        # Tokens go there, or the keys that say whom to believe come from there: nobody may listen in or answer instead.
        if value and not _TRUSTWORTHY.fullmatch(value):
            raise ValueError("it has to be a URL that begins with https:// (http:// only for 127.0.0.1 and localhost)")
        return value

    @field_validator("keycloak_required_claim")
    @classmethod
    def _check_claim(cls, value: str) -> str:
        name, _, wanted = value.partition("=")
        if value and not (name.strip() and wanted.strip()):
            raise ValueError("it has to be like plgridAccessServices=PLG_YAPTIDE_ACCESS")
        return value

    def make_data_dir(self) -> None:
        """Make the data folder, unless it is there; only its owner may look into it."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def secrets(self) -> list[str]:
        """Keys that secrets in the database are encrypted with, the one in use first."""
        return _parts(self.secret_keys.get_secret_value())

    @property
    def limits(self) -> Limits:
        """What one request may ask for."""
        return Limits(
            tasks=self.max_tasks,
            access=timedelta(minutes=self.access_minutes),
            refresh=timedelta(minutes=self.refresh_minutes),
            update_key=timedelta(days=self.update_key_days),
            silence=timedelta(seconds=self.silence_seconds),
            registration=self.registration == "open",
            password=self.min_password_length,
        )

    @property
    def keycloak(self) -> Keycloak | None:
        """The realm whose users may sign in, None if there is none; raises InvalidInput for half of one."""
        issuers = self._issuers()
        if not issuers:
            return None
        clients = frozenset((*_parts(self.keycloak_clients), *_parts(self.keycloak_web_client)))
        if not clients:
            raise InvalidInput(
                "Set KEYCLOAK_CLIENTS to the client ID of the web front end in Keycloak: "
                "otherwise a token that any other application got could sign its user in here"
            )
        if self.cert_auth_url and not self.secrets:
            raise InvalidInput(
                "CERT_AUTH_URL gives private keys, and there is no key to encrypt them with: "
                "make one with `yaptide secrets new-key`, and set YAPTIDE_SECRET_KEYS to it"
            )
        name, _, wanted = self.keycloak_required_claim.partition("=")
        claim = (name.strip(), wanted.strip()) if name else None
        return Keycloak(issuers, clients, claim, self.cert_auth_url, self.keycloak_web_client.strip())

    def _issuers(self) -> tuple[str, ...]:
        base, realm = self.keycloak_base_url.rstrip("/"), self.keycloak_realm
        if self.keycloak_issuer:
            return (self.keycloak_issuer.rstrip("/"),)
        if bool(base) != bool(realm):
            raise InvalidInput("Set both KEYCLOAK_BASE_URL and KEYCLOAK_REALM, or KEYCLOAK_ISSUER instead of them")
        if not base:
            return ()
        # Old servers, and those that were told to stay where they were, have all their paths below /auth.
        bases = (base,) if base.endswith("/auth") else (base, f"{base}/auth")
        return tuple(f"{one}/realms/{quote(realm, safe='')}" for one in bases)

    @cached_property
    def key(self) -> bytes:
        """The key that signs tokens; made and kept in the data folder if the settings give none."""
        given = self.signing_key.get_secret_value()
        if given:
            if len(given) < 32:
                raise InvalidInput("FLASK_SECRET_KEY must have 32 characters or more")
            return given.encode()
        return _kept_key(self.data_dir / "signing.key")


def _default_data_dir() -> Path:
    with suppress(RuntimeError):
        if os.getuid() == 0 or Path.home() != Path("/"):  # which is what those have for a home who have none
            return user_data_path("yaptide")
    raise InvalidInput(
        f"The user id {os.getuid()} has no home folder here: set YAPTIDE_DATA_DIR to a folder for its data"
    )


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _origins(text: str) -> list[str]:
    return [origin.removesuffix("/") for origin in _parts(text)]


def load_settings() -> Settings:
    """The settings of this process; raises InvalidInput naming the variable that cannot be used."""
    named = os.environ.get("YAPTIDE_ENV_FILE")
    if named is not None and not Path(named).is_file():
        raise InvalidInput(f"There is no file {named}, which YAPTIDE_ENV_FILE names")
    try:
        return Settings(_env_file=named or ".env")
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"The setting {first['loc'][0]} cannot be used: {first['msg']}") from None


def _kept_key(path: Path) -> bytes:
    """Read the key, or make it. Two processes that start at once agree on the one that was there first."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent) as aside:  # readable by its owner only
            aside.write(secrets.token_hex(32).encode())
            aside.flush()
            with suppress(FileExistsError):
                os.link(aside.name, path)
    key = path.read_bytes()
    if len(key) < 32:
        raise InvalidInput(f"{path} holds no key: remove it, and a new one is made (everybody has to sign in again)")
    return key
