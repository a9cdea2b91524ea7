"""A real store with an S3 interface, in front of a temporary folder."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.ports import free_port
from tests.support.processes import until

_PROGRAM = Path(sys.prefix) / "share" / "s3proxy" / "s3proxy.jar"
_KEY, _SECRET = "yaptide", "a secret of the tests"
_BUCKET = "scores"


@dataclass
class Store:
    """A running store: the variables that configure clients, and its bucket's URL."""

    variables: dict[str, str]
    url: str


@contextlib.contextmanager
def store() -> Iterator[Store]:
    """Run S3Proxy with one bucket, and remove everything afterwards."""
    if not _PROGRAM.is_file():
        raise FileNotFoundError("These tests need S3Proxy: run `scripts/setup s3proxy`")
    with tempfile.TemporaryDirectory(prefix="yaptide-s3-") as name:
        folder, url = Path(name), f"http://127.0.0.1:{free_port()}"
        (folder / "data" / _BUCKET).mkdir(parents=True)
        lines = {
            "s3proxy.endpoint": url,
            "s3proxy.authorization": "aws-v2-or-v4",
            "s3proxy.identity": _KEY,
            "s3proxy.credential": _SECRET,
            "s3proxy.ignore-unknown-headers": "true",
            "jclouds.provider": "filesystem-nio2",
            "jclouds.identity": "unused",
            "jclouds.credential": "unused",
            "jclouds.filesystem.basedir": str(folder / "data"),
        }
        (folder / "s3proxy.conf").write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        command = ["setpriv", "--pdeathsig=KILL", "--", "java", "-Xmx256m", "-jar", str(_PROGRAM)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--properties", str(folder / "s3proxy.conf")],
                cwd=folder,
                env={"PATH": os.environ["PATH"], "HOME": name},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            until(lambda: _answers(process, url, folder / "log"), f"{url} responds", 120)
            variables = {
                "AWS_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": _KEY,
                "AWS_SECRET_ACCESS_KEY": _SECRET,
                "AWS_REGION": "us-east-1",
            }
            yield Store(variables, f"s3://{_BUCKET}/spool")
        finally:
            process.kill()
            process.wait()


def _answers(process: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"S3Proxy has ended:\n{log.read_text()}")
    try:
        return httpx.get(url).status_code < httpx.codes.INTERNAL_SERVER_ERROR
    except httpx.TransportError:
        return False
