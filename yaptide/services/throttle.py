"""Limits how often somebody may sign in or register. What it remembers is in the memory of one process.

Of both, each address may do so many in a time, whatever becomes of them.

Wrong passwords are counted for a name, for an address, and for a name at an address. The last is strict; the others,
which many people may share or a stranger may drive up, are lenient. Whoever has reached a limit waits 1 s, after the
next wrong password 2 s, then 4 s, up to `LONGEST`. Meanwhile nobody looks at a password, so that the right one is not
found out either.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from math import ceil

from yaptide.domain.errors import NotAuthenticated, TooManyAttempts

#: Wrong passwords after which one has to wait: for a name at an address; for a name, and for an address, on the whole.
STRICT, LENIENT = 5, 50
#: Seconds to wait at most.
LONGEST = 60
#: Seconds without a wrong password after which the earlier ones are forgotten.
FORGOTTEN = 15 * 60
#: Names and addresses that are remembered; beyond, those are forgotten whose last wrong password is longest ago.
SIZE = 30_000
#: Sign-ins in a minute, and registrations in an hour, from one address.
SIGN_INS, REGISTRATIONS = 60, 60

_LONGEST_NAME = 200
_Key = tuple[str, ...]


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last: float = 0.0


class Rate:
    """Lets each address do something `most` times in `period` seconds, all at once or one after the other.

    For each it remembers one number: when it will have done nothing for so long that it may do all of it again.
    """

    def __init__(self, most: int, period: float, size: int, clock: Callable[[], float]) -> None:
        self._period = period
        self._each = period / most
        self._size = size
        self._clock = clock
        self._rested: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, address: str, what: str) -> None:
        """Count one more of `what` from an address; raises TooManyAttempts, with nothing counted, if it has to wait."""
        network = _network(address)
        if not network:
            return
        with self._lock:
            time_now = self._clock()
            rested = max(self._rested.get(network, time_now), time_now) + self._each
            if rested > time_now + self._period + self._each / 2:  # the half is for rounding
                raise TooManyAttempts(ceil(rested - time_now - self._period), f"Too many {what} from your address")
            self._rested[network] = rested
            self._rested.move_to_end(network)
            while len(self._rested) > self._size:
                self._rested.popitem(last=False)


class Throttle:
    """Counts sign-ins, wrong passwords and registrations; shared by all threads of a process."""

    def __init__(
        self,
        sign_ins: int = SIGN_INS,
        registrations: int = REGISTRATIONS,
        size: int = SIZE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._size = size
        self._clock = clock
        self._sign_ins = Rate(sign_ins, 60.0, size, clock)
        self._registrations = Rate(registrations, 3600.0, size, clock)
        self._failures: OrderedDict[_Key, _Failures] = OrderedDict()
        self._lock = threading.Lock()

    def admit_registration(self, address: str) -> None:
        """Count a registration; raises TooManyAttempts if there are too many from its address."""
        self._registrations.admit(address, "registrations")

    @contextmanager
    def attempt(self, name: str, address: str = "") -> Iterator[None]:
        """Around a look at a password; raises TooManyAttempts if it is too early for one.

        It counts as wrong from the start, so that many attempts at once gain nothing. Any end but NotAuthenticated
        takes that back, and the right password also what was counted for this name at this address.
        """
        self._sign_ins.admit(address, "sign-ins")
        keys = _keys(name, address)
        self._begin(keys)
        try:
            yield
        except NotAuthenticated:
            raise
        except BaseException:
            self._take_back(keys)
            raise
        self._take_back(keys)
        with self._lock:
            self._failures.pop(_both(name, address), None)

    def _begin(self, keys: dict[_Key, int]) -> None:
        time_now = self._clock()
        with self._lock:
            wait = max(self._wait(key, free, time_now) for key, free in keys.items())
            if wait > 0:
                raise TooManyAttempts(ceil(wait), "Too many failed attempts to sign in")
            for key in keys:
                found = self._failures.setdefault(key, _Failures())
                found.count = 1 if time_now - found.last > FORGOTTEN else found.count + 1
                found.last = time_now
                self._failures.move_to_end(key)
            while len(self._failures) > self._size:
                self._failures.popitem(last=False)

    def _wait(self, key: _Key, free: int, time_now: float) -> float:
        """Seconds that are left to wait."""
        found = self._failures.get(key)
        if found is None or found.count < free:
            return 0
        length = min(2 ** min(found.count - free, 10), LONGEST)
        return found.last + length - time_now

    def _take_back(self, keys: dict[_Key, int]) -> None:
        with self._lock:
            for key in keys:
                found = self._failures.get(key)
                if found is not None and found.count > 1:
                    found.count -= 1
                elif found is not None:
                    del self._failures[key]


def _keys(name: str, address: str) -> dict[_Key, int]:
    """What wrong passwords are counted for, and their limits."""
    keys: dict[_Key, int] = {_both(name, address): STRICT, ("name", name[:_LONGEST_NAME]): LENIENT}
    network = _network(address)
    if network:
        keys["address", network] = LENIENT
    return keys


def _both(name: str, address: str) -> _Key:
    return ("both", name[:_LONGEST_NAME], address)


def _network(address: str) -> str:
    """What one person has of addresses; empty for one that says nothing: none, or that of a proxy on this machine."""
    try:
        found = ip_address(address)
    except ValueError:
        return ""
    if found.is_loopback:
        return ""
    if isinstance(found, IPv6Address):
        return str(IPv6Address(int(found) >> 64 << 64))
    return str(found)
