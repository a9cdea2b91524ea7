"""Rate limits for signing in and registering. The counters are in the memory of one process.

Each address may sign in and register a limited number of times per period, whatever the outcome.

Wrong passwords are counted per name, per address, and per name and address. The last limit is strict; the others are
lenient, because many users may share an address and a stranger may use any name. For origins where a user has signed in
before (see `yaptide.services.devices`), only attempts from there count, so that strangers cannot lock the user out. At
a limit, the next attempt must wait 1 s, after another wrong password 2 s, then 4 s, up to `LONGEST`. Until then no
password is checked, so that a correct one is not revealed.
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

#: Wrong passwords before a wait: per name and address; per name, and per address.
STRICT, LENIENT = 5, 50
#: Maximum seconds to wait.
LONGEST = 60
#: Seconds without a wrong password after which the counters are reset.
FORGOTTEN = 15 * 60
#: Maximum number of names and addresses; beyond it, those with the oldest wrong password are forgotten.
SIZE = 30_000
#: Sign-ins per minute, and registrations per hour, from one address.
SIGN_INS, REGISTRATIONS = 60, 60

_LONGEST_NAME = 200
_Key = tuple[str, ...]


@dataclass(slots=True)
class _Failures:
    count: int = 0
    last: float = 0.0


class Rate:
    """Allows `most` actions per `period` seconds for each place, at once or spread out.

    It stores one number per place: the time when the place will be idle long enough for the full number again.
    """

    def __init__(self, most: int, period: float, size: int, clock: Callable[[], float]) -> None:
        self._period = period
        self._each = period / most
        self._size = size
        self._clock = clock
        self._idle_at: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, place: str, what: str) -> None:
        """Count an action `what` of a place; raise TooManyAttempts, without counting, if it must wait.

        A place without a name has no limit.
        """
        if not place:
            return
        with self._lock:
            time_now = self._clock()
            idle_at = max(self._idle_at.get(place, time_now), time_now) + self._each
            if idle_at > time_now + self._period + self._each / 2:  # half a step for rounding
                raise TooManyAttempts(ceil(idle_at - time_now - self._period), f"Too many {what}")
            self._idle_at[place] = idle_at
            self._idle_at.move_to_end(place)
            while len(self._idle_at) > self._size:
                self._idle_at.popitem(last=False)


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
        """Count a registration; raise TooManyAttempts if there are too many from its address."""
        self._registrations.admit(network_of(address), "registrations")

    @contextmanager
    def attempt(self, name: str, address: str = "", place: str | None = None) -> Iterator[None]:
        """Count a password check in this block; raise TooManyAttempts if it must wait.

        With a `place` where the user is known, only attempts from there count. The attempt counts as wrong from the
        start, so that parallel attempts gain nothing. Any end except NotAuthenticated takes this back; a correct
        password also resets the counter of this place, or of this name and address.
        """
        self._sign_ins.admit(place or network_of(address), "sign-ins")
        keys: dict[_Key, int] = {("place", place): STRICT} if place else _keys(name, address)
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
            self._failures.pop(next(iter(keys)), None)

    def _begin(self, keys: dict[_Key, int]) -> None:
        time_now = self._clock()
        with self._lock:
            wait = max(self._wait(key, free, time_now) for key, free in keys.items())
            if wait > 0:
                raise TooManyAttempts(ceil(wait), "Too many failed sign-ins")
            for key in keys:
                failures = self._failures.setdefault(key, _Failures())
                failures.count = 1 if time_now - failures.last > FORGOTTEN else failures.count + 1
                failures.last = time_now
                self._failures.move_to_end(key)
            while len(self._failures) > self._size:
                self._failures.popitem(last=False)

    def _wait(self, key: _Key, free: int, time_now: float) -> float:
        """Return the remaining seconds to wait."""
        failures = self._failures.get(key)
        if failures is None or failures.count < free:
            return 0
        length = min(2 ** min(failures.count - free, 10), LONGEST)
        return failures.last + length - time_now

    def _take_back(self, keys: dict[_Key, int]) -> None:
        with self._lock:
            for key in keys:
                failures = self._failures.get(key)
                if failures is not None and failures.count > 1:
                    failures.count -= 1
                elif failures is not None:
                    del self._failures[key]


def _keys(name: str, address: str) -> dict[_Key, int]:
    """Return the counters for wrong passwords of strangers with their limits, the strict one first."""
    network = network_of(address)
    name = name[:_LONGEST_NAME]
    keys: dict[_Key, int] = {("both", name, network or address): STRICT, ("name", name): LENIENT}
    if network:
        keys["address", network] = LENIENT
    return keys


def network_of(address: str) -> str:
    """Return the network of an address, for one user; empty if there is none, or for a proxy on this machine."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return ""
    if parsed.is_loopback:
        return ""
    if isinstance(parsed, IPv6Address):
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)
