"""Ports for servers in tests."""

import contextlib
import random
import socket

#: Below the range that the kernel uses for outgoing connections.
RANGE = (20_000, 32_000)


def free_port() -> int:
    """Return a free port that no other test process on this machine gets while this one lives.

    So a server may start late, or be restarted. A Unix socket in the abstract name space (zero byte), with the port in
    its name, reserves it. It is left open on purpose: the kernel closes it when this process ends, however that
    happens.
    """
    draw = random.SystemRandom()  # Hypothesis seeds `random` equally in all processes
    while True:
        port = draw.randrange(*RANGE)
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as claim, socket.socket() as probe:
            claim.bind(f"\0yaptide-tests-port-{port}")
            probe.bind(("127.0.0.1", port))
            claim.detach()
            return port
