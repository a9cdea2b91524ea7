"""A real browser, which shows what the script of a page has written into it."""

import html
import re
import subprocess
import tempfile

#: Nothing but this machine is to be asked for anything.
_CHROMIUM = (
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--virtual-time-budget=30000", "--dump-dom"),
)
_OBJECT = re.compile(rb"<body>(\{.*\})</body>", re.DOTALL)


def text_of(url: str, *options: str) -> str:
    """The JSON object that the body of a page holds once its script has come to its end, as text."""
    with tempfile.TemporaryDirectory() as profile:
        command = [*_CHROMIUM, *options, f"--user-data-dir={profile}", url]
        done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    found = _OBJECT.search(done.stdout)
    assert found, (done.returncode, done.stdout[:500], done.stderr[-2000:])
    return html.unescape(found[1].decode())
