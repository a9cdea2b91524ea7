"""Wire the parts together: the only module that imports all of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import yaptide
from yaptide.domain.errors import Conflict, NotConfigured
from yaptide.persistence import schema
from yaptide.persistence.engine import Database
from yaptide.platforms.direct.embedded import EmbeddedExecutor, Folders
from yaptide.services.backend import Backend
from yaptide.services.conversion import AUTOMATIC, OFF
from yaptide.services.runners import FOREIGN_SETTING
from yaptide.services.spool import Folder, Spool
from yaptide.services.throttle import Throttle
from yaptide.settings import Settings, load_settings
from yaptide.simulators import check_simulator_names
from yaptide_client.extras import is_installed

if TYPE_CHECKING:
    from apiflask import APIFlask

    from yaptide.api.connections import Server
    from yaptide.platforms.batch.driver import Driver
    from yaptide.platforms.direct.broker import Broker
    from yaptide.platforms.direct.outbox import OutboxPublisher


def make_spool(settings: Settings) -> Spool:
    """Return the staging area that the settings name; does not connect to it."""
    if "://" in settings.spool:
        from yaptide.services.bucket import Bucket  # noqa: PLC0415 - a folder needs no obstore

        return Bucket(settings.spool, settings.data_dir / "spool")
    return Folder(Path(settings.spool))


def make_backend(settings: Settings) -> Backend:
    """Return the backend that the settings describe. The database is opened on first use and is not upgraded."""
    if not settings.database_uri:
        settings.make_data_dir()
    return Backend(
        Database(settings.url),
        make_spool(settings),
        settings.key,
        settings.limits,
        data_dir=settings.data_dir,
        secret_keys=tuple(settings.secrets),
        keycloak=settings.keycloak,
        throttle=Throttle(settings.sign_ins_per_minute, settings.registrations_per_hour),
        foreign_workers=check_simulator_names(FOREIGN_SETTING, settings.foreign_workers),
        editor_simulator=_editor_simulator(settings),
        operators=settings.operators,
    )


def _editor_simulator(settings: Settings) -> str:
    """Return the checked simulator that runs converted projects; raise InvalidInput for an unknown name."""
    name = settings.editor_simulator
    if name == AUTOMATIC:
        return OFF if settings.broker_url.get_secret_value() else AUTOMATIC
    if name != OFF:
        check_simulator_names("YAPTIDE_EDITOR_SIMULATOR", (name,))
    return name


def prepare_database(backend: Backend) -> None:
    """Ensure that the tables are current: upgrade SQLite, which only this server uses, but no other database.

    Raises Conflict with the command that fixes it.
    """
    if backend.database.is_sqlite:
        schema.upgrade_tables(backend.database)
    else:
        schema.require_current(backend.database)


def prepare_to_serve(backend: Backend) -> None:
    """Check that the tables are current and the secrets in them can be decrypted; raise Conflict, NotConfigured."""
    from yaptide.services import secrets  # noqa: PLC0415 - most commands need none

    prepare_database(backend)
    secrets.check_secrets(backend.database, secrets.Vault(backend.secret_keys))


def make_broker(settings: Settings) -> "Broker | None":
    """Return the broker that notifies workers, or None if tasks run on this machine."""
    url = settings.broker_url.get_secret_value()
    if not url:
        return None
    from yaptide.platforms.direct.broker import Broker  # noqa: PLC0415 - Celery takes long to load

    return Broker(url, settings.task_hours * 3600)


def make_outbox_publisher(settings: Settings, backend: Backend) -> "OutboxPublisher | None":
    """Return the outbox publisher, not started; None without a broker."""
    broker = make_broker(settings)
    if broker is None:
        return None
    from yaptide.platforms.direct.outbox import OutboxPublisher  # noqa: PLC0415 - Celery takes long to load

    return OutboxPublisher(backend, broker, settings.data_dir)


def make_executor(settings: Settings, backend: Backend) -> tuple[Backend, "EmbeddedExecutor | OutboxPublisher"]:
    """Return what runs the tasks, not started, and the backend that dispatches to it.

    With a broker this is the outbox publisher, otherwise the embedded executor.
    """
    publisher = make_outbox_publisher(settings, backend)
    if publisher is not None:
        return replace(backend, dispatcher=publisher), publisher
    folders = Folders(settings.data_dir, settings.simulators_dir, settings.work)
    executor = EmbeddedExecutor(backend, folders, settings.workers, settings.task_hours * 3600)
    return replace(backend, dispatcher=executor), executor


def make_driver(settings: Settings, backend: Backend) -> "Driver | None":
    """Return the driver that runs simulations on clusters, not started; None without asyncssh."""
    if not is_installed("asyncssh"):
        return None
    from yaptide.platforms.batch.driver import Driver  # noqa: PLC0415 - asyncssh takes long to load

    return Driver(backend, settings.backend_url, settings.cluster_seconds)


def create_app(settings: Settings | None = None, backend: Backend | None = None) -> "APIFlask":
    """Return the web application.

    Without arguments everything comes from the environment (`yaptide.settings`). The application runs no tasks itself:
    `yaptide up` starts an executor beside it. An SQLite database is created or upgraded here; other databases must be
    current before the first request.
    """
    from apiflask import APIFlask  # noqa: PLC0415 - workers and commands import this module, but serve nothing
    from flask_cors import CORS  # noqa: PLC0415
    from werkzeug.middleware.proxy_fix import ProxyFix  # noqa: PLC0415

    from yaptide import api, web  # noqa: PLC0415
    from yaptide.api import cookies, errors, guards, openapi, prefix, request_log  # noqa: PLC0415
    from yaptide.api.http import JsonRequest, Number, OrjsonProvider, guard_body  # noqa: PLC0415

    settings = settings or load_settings()
    backend = backend or make_backend(settings)
    app = APIFlask(
        "yaptide",
        title="yaptide",
        version=yaptide.__version__,
        spec_path="/openapi.json",
        docs_path=None,
        static_folder=None,  # type: ignore[arg-type]  # Flask accepts it, and then serves no files
    )
    app.security_schemes = openapi.security_schemes(cookies.name_of(backend, cookies.ACCESS))
    app.spec_processor(openapi.complete_document)
    app.json = OrjsonProvider(app)
    app.request_class = JsonRequest
    app.url_map.converters["int"] = Number
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_mib * 2**20
    app.config["MAX_RESULTS_LENGTH"] = settings.max_results_mib * 2**20
    app.config["METRICS"] = settings.metrics
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.extensions["yaptide"] = backend
    app.extensions["sqlalchemy"] = backend.database
    errors.register_handlers(app)
    request_log.log_requests(app)
    guards.register_guards(app, settings.origins)
    if settings.proxies:
        count = settings.proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count, x_host=count)  # type: ignore[method-assign]
    if settings.path_prefix:
        app.wsgi_app = prefix.serve_below(app.wsgi_app, settings.path_prefix)  # type: ignore[method-assign]
        app.config["APPLICATION_ROOT"] = settings.path_prefix  # the path of Flask's cookie
    CORS(app, origins=settings.origins, supports_credentials=True, always_send=False)
    for blueprint in api.ALL:
        app.register_blueprint(blueprint)
    web.register_pages(app)
    if settings.ui_dir is not None:
        issuers = () if backend.keycloak is None else backend.keycloak.issuers
        build = web.front_end.load_build(settings.ui_dir, issuers, settings.path_prefix)
        web.front_end.register(app, build)
    if backend.database.is_sqlite:
        prepare_to_serve(backend)
    else:
        app.before_request(_checked_once(backend))
    app.before_request(guard_body)
    return app


def describe_front_end(settings: Settings, urls: Sequence[str]) -> list[str]:
    """Return sentences about the web front end that is served: where it is, and what is wrong with it.

    `urls` are addresses of this server, the best one first. Raises InvalidInput if the front end cannot be served.
    """
    from yaptide.web import front_end  # noqa: PLC0415 - only what serves loads Flask

    if settings.ui_dir is None:
        return []
    build = front_end.load_build(settings.ui_dir, prefix=settings.path_prefix)
    address, problem = front_end.find_address(build, urls), front_end.explain_backend(build, urls)
    return [f"The web front end is at {address}", *([problem] if problem else [])]


def make_server(settings: Settings, backend: Backend, threads: int, grace: int) -> "Server":
    """Return a server for the web application with `threads` threads; at shutdown, requests have `grace` seconds."""
    from yaptide.api.connections import Server  # noqa: PLC0415 - only servers load Flask
    from yaptide.api.http import BY_HEAD, may_send_large  # noqa: PLC0415
    from yaptide.api.shell import Rules, Shell  # noqa: PLC0415
    from yaptide.api.status import SHELL  # noqa: PLC0415

    app = create_app(settings, backend)
    backend.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    most = max(app.config["MAX_CONTENT_LENGTH"], app.config["MAX_RESULTS_LENGTH"], backend.limits.output)
    rules = Rules(
        folder=backend.data_dir,
        entitled=partial(may_send_large, backend),
        by_head=BY_HEAD,
        prefix=settings.path_prefix,
        grace=settings.request_seconds,
        rate=settings.request_rate,
        most=most + 1,
    )
    shell = app.extensions[SHELL] = Shell(app, threads, rules)
    return Server(shell, grace)


def _checked_once(backend: Backend) -> Callable[[], None]:
    """Return a check of tables and secrets for requests, which is repeated until it succeeds once."""
    from flask import request  # noqa: PLC0415

    from yaptide.api import request_log  # noqa: PLC0415

    ready = False

    def check() -> None:
        nonlocal ready
        if not ready and request.path not in request_log.QUIET:  # these are answered in any case
            try:
                prepare_to_serve(backend)
            except Conflict as error:  # 409 would tell a worker that its task is no longer wanted
                raise NotConfigured(str(error)) from error
            ready = True

    return check
