"""Files for containers, nginx and systemd: what they name exists in the code, and they are made as they should be.

No engine for containers is needed: the files are read, and what can run without one is run.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from tests.support.postgres import free_port
from yaptide.admin import cli
from yaptide.application import create_app
from yaptide.platforms.direct import worker_api
from yaptide.platforms.direct.broker import MERGE_QUEUE, make_celery, queue_of
from yaptide.services.secrets import Vault
from yaptide.settings import Settings
from yaptide.simulators import list_names
from yaptide_client.http import Client

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE, DEVELOP = "docker-compose.yml", "docker-compose.develop.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
NGINX = (DEPLOY / "nginx.conf").read_text()
UNITS = ("yaptide.service", "yaptide-worker@.service")
SERVER, WORKER = "yaptide_flask", "worker"
SETTINGS = {str(field.validation_alias): field for field in Settings.model_fields.values()}
SECRETS = {"POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLASK_SECRET_KEY", "YAPTIDE_SECRET_KEYS", "PGADMIN_PASSWORD"}
NAME = "yaptide.example.org"
#: ${NAME}, ${NAME-default}, ${NAME:-default}, ${NAME:?message}; $$ is a dollar.
VARIABLE = re.compile(r"\$\$|\$\{(\w+)(?:(:?[-?])([^}]*))?\}")


@cache
def compose(file: str) -> dict[str, Any]:
    """One file, as it is written."""
    return yaml.safe_load((ROOT / file).read_text())


def merged() -> dict[str, Any]:
    """The services of both files, the second laid upon the first as Compose does it."""
    services = json.loads(json.dumps(compose(COMPOSE)["services"]))
    for name, more in compose(DEVELOP)["services"].items():
        service = services.setdefault(name, {})
        for key, value in more.items():
            if isinstance(value, list):
                service[key] = [*service.get(key, []), *value]
            elif isinstance(value, dict):
                service[key] = {**service.get(key, {}), **value}
            else:
                service[key] = value
    return services


def words(value: object) -> Iterator[str]:
    """All text in a document, but for the keys."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for entry in value:
            yield from words(entry)
    elif value is not None:
        yield str(value)


def variables(text: str) -> Iterator[tuple[str, str, str]]:
    """Each variable that Compose would fill in: its name, how, and the default or the message."""
    return ((name, how, more) for name, how, more in VARIABLE.findall(text) if name)


def filled(text: str, known: dict[str, str]) -> str:
    """The text as Compose fills it in; KeyError if a variable without a default is not known."""

    def value(result: re.Match[str]) -> str:
        if result[0] == "$$":
            return "$"
        if result[2] in (":-", "-"):
            return known.get(result[1]) or result[3]
        return known[result[1]]

    return VARIABLE.sub(value, text)


@pytest.fixture(scope="module")
def dotenv(tmp_path_factory) -> dict[str, str]:
    """What deploy/make-env makes, in a copy of the checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(DEPLOY, folder / "deploy")
    shutil.copy(ROOT / ".env.example", folder)
    command = [folder / "deploy/make-env", NAME]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    made = folder / ".env"
    assert made.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.glob(".env*") if path not in (made, folder / ".env.example")] == []
    result = dict(line.split("=", 1) for line in made.read_text().splitlines() if line and not line.startswith("#"))
    assert not any(result[name] in done.stdout + done.stderr for name in SECRETS)
    before = made.read_bytes()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, made.read_bytes()) == (1, before), "one that is there is kept"
    return result


def environment(service: str, known: dict[str, str]) -> dict[str, str]:
    """The variables of a service's container."""
    return {
        name: filled(str(value), known) for name, value in compose(COMPOSE)["services"][service]["environment"].items()
    }


# -- names that have to exist -----------------------------------------------------------------------------------------


def check_command(line: list[str]) -> None:
    """Whether a command line of ours has commands and options that exist, with values they take."""
    command, rest = get_command(cli.app), line[1:]
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    assert not hasattr(command, "commands"), line
    command.make_context(" ".join(line), rest)


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every command line of ours, with where it is."""
    for file in (COMPOSE, DEVELOP):
        for name, service in compose(file)["services"].items():
            command = service.get("command")
            for word in command or []:
                if "yaptide " in word:
                    yield from ((f"{file}: {name}", shlex.split(part)) for part in _simple(word))
            if command and command[0] == "yaptide":
                yield f"{file}: {name}", command
    for result in re.findall(r"^ *CMD (\[\"yaptide.*\])$", DOCKERFILE, re.MULTILINE):
        yield "Dockerfile", json.loads(result)
    for result in re.findall(r"^RUN (?:\w+=\S+ )*(yaptide .*)$", DOCKERFILE, re.MULTILINE):
        yield "Dockerfile", shlex.split(result)
    for unit in UNITS:
        for line in re.findall(r"^ExecStart(?:Pre)?=\S+/bin/(yaptide .*)$", (DEPLOY / unit).read_text(), re.MULTILINE):
            yield unit, shlex.split(line.replace("%i", "1").replace("${QUEUES}", ""))


def _simple(script: str) -> list[str]:
    return [part.removeprefix("exec ") for part in script.split(" && ")]


COMMANDS = list(command_lines())


@pytest.mark.parametrize(("where", "line"), COMMANDS, ids=[f"{where}-{' '.join(line)}" for where, line in COMMANDS])
def test_every_command_exists(where, line):
    check_command(line)


def test_commands_are_found():
    assert {" ".join(line[:3]) for _, line in COMMANDS} >= {
        "yaptide db upgrade",
        "yaptide up --host",
        "yaptide worker --name",
        "yaptide simulators install",
    }
    assert {where for where, _ in COMMANDS} == {"Dockerfile", *UNITS, f"{COMPOSE}: {SERVER}", f"{COMPOSE}: {WORKER}"}


@pytest.mark.parametrize("service", [SERVER, WORKER])
def test_every_setting_exists_and_is_valid(service, dotenv, tmp_path, monkeypatch):
    given = environment(service, dotenv)
    assert set(given) <= set(SETTINGS)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    make_celery(settings.broker_url.get_secret_value(), settings.task_hours * 3600)
    if service == SERVER:
        assert settings.key == dotenv["FLASK_SECRET_KEY"].encode()
        assert settings.origins == []
        assert settings.proxies == 1
        app = create_app(settings.model_copy(update={"data_dir": tmp_path}))
        assert app.extensions["sqlalchemy"].engine.url.database == "yaptide"


def test_settings_elsewhere_exist():
    named = {
        *re.findall(r"^ENV (?:.* )?((?:YAPTIDE|FLASK|CELERY)_\w+)=", DOCKERFILE, re.MULTILINE),
        *(name for file in UNITS for name in re.findall(r"\b((?:YAPTIDE|FLASK)_\w+)=", (DEPLOY / file).read_text())),
        *re.findall(r"\b(YAPTIDE_\w+)\b", NGINX),
    }
    assert named - {"YAPTIDE_ENV_FILE", "YAPTIDE_SERVER"} <= set(SETTINGS)
    for service in compose(DEVELOP)["services"].values():
        ours = {name for name in service["environment"] if name.startswith(("YAPTIDE", "FLASK", "CELERY"))}
        assert ours <= set(SETTINGS)


def test_every_variable_of_compose_is_explained_with_its_default():
    message = (ROOT / ".env.example").read_text()
    documented = re.findall(r"^(#?)([A-Z_]+)=(.*)$", message, re.MULTILINE)
    used: dict[str, set[str]] = {}
    for file in (COMPOSE, DEVELOP):
        for name, how, more in variables("\n".join(words(compose(file)))):
            used.setdefault(name, set()).add("required" if how == ":?" else more)
            assert how != ":?" or more == "run deploy/make-env"
    assert used == {name: {default if optional else "required"} for optional, name, default in documented}
    # Each stands below a comment of its own, or below another one that shares it.
    for block in message.split("\n\n"):
        assert re.match(r"(?:# .*(?:\n|$))+(?:#?[A-Z_]+=.*(?:\n|$))*$", block), block


def test_what_has_a_default_in_the_code_has_the_same_one_for_containers():
    """Except for intended differences: a public server, and workers that share a machine."""
    on_purpose = {"YAPTIDE_CORS_ORIGINS", "YAPTIDE_REGISTRATION", "YAPTIDE_LOG_FORMAT", "YAPTIDE_WORKERS"}
    text = "\n".join(words(compose(COMPOSE)))
    defaults = {name: more for name, how, more in variables(text) if how != ":?" and name in SETTINGS}
    assert on_purpose <= set(defaults)
    for name in set(defaults) - on_purpose:
        default = SETTINGS[name].default
        assert type(default)(defaults[name]) == default


def test_what_services_refer_to_is_defined():
    for files in ([COMPOSE], [COMPOSE, DEVELOP]):
        services = merged() if len(files) == 2 else compose(COMPOSE)["services"]
        volumes = {name for file in files for name in compose(file).get("volumes", {})}
        networks = {name for file in files for name in compose(file).get("networks", {})}
        mounted = set()
        for name, service in services.items():
            assert set(service["networks"]) <= networks, name
            assert set(service.get("depends_on", {})) <= set(services), name
            for volume in service.get("volumes", []):
                source = re.sub(r"^\$\{\w+:-(.*?)\}", r"\1", volume).split(":")[0]
                if source == "./tls":
                    assert "/tls/" in (ROOT / ".gitignore").read_text().split()
                elif source.startswith("."):
                    assert (ROOT / source).exists(), volume
                else:
                    mounted.add(source)
        assert mounted == volumes
        assert {network for service in services.values() for network in service["networks"]} == networks


def test_services_reach_each_other_by_their_names(dotenv):
    services = compose(COMPOSE)["services"]
    for service in (SERVER, WORKER):
        for url in environment(service, dotenv).values():
            for host, port in re.findall(r"(?://|@)([a-z_]\w*):(\d+)\b", url):
                assert set(services[host]["networks"]) & set(services[service]["networks"]), (service, host)
                assert port == {"postgresql": "5432", "redis": "6379", SERVER: "5000"}[host]
    host, port = services["nginx"]["environment"]["YAPTIDE_SERVER"].split(":")
    assert set(services[host]["networks"]) & set(services["nginx"]["networks"])
    assert f"EXPOSE {port}\n" in DOCKERFILE
    assert not set(services[WORKER]["networks"]) & set(services["postgresql"]["networks"])
    (server,) = json.loads((DEPLOY / "pgadmin-servers.json").read_text())["Servers"].values()
    assert server["Host"] in services
    assert {"database"} == set(services[server["Host"]]["networks"]) & set(merged()["pgadmin"]["networks"])
    postgres = services["postgresql"]["environment"]
    assert (server["Username"], server["MaintenanceDB"]) == (postgres["POSTGRES_USER"], postgres["POSTGRES_DB"])


@pytest.fixture(scope="module")
def web():
    return create_app(Settings(_env_file=None, database_uri="sqlite://", signing_key="k" * 32))


def test_routes_that_are_named_exist(web):
    routes = {rule.rule for rule in web.url_map.iter_rules()}
    texts = [
        DOCKERFILE,
        *(" ".join(words(compose(COMPOSE)["services"][name]["healthcheck"])) for name in (SERVER, "nginx")),
    ]
    asked = {path for text in texts for path in re.findall(r"https?://127\.0\.0\.1(?::5000)?(/\w+)", text)}
    assert asked == {"/healthz", "/readyz"}
    for location in re.findall(r"^ +location (?:= )?(/\S*) \{", NGINX, re.MULTILINE):
        assert location in routes or any(route.startswith(location) for route in routes), location
    assert asked <= routes


def test_queues_that_documents_name_exist():
    text = (ROOT / "docs/production.md").read_text()
    known = {MERGE_QUEUE, *map(queue_of, list_names())}
    assert {*re.findall(r"--queues (\w+)", text), *re.findall(r"`(simulate\.\w+)`", text)} <= known
    assert re.findall(r"^QUEUES=(.*)$", text, re.MULTILINE) == [MERGE_QUEUE]


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_no_secret_is_in_a_file(dotenv):
    example = (ROOT / ".env.example").read_text()
    for name in SECRETS:
        assert f"\n{name}=\n" in example
        for file in (COMPOSE, DEVELOP):
            assert all(how == ":?" for result, how, _ in variables((ROOT / file).read_text()) if result == name)
        assert name not in DOCKERFILE
    assert len({dotenv[name] for name in SECRETS}) == len(SECRETS)
    assert all(len(dotenv[name]) >= 32 for name in SECRETS)
    assert not re.search(r"^(?:ARG|ENV) .*(?:PASS|SECRET|KEY|TOKEN)", DOCKERFILE, re.MULTILINE)
    assert ".env" in (ROOT / ".gitignore").read_text().split()
    ignored, *kept = re.findall(r"^[^#\n].*$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert ignored == "*"
    assert [line for line in kept if line.startswith("!")] == [
        "!pyproject.toml",
        "!constraints.txt",
        "!README.md",
        "!LICENSE",
        "!yaptide",
        "!client",
    ]


@pytest.mark.parametrize("file", [COMPOSE, DEVELOP])
def test_no_secret_is_on_a_command_line(file):
    for service in compose(file)["services"].values():
        seen = "\n".join(words([service.get("command"), service.get("healthcheck"), service.get("entrypoint")]))
        assert not {name for name, _, _ in variables(seen)} & SECRETS


def test_a_new_key_is_one_that_encrypts(dotenv):
    """deploy/make-env makes the same kind of key as `yaptide secrets new-key`."""
    vault = Vault([dotenv["YAPTIDE_SECRET_KEYS"]])
    assert vault.decrypt(vault.encrypt("a private key")) == "a private key"


def test_a_worker_gets_no_secret_but_the_brokers(dotenv):
    given = "\n".join(environment(WORKER, dotenv).values())
    assert [name for name in sorted(SECRETS) if dotenv[name] in given] == ["REDIS_PASSWORD"]


# -- how they are made ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [COMPOSE, DEVELOP])
def test_images_are_pinned(file):
    built = {"yaptide-server", "yaptide-worker"}
    for service in compose(file)["services"].values():
        image = service.get("image")
        if image is not None and image not in built:
            assert re.search(r":\d+\.\d+", image), image


def instructions() -> list[list[tuple[str, str]]]:
    """The stages of the Dockerfile: instruction and the rest of its line, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    stages: list[list[tuple[str, str]]] = []
    for name, rest in lines:
        if name == "FROM":
            stages.append([])
        stages[-1].append((name, rest))
    return stages


def test_the_images_are_made_as_they_should_be():
    stages = {stage[0][1].rpartition(" AS ")[2]: stage for stage in instructions()}
    assert list(stages) == ["build", "server", "worker"]
    for stage in stages.values():
        base = stage[0][1].split()[0]
        assert base in stages or re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
        for name, rest in stage:
            assert name != "ADD"
            if name == "RUN" and "apt-get install" in rest:
                assert "--no-install-recommends" in rest
                assert "rm -rf /var/lib/apt/lists/*" in rest
            if name == "RUN" and "pip install" in rest:
                assert "--constraint constraints.txt" in rest or "--no-deps" in rest
    for name in ("server", "worker"):
        message = stages[name]
        assert [rest for instruction, rest in message if instruction == "USER"][-1] == "yaptide"
        assert {"HEALTHCHECK", "CMD"} <= {instruction for instruction, _ in message}
        (command,) = [rest for instruction, rest in message if instruction == "CMD"]
        assert isinstance(json.loads(command), list), "a shell would keep signals to itself"


def test_the_build_copies_what_it_needs():
    copied = [rest.split() for stage in instructions() for name, rest in stage if name == "COPY"]
    for *sources, _ in copied:
        if not sources[0].startswith("--from"):
            assert all((ROOT / source).exists() for source in sources)


def test_mounted_code_is_where_the_image_has_it():
    python = re.search(r"^FROM python:(\d+\.\d+)", DOCKERFILE, re.MULTILINE)[1]
    assert "python -m venv /opt/yaptide" in DOCKERFILE
    for name in (SERVER, WORKER):
        assert compose(DEVELOP)["services"][name]["volumes"] == [
            f"./{folder}:/opt/yaptide/lib/python{python}/site-packages/{Path(folder).name}:ro"
            for folder in ("yaptide", "client/yaptide_client")
        ]


def test_every_service_recovers_stops_in_time_and_is_watched():
    services = merged()
    assert set(services) == {"postgresql", "redis", SERVER, WORKER, "nginx", "pgadmin"}
    for name, service in services.items():
        assert service["restart"] == "unless-stopped", name
        assert {"test", "interval", "timeout", "retries", "start_period"} <= set(service["healthcheck"]), name
        assert "stop_grace_period" in service, name
        for other, condition in service.get("depends_on", {}).items():
            assert condition["condition"] == "service_healthy"
            assert "healthcheck" in services[other]
    assert services[SERVER]["container_name"] == SERVER
    for name in (SERVER, WORKER):
        assert services[name]["cap_drop"] == ["ALL"]
        assert services[name]["init"] is True
        (stage,) = [
            stage for stage in instructions() if stage[0][1].endswith(f" AS {services[name]['build']['target']}")
        ]
        assert [entry for entry in stage if entry[0] == "USER"][-1] == ("USER", "yaptide")
    # Scaled, containers cannot share a name or a port.
    assert not {"container_name", "ports"} & set(services[WORKER])


def test_the_health_of_an_image_is_asked_as_compose_does():
    def plain(command: str) -> str:
        return command.replace("$$", "$")

    for stage, service in (("server", SERVER), ("worker", WORKER)):
        (message,) = [
            rest
            for lines in instructions()
            if lines[0][1].endswith(stage)
            for name, rest in lines
            if name == "HEALTHCHECK"
        ]
        _, _, asked = message.partition(" CMD ")
        kind, *test = compose(COMPOSE)["services"][service]["healthcheck"]["test"]
        assert (json.loads(asked) if kind == "CMD" else [asked.strip()]) == list(map(plain, test))


def test_only_nginx_is_open_to_everybody():
    known = dict.fromkeys(SECRETS, "x") | {"SERVER_NAME": NAME}
    opened = {}
    for name, service in merged().items():
        for port in service.get("ports", []):
            address = re.fullmatch(r"(?:([\d.]+):)?(\d+):(\d+)", filled(port, known))
            opened.setdefault(name, set()).add((address[1], int(address[3])))
    assert opened.pop("nginx") == {(None, 80), (None, 443)}
    assert opened == {
        "postgresql": {("127.0.0.1", 5432)},
        "redis": {("127.0.0.1", 6379)},
        SERVER: {("127.0.0.1", 5000)},
        "pgadmin": {("127.0.0.1", 80)},
    }


def test_compose_reads_the_files_if_it_is_there(dotenv):
    """Where the plugin is: Docker's own opinion; the tests above are the same everywhere."""
    asked = (
        subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if shutil.which("docker")
        else None
    )
    for files in ([COMPOSE], [COMPOSE, DEVELOP]):
        known = {name for file in files for name, _, _ in variables((ROOT / file).read_text())}
        filled("\n".join(words([compose(file) for file in files])), {**dict.fromkeys(known, ""), **dotenv})
        if asked is not None and asked.returncode == 0:
            command = ["docker", "compose", *(word for file in files for word in ("-f", file)), "config", "--quiet"]
            subprocess.run(command, cwd=ROOT, env={**os.environ, **dotenv}, check=True)


# -- what runs without containers -------------------------------------------------------------------------------------


def test_redis_starts_as_it_is_told_and_wants_the_password(tmp_path, dotenv):
    service = compose(COMPOSE)["services"]["redis"]
    port = free_port()
    shell = [filled(word, dotenv).replace("/data", str(tmp_path)) for word in service["command"]]
    shell[-1] = shell[-1].replace("redis-server -", f"redis-server - --port {port} --bind 127.0.0.1")
    known = {"PATH": os.environ["PATH"], "REDISCLI_AUTH": dotenv["REDIS_PASSWORD"]}
    running = subprocess.Popen(["setpriv", "--pdeathsig=KILL", "--", *shell], env=known, stdout=subprocess.DEVNULL)
    try:
        check = service["healthcheck"]["test"][1].replace("redis-cli", f"redis-cli -p {port}")
        wait = f"for try in $(seq 300); do if {check} 2>/dev/null; then exit 0; fi; sleep 0.1; done; exit 1"
        assert subprocess.run(["sh", "-c", wait], env=known, check=False).returncode == 0
        wrong = subprocess.run(["sh", "-c", check], env={"PATH": os.environ["PATH"]}, capture_output=True, check=False)
        assert wrong.returncode == 1
        assert dotenv["REDIS_PASSWORD"] not in Path(f"/proc/{running.pid}/cmdline").read_text()
        keep = ["redis-cli", "-p", str(port), "config", "get", "appendonly"]
        assert subprocess.run(keep, env=known, capture_output=True, text=True, check=True).stdout.split()[-1] == "yes"
    finally:
        running.terminate()
        assert running.wait(60) == 0


def test_the_one_liner_prints_the_url_of_the_database(dotenv, tmp_path):
    text = (ROOT / "docs/production.md").read_text()
    (line,) = re.findall(r"^docker exec -it yaptide_flask (python -c .*)$", text, re.MULTILINE)
    given = environment(SERVER, dotenv)
    known = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "YAPTIDE_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        shlex.split(line), env=given | known, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (f"{given['FLASK_SQLALCHEMY_DATABASE_URI']}\n", "")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with nginx.conf, the site in it, and a certificate."""
    folder = tmp_path_factory.mktemp("nginx")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={NAME}"]
    files = ["-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem"]
    subprocess.run([*command, *files], check=True, capture_output=True)
    text = NGINX.replace("${YAPTIDE_SERVER}", "127.0.0.1:5000").replace("${SERVER_NAME}", NAME)
    text = text.replace("/etc/nginx/tls/", f"{folder}/")
    assert "${" not in text
    text = re.sub(r"listen (\d+)", lambda _: f"listen 127.0.0.1:{free_port()}", text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    aside = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid;\nerror_log {folder}/errors;\nevents {{}}\nhttp {{\naccess_log off;\n{aside}{text}\n}}\n"
    )
    return folder


def test_nginx_takes_its_configuration(site):
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert nginx is not None, "run `scripts/setup nginx`"
    done = subprocess.run([nginx, "-t", "-c", site / "nginx.conf"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"\[(?:warn|error|emerg)\]", done.stderr), done.stderr


def directive(name: str, text: str = NGINX) -> list[str]:
    return re.findall(rf"^ *{name} +(.+);$", text, re.MULTILINE)


def seconds(name: str) -> float:
    (message,) = directive(name)
    return float(message.removesuffix("s"))


def test_nginx_waits_as_long_and_takes_as_much_as_yaptide():
    locations = dict(re.findall(r"^    location (.+?) \{\n(.*?)^    \}", NGINX, re.MULTILINE | re.DOTALL))
    uploads = "~ ^/worker/[0-9]+/(tasks/[0-9]+/(output|files)|merge/results)$"
    assert set(locations) == {"/", "= /results", uploads, "= /metrics"}
    for location in ("= /results", uploads):
        assert directive("client_max_body_size", locations[location]) == ["0"]
        assert directive("proxy_request_buffering", locations[location]) == ["off"]
    (most,) = directive("client_max_body_size", locations["/"])
    assert int(most.removesuffix("m")) > SETTINGS["YAPTIDE_MAX_BODY_MIB"].default
    assert directive("return", locations["= /metrics"]) == ["404"]
    with Client("http://127.0.0.1:1") as client:
        slowest = max(client._http.timeout.read, worker_api._TIMEOUT.read)
    assert seconds("proxy_read_timeout") > slowest
    assert seconds("proxy_send_timeout") > slowest
    assert seconds("client_body_timeout") >= worker_api._TIMEOUT.write
    headers = dict(line.split(maxsplit=1) for line in directive("proxy_set_header"))
    assert headers["X-Forwarded-For"] == "$remote_addr", "what a client claims is not passed on"
    assert "X-Forwarded-Proto" in headers
    assert headers["X-Forwarded-Host"] == headers["Host"] == "$http_host", "what a browser sees, with its port"
    assert directive("ssl_protocols") == ["TLSv1.2 TLSv1.3"]
    assert directive("gzip") == ["off"]


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """Sections of a unit file, with the values of each of their keys."""
    result: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in (DEPLOY / name).read_text().splitlines():
        if line.startswith("["):
            section = result.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            section.setdefault(key, []).append(value)
    return result


@pytest.mark.parametrize("name", UNITS)
def test_units_are_complete(name):
    message = unit(name)
    assert set(message) == {"Unit", "Service", "Install"}
    service = message["Service"]
    assert service["Restart"] == ["always"]
    assert service["User"] in (["yaptide"], ["yaptide-worker"])
    assert service["WorkingDirectory"] == [f"/var/lib/{service['StateDirectory'][0]}"]
    assert service["KillMode"] == ["mixed"]
    assert all(line.startswith("/opt/yaptide/bin/yaptide ") for line in service["ExecStart"])
    document = (ROOT / "docs/production.md").read_text()
    (file,) = re.findall(r"YAPTIDE_ENV_FILE=(\S+)", service["Environment"][0])
    assert f"/dev/stdin {file} <<end\n" in document
    assert f"useradd --system --home-dir {service['WorkingDirectory'][0]} " in document
    assert f"{service['User'][0]}\n" in document


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_units_where_it_is(name, tmp_path):
    text = (DEPLOY / name).read_text()
    assert not [line for line in text.splitlines() if line.endswith("\\")]
    if shutil.which("systemd-analyze") is None:
        return  # test_units_are_complete has read them
    (tmp_path / "yaptide").symlink_to(Path(sys.executable).with_name("yaptide"))
    copy = tmp_path / name.replace("@", "@1")
    copy.write_text(text.replace("/opt/yaptide/bin/yaptide", str(tmp_path / "yaptide")))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", copy]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_message_of_rabbitmq_waits_longer_than_a_task_may_run():
    text = (ROOT / "docs/production.md").read_text()
    (milliseconds,) = re.findall(r"^consumer_timeout = (\d+)$", text, re.MULTILINE)
    app = make_celery("redis://localhost", SETTINGS["YAPTIDE_TASK_HOURS"].default * 3600)
    assert int(milliseconds) / 1000 > app.conf.task_time_limit
    assert f"it is {int(milliseconds) / 3_600_000:g} hours" in text


def test_services_that_documents_name_exist():
    text = (ROOT / "docs/production.md").read_text()
    services = merged()
    for line in re.findall(r"docker exec (?:-it )?(\w+)", text):
        assert line in {service.get("container_name") for service in services.values()}
    for scaled in re.findall(r"--scale (\w+)=", text):
        assert scaled in services
    for path in (ROOT / "docs").glob("*.md"):
        for named in re.findall(r"docker compose (?:exec|restart) (\w+)", path.read_text()):
            assert named in services, path
