"""A real browser, which shows what the scripts of a page write."""

import html
import re
import subprocess
import tempfile

#: Connections to other machines are blocked.
_CHROMIUM = (
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--virtual-time-budget=30000", "--dump-dom"),
)
_OBJECT = re.compile(rb"<body>(\{.*\})</body>", re.DOTALL)


def text_of(url: str, *options: str) -> str:
    """Return the JSON object that a page's body contains after its scripts have finished, as text."""
    with tempfile.TemporaryDirectory() as profile:
        command = [*_CHROMIUM, *options, f"--user-data-dir={profile}", url]
        done = subprocess.run(command, capture_output=True, check=False, timeout=120)
    match = _OBJECT.search(done.stdout)
    assert match, (done.returncode, done.stdout[:500], done.stderr[-2000:])
    return html.unescape(match[1].decode())
