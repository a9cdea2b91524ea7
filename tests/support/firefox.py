"""A page in Debian's Firefox. Playwright cannot drive it, so this speaks WebDriver BiDi with it."""

import itertools
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from websockets.sync.client import ClientConnection, connect

#: Firefox's own requests to other machines end at a closed port; those to this machine use no proxy.
_PREFERENCES = {
    "network.proxy.type": 1,
    **{f"network.proxy.{kind}": "127.0.0.1" for kind in ("http", "ssl")},
    **{f"network.proxy.{kind}_port": 9 for kind in ("http", "ssl")},
    "app.normandy.enabled": False,
    "datareporting.healthreport.uploadEnabled": False,
}
#: Violations of the CSP are no entries of the log.
_REPORT_VIOLATIONS = """() => document.addEventListener("securitypolicyviolation",
    (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI}`))"""
_LISTENS = re.compile(r"WebDriver BiDi listening on (ws://127\.0\.0\.1:\d+)")
_DEADLINE = 60.0


@dataclass
class Firefox:
    """The page that a Firefox shows. `problems` are the errors and violations of the CSP in its console."""

    socket: ClientConnection
    context: str = ""
    problems: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; problems reported meanwhile are kept."""
        number = next(self._numbers)
        self.socket.send(orjson.dumps({"id": number, "method": method, "params": parameters}).decode())
        while True:
            message = orjson.loads(self.socket.recv(timeout=_DEADLINE))
            if message.get("id") == number:
                assert message["type"] == "success", message
                result: dict[str, Any] = message["result"]
                return result
            if message.get("method") == "log.entryAdded" and message["params"]["level"] == "error":
                self.problems.append(message["params"]["text"])

    def prepare(self) -> None:
        """Begin a session that reports problems."""
        self.call("session.new", capabilities={})
        self.call("session.subscribe", events=["log.entryAdded"])
        self.call("script.addPreloadScript", functionDeclaration=_REPORT_VIOLATIONS)
        self.context = self.call("browsingContext.getTree")["contexts"][0]["context"]

    def goto(self, address: str) -> None:
        """Open an address and wait until it is loaded."""
        self.call("browsingContext.navigate", context=self.context, url=address, wait="complete")

    def evaluate(self, expression: str) -> dict[str, Any]:
        """Return the result of a script's expression, as BiDi describes it."""
        answer = self.call(
            "script.evaluate", expression=expression, target={"context": self.context}, awaitPromise=True
        )
        assert answer["type"] == "success", answer
        result: dict[str, Any] = answer["result"]
        return result

    def wait_for(self, expression: str, deadline: float = _DEADLINE) -> dict[str, Any]:
        """Return the first result of an expression that is not null, undefined or false, on any page that is shown."""
        end = time.monotonic() + deadline
        while (result := self.evaluate(expression))["type"] in ("null", "undefined") or result.get("value") is False:
            assert time.monotonic() < end, expression
            time.sleep(0.1)
        return result

    def click(self, selector: str, text: str = "") -> None:
        """Press the mouse on the first element that a CSS selector finds and that contains `text`."""
        find = f"[...document.querySelectorAll({selector!r})].find((element) => element.textContent.includes({text!r}))"
        node = self.wait_for(f"(() => {{ const each = {find}; each?.scrollIntoView(); return each; }})()")
        origin = {"type": "element", "element": {"sharedId": node["sharedId"]}}
        mouse = [
            {"type": "pointerMove", "x": 0, "y": 0, "origin": origin},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        self.call(
            "input.performActions", context=self.context, actions=[{"type": "pointer", "id": "mouse", "actions": mouse}]
        )

    def type(self, selector: str, text: str) -> None:
        """Write a text into a field."""
        self.click(selector)
        keys = [{"type": kind, "value": key} for key in text for kind in ("keyDown", "keyUp")]
        self.call(
            "input.performActions", context=self.context, actions=[{"type": "key", "id": "keys", "actions": keys}]
        )


@contextmanager
def firefox() -> Iterator[Firefox]:
    """Start a Firefox with a new profile; it ends with the block."""
    program = shutil.which("firefox-esr")
    if program is None:
        pytest.fail("firefox-esr is missing: install it with `scripts/setup clients`", pytrace=False)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        lines = (
            f"user_pref({orjson.dumps(name).decode()}, {orjson.dumps(value).decode()});"
            for name, value in _PREFERENCES.items()
        )
        Path(home, "user.js").write_text("\n".join(lines))
        command = [
            program,
            "--headless",
            "--no-remote",
            "--profile",
            home,
            "--remote-debugging-port",
            "0",
            "about:blank",
        ]
        with (
            Path(home, "log").open("w+") as log,
            subprocess.Popen(command, stderr=log, stdout=log, env={"HOME": home, "PATH": "/usr/bin:/bin"}) as process,
        ):
            try:
                with connect(f"{_address(process, Path(home, 'log'))}/session", max_size=None) as socket:
                    page = Firefox(socket)
                    page.prepare()
                    yield page
                    page.call("browser.close")
                process.wait(_DEADLINE)
            finally:
                process.kill()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return the address at which Firefox listens, once it does."""
    end = time.monotonic() + _DEADLINE
    while (match := _LISTENS.search(log.read_text())) is None:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)
    return match[1]
