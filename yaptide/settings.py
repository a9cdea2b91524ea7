"""Every setting: its name, default and description. docs/settings.md is generated from this class."""

import os
import re
import secrets
import sys
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from platformdirs import user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from yaptide.disk import create_once
from yaptide.domain.errors import InvalidInput
from yaptide.services.access import parse_operator
from yaptide.services.backend import Keycloak, Limits
from yaptide.services.passwords import LEAST, MAX_PASSWORD
from yaptide.services.throttle import REGISTRATIONS, SIGN_INS

_TRUSTWORTHY = re.compile(
    r"https://[^\s/?#@]+(/[^\s?#]*)?|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?(/[^\s?#]*)?"
)
#: No segment is `.` or `..`, which browsers remove.
_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")
_ORIGIN = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]+)?")


class Settings(BaseSettings):
    """Settings of yaptide, read from environment variables or from a file of `NAME=value` lines.

    The file is `.env` in the working directory, or the one that `YAPTIDE_ENV_FILE` names. Variables take precedence.
    """

    # The variable of a setting is YAPTIDE_ and its name in capitals, unless the setting names another.
    model_config = SettingsConfigDict(
        extra="ignore", frozen=True, populate_by_name=True, alias_generator=lambda name: f"YAPTIDE_{name.upper()}"
    )

    database_uri: str = Field(
        "",
        validation_alias="FLASK_SQLALCHEMY_DATABASE_URI",
        description="URL of the database, such as `sqlite:////folder/file.db` or "
        "`postgresql+psycopg://user:password@host/name`. Default: the file `yaptide.db` in the data folder.",
    )
    data_dir: Path = Field(
        default_factory=lambda: _default_data_dir(),  # noqa: PLW0108 - defined below
        description="Data folder: SQLite file, staging area, working folders of tasks, the key that signs tokens. "
        "Default: the user's data folder of the system, such as `~/.local/share/yaptide`.",
    )
    simulators_dir: Path = Field(
        default_factory=lambda: Path(sys.prefix) / "share" / "yaptide" / "simulators",
        description="Where simulators are installed. Default: `share/yaptide/simulators` below Python's prefix.",
    )
    signing_key: SecretStr = Field(
        SecretStr(""),
        validation_alias="FLASK_SECRET_KEY",
        description="Key that signs tokens, 32 characters or more. Default: created once in the data folder.",
    )
    secret_keys: SecretStr = Field(
        SecretStr(""),
        description="Keys from `yaptide secrets new-key`, separated by commas, for encrypting private keys: "
        "the first encrypts, all decrypt. Default: none; private keys cannot be stored.",
    )
    spool_at: str = Field(
        "",
        validation_alias="YAPTIDE_SPOOL",
        description="Staging area, where results of tasks wait for the merge: a folder, or `s3://bucket/folder` on any "
        "S3 server (AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY). "
        "Default: the folder `spool` in the data folder.",
    )
    broker_url: SecretStr = Field(
        SecretStr(""),
        validation_alias="CELERY_BROKER_URL",
        description="Broker that sends tasks to workers: `redis://host:6379/0` or "
        "`amqp://user:password@host:5672/name`. Default: none; tasks run on this machine.",
    )
    backend_url: str = Field(
        "http://127.0.0.1:5000",
        description="URL of the server to which workers and cluster nodes report; cluster nodes need `https://`.",
    )
    silence_seconds: float = Field(
        60.0, ge=2, description="Seconds without a heartbeat after which a worker is stalled and its tasks run again."
    )
    cluster_seconds: float = Field(
        10.0, ge=0.5, description="Seconds between two queries of a user's jobs on a cluster."
    )
    workers: int = Field(0, ge=0, le=1024, description="Number of parallel tasks; 0: one per core.")
    foreign_codes: str = Field(
        "",
        validation_alias="YAPTIDE_FOREIGN_WORKERS",
        description="Simulators, separated by commas, that external workers run: their simulations are accepted even "
        "if this installation cannot run them ([workers.md](workers.md)), "
        "such as `shieldhit,fluka`. Default: none; such simulations are rejected.",
    )
    editor_simulator: str = Field(
        "auto",
        description="Simulator for projects of the web editor whose own simulator cannot run them here; "
        "`off`: they are rejected. Default: one that runs projects made for others, such as `mcsquare`, "
        "unless workers (CELERY_BROKER_URL) or clusters are configured.",
    )
    cors_origins: str = Field(
        "http://localhost:3000,http://127.0.0.1:3000",
        description="Web front ends that may use the API from another origin, separated by commas; other pages cannot "
        "change anything ([serving.md](serving.md#pages-from-elsewhere)).",
    )
    max_body_mib: int = Field(
        256,
        ge=1,
        le=1000,
        description="Maximum body of a request with input or log files, MiB, after decompression; other requests may "
        "have 1 MiB. At most 1000, because PostgreSQL stores at most 1 GB in one value.",
    )
    max_voxels: int = Field(
        1 << 26,
        ge=1,
        description="Maximum number of voxels of a CT. Each takes about 20 bytes of memory per running task, and about "
        "40 bytes per quantity when results are merged. Default: 512 x 512 x 256.",
    )
    max_results_mib: int = Field(1024, ge=1, description="Maximum body of `POST /results`, MiB.")
    request_seconds: float = Field(
        20.0,
        gt=0,
        description="Seconds allowed for receiving a body or sending a response, plus its size / YAPTIDE_REQUEST_RATE.",
    )
    request_rate: float = Field(
        8192.0, gt=0, description="Minimum rate for receiving bodies and sending responses, bytes per second."
    )
    max_tasks: int = Field(10_000, ge=1, description="Maximum number of tasks per simulation.")
    task_hours: float = Field(24.0, gt=0, description="Hours after which a running task is stopped.")
    access_minutes: int = Field(10, ge=1, description="Lifetime of an access token, minutes.")
    refresh_minutes: int = Field(120, ge=1, description="Lifetime of a session, minutes.")
    update_key_days: int = Field(
        30, ge=1, description="Days after the end of a simulation during which its workers may still report."
    )

    registration: Literal["open", "closed"] = Field(
        "open", description="`open`: anyone may register as a user; `closed`: only administrators add users."
    )
    min_password_length: int = Field(
        LEAST,
        ge=1,
        le=MAX_PASSWORD,
        description="Minimum length of new passwords, characters; existing passwords stay valid.",
    )
    sign_ins_per_minute: int = Field(
        SIGN_INS,
        ge=1,
        description="Maximum sign-ins per minute from one address; see [serving](serving.md#signing-in).",
    )
    registrations_per_hour: int = Field(
        REGISTRATIONS, ge=1, description="Maximum registrations per hour from one address."
    )
    proxies: int = Field(
        0,
        ge=0,
        le=10,
        description="Number of reverse proxies in front of the server, each of which sets `X-Forwarded-For`, `-Proto` "
        "and `-Host`. With 0 these headers are ignored.",
    )
    path_prefix: str = Field(
        "",
        validation_alias="YAPTIDE_PATH_PREFIX",
        description="Path below which a reverse proxy shows the server, such as `/yaptide` "
        "([serving.md](serving.md#below-a-path)). Default: none; the server has the whole host name.",
    )
    metrics: Literal["local", "network", "off"] = Field(
        "local",
        description="Access to `/metrics`: `local`: programs on this machine; `network`: anyone who can reach the "
        "port; `off`: disabled. Requests through a proxy are always rejected.",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="Log format: `text`, or `json` with one object per line."
    )
    log_level: Literal["", "debug", "info", "warning", "error"] = Field(
        "",
        description="Lowest level that is logged: `debug`, `info` (each request), `warning` or `error`. "
        "Default: `warning` for text, `info` for JSON.",
    )
    keycloak_base_url: str = Field(
        "",
        validation_alias="KEYCLOAK_BASE_URL",
        description="URL of the Keycloak server whose users may sign in, with or without its `/auth`; see "
        "[keycloak.md](keycloak.md). Default: none; sign-in through Keycloak is disabled.",
    )
    keycloak_realm: str = Field(
        "", validation_alias="KEYCLOAK_REALM", description="Name of the realm on this server. Default: none."
    )
    keycloak_issuer: str = Field(
        "",
        validation_alias="KEYCLOAK_ISSUER",
        description="URL of the realm as it appears in tokens, instead of the two above, such as "
        "`https://sso.example.org/realms/science`. Default: none.",
    )
    keycloak_clients: str = Field(
        "",
        validation_alias="KEYCLOAK_CLIENTS",
        description="Client IDs in Keycloak, separated by commas: a token must be issued to one of them (`azp`) or "
        "for one of them (`aud`). Default: none; required for Keycloak.",
    )
    keycloak_web_client: str = Field(
        "",
        description="Client ID in Keycloak of yaptide's own pages; the sign-in page then has a button; see "
        "[keycloak.md](keycloak.md). Default: none; no such button.",
    )
    keycloak_required_claim: str = Field(
        "",
        validation_alias="KEYCLOAK_REQUIRED_CLAIM",
        description="`name=value`: a claim that a token must have for its user to sign in, such as "
        "`plgridAccessServices=PLG_YAPTIDE_ACCESS`; `realm_access.roles=yaptide` for a nested claim. "
        "Default: none; every user of the realm may sign in.",
    )
    ui_dir: Path | None = Field(
        None,
        description="Folder with a build of the web front end, which `yaptide up` serves under `/editor`; see "
        "[web-front-end.md](web-front-end.md). Default: none.",
    )
    admins: str = Field(
        "",
        description="Users who see the operator page, separated by commas: `alice` for a user who signs in with a "
        "password, `keycloak:bob` for one of Keycloak. Nobody can register by such a name: add the user with `yaptide "
        "users add`. Default: none.",
    )
    cert_auth_url: str = Field(
        "",
        validation_alias="CERT_AUTH_URL",
        description="URL that returns an SSH key with its certificate for a Keycloak token; "
        "also requires `YAPTIDE_SECRET_KEYS`. Default: none; users upload theirs.",
    )

    @property
    def url(self) -> str | Path:
        """URL of the database, or the path of its file: a folder's name may contain characters special in URLs."""
        return self.database_uri or self.data_dir / "yaptide.db"

    @property
    def spool(self) -> str:
        """The staging area, where results of tasks wait for the merge: a folder, or the URL of a bucket."""
        return self.spool_at or str(self.data_dir / "spool")

    @property
    def work(self) -> Path:
        """The folder of the working folders of running tasks."""
        return self.data_dir / "work"

    @property
    def operators(self) -> frozenset[tuple[str, str]]:
        """The users who administer this installation, as (provider, name)."""
        return frozenset(map(parse_operator, _parts(self.admins)))

    @property
    def origins(self) -> list[str]:
        """Allowed origins of web front ends."""
        return _origins(self.cors_origins)

    @property
    def foreign_workers(self) -> frozenset[str]:
        """The simulators that external workers run."""
        return frozenset(_parts(self.foreign_codes))

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: str) -> str:
        # Requests carry cookies: an origin like * would let any page act for a signed-in user.
        for origin in _origins(value):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not an origin: use e.g. https://ui.example.org")
        return value

    @field_validator("path_prefix")
    @classmethod
    def _check_path_prefix(cls, value: str) -> str:
        value = value.strip().rstrip("/")
        if value and not _PATH.fullmatch(value):
            raise ValueError("use a path such as /yaptide: letters, digits, '-', '.', '_', '~' and '/'")
        return value

    @field_validator("keycloak_base_url", "keycloak_issuer", "cert_auth_url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        # Tokens are sent there, or the keys that verify tokens come from there: the connection must be protected.
        if value and not _TRUSTWORTHY.fullmatch(value):
            raise ValueError("use a URL that begins with https:// (http:// only for 127.0.0.1 and localhost)")
        return value

    @field_validator("keycloak_required_claim")
    @classmethod
    def _check_claim(cls, value: str) -> str:
        name, _, wanted = value.partition("=")
        if value and not (name.strip() and wanted.strip()):
            raise ValueError("use name=value, e.g. plgridAccessServices=PLG_YAPTIDE_ACCESS")
        return value

    def make_data_dir(self) -> None:
        """Create the data folder, accessible only to its owner, unless it exists."""
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def secrets(self) -> list[str]:
        """Keys that encrypt secrets in the database, the current one first."""
        return _parts(self.secret_keys.get_secret_value())

    @property
    def limits(self) -> Limits:
        """Limits on what one request may ask for."""
        return Limits(
            tasks=self.max_tasks,
            voxels=self.max_voxels,
            access=timedelta(minutes=self.access_minutes),
            refresh=timedelta(minutes=self.refresh_minutes),
            update_key=timedelta(days=self.update_key_days),
            silence=timedelta(seconds=self.silence_seconds),
            registration=self.registration == "open",
            password=self.min_password_length,
        )

    @property
    def keycloak(self) -> Keycloak | None:
        """The realm whose users may sign in, or None; raises InvalidInput if its settings are incomplete."""
        issuers = self._issuers()
        if not issuers:
            return None
        clients = frozenset((*_parts(self.keycloak_clients), *_parts(self.keycloak_web_client)))
        if not clients:
            raise InvalidInput(
                "Set KEYCLOAK_CLIENTS to the client ID of the web front end in Keycloak: "
                "otherwise a token issued to any other application could be used to sign in here"
            )
        if self.cert_auth_url and not self.secrets:
            raise InvalidInput(
                "CERT_AUTH_URL returns private keys, which need a key to be encrypted with: "
                "create one with `yaptide secrets new-key` and set YAPTIDE_SECRET_KEYS to it"
            )
        name, _, wanted = self.keycloak_required_claim.partition("=")
        claim = (name.strip(), wanted.strip()) if name else None
        return Keycloak(issuers, clients, claim, self.cert_auth_url, self.keycloak_web_client.strip())

    def _issuers(self) -> tuple[str, ...]:
        base, realm = self.keycloak_base_url.rstrip("/"), self.keycloak_realm
        if self.keycloak_issuer:
            return (self.keycloak_issuer.rstrip("/"),)
        if bool(base) != bool(realm):
            raise InvalidInput("Set both KEYCLOAK_BASE_URL and KEYCLOAK_REALM, or KEYCLOAK_ISSUER instead")
        if not base:
            return ()
        # Old servers, and newer ones that are configured that way, have all their paths below /auth.
        bases = (base,) if base.endswith("/auth") else (base, f"{base}/auth")
        return tuple(f"{one}/realms/{quote(realm, safe='')}" for one in bases)

    @cached_property
    def key(self) -> bytes:
        """The key that signs tokens, from the settings, or created once in the data folder."""
        key = self.signing_key.get_secret_value()
        if key:
            if len(key) < 32:
                raise InvalidInput("FLASK_SECRET_KEY must have 32 characters or more")
            return key.encode()
        return _kept_key(self.data_dir / "signing.key")


def _default_data_dir() -> Path:
    with suppress(RuntimeError):
        if os.getuid() == 0 or Path.home() != Path("/"):  # the home folder of users that have none
            return user_data_path("yaptide")
    raise InvalidInput(f"User ID {os.getuid()} has no home folder: set YAPTIDE_DATA_DIR to a folder for its data")


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _origins(text: str) -> list[str]:
    return [origin.removesuffix("/") for origin in _parts(text)]


def load_settings() -> Settings:
    """Return the settings of this process; raise InvalidInput with the name of an invalid variable."""
    env_file = os.environ.get("YAPTIDE_ENV_FILE")
    if env_file is not None and not Path(env_file).is_file():
        raise InvalidInput(f"No such file: {env_file} (set by YAPTIDE_ENV_FILE)")
    try:
        return Settings(_env_file=env_file or ".env")
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"Invalid setting {first['loc'][0]}: {first['msg']}") from None


def _kept_key(path: Path) -> bytes:
    """Read the key, or create it. Of two processes that start at once, the first one's key is used."""
    create_once(path, secrets.token_hex(32).encode())
    key = path.read_bytes()
    if len(key) < 32:
        raise InvalidInput(f"{path} contains no key: remove it to create a new one (all users must sign in again)")
    return key
