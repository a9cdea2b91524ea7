"""Ports for the servers under test."""

import contextlib
import random
import socket

#: Below those that the kernel gives to outgoing connections.
RANGE = (20_000, 32_000)


def free_port() -> int:
    """A free port that no other process of tests on this machine is given as long as this one lives.

    So a server may come late, or be stopped and started again. What keeps the others away is a Unix socket with the
    port's number for a name, which is in no folder (that is what the zero byte says). It is left open on purpose: the
    kernel closes it at the end of this process, however that comes.
    """
    draw = random.SystemRandom()  # Hypothesis gives the same seed to all processes
    while True:
        port = draw.randrange(*RANGE)
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as claim, socket.socket() as probe:
            claim.bind(f"\0yaptide-tests-port-{port}")
            probe.bind(("127.0.0.1", port))
            claim.detach()
            return port
