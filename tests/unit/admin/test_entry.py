"""How commands end."""

import subprocess
import sys

import pytest

PROGRAM = """
from yaptide.admin.entry import new_app, run_command
app = new_app("lines", "Prints lines.")

@app.command()
def lines(count: int):
    for number in range(count):
        print(f"line {number}", flush=number % 1000 == 999)

run_command(app)
"""


@pytest.mark.parametrize("count", [2, 200_000], ids=["few", "many"])
def test_a_reader_who_has_seen_enough_is_no_failure(count):
    script = f'set -o pipefail; "$0" -c "$1" {count} | head -n 1'
    done = subprocess.run(["bash", "-c", script, sys.executable, PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "line 0\n", "")


def test_nobody_who_reads_is_no_failure_either():
    script = 'set -o pipefail; (sleep 0.2; exec "$0" -c "$1" 2) | true'
    done = subprocess.run(["bash", "-c", script, sys.executable, PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
