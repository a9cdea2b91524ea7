"""The ports of servers under test."""

import subprocess
import sys
from pathlib import Path

from tests.support import ports

OF_FEW = """
from tests.support import ports
ports.RANGE = (31_000, 31_300)
print(*(ports.free_port() for _ in range(20)))
input()
"""


def test_no_port_is_given_twice_not_even_to_another_process(monkeypatch):
    monkeypatch.setattr(ports, "RANGE", (31_000, 31_300))
    ours = [ports.free_port() for _ in range(20)]
    command = [sys.executable, "-c", OF_FEW]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        theirs = [int(port) for port in other.stdout.readline().split()]
        other.stdin.write("\n")
    assert len({*ours, *theirs}) == 40
