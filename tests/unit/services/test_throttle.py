"""Password guessing leads to increasing waits, only for the guesser."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from yaptide.domain.errors import NotAuthenticated, TooManyAttempts, Unavailable
from yaptide.services.throttle import FORGOTTEN, LENIENT, LONGEST, STRICT, Throttle

HERE, THERE = "192.0.2.1", "198.51.100.7"
MANY = 10**6


class Clock:
    time = 1000.0

    def __call__(self):
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def throttle(clock):
    return Throttle(MANY, MANY, clock=clock)


def fail(throttle, name="alice", address=HERE, error=NotAuthenticated, place=None):
    with suppress(error), throttle.attempt(name, address, place):
        raise error("wrong")


def succeed(throttle, name="alice", address=HERE, place=None):
    with throttle.attempt(name, address, place):
        pass


def wait_of(throttle, name="alice", address=HERE, place=None):
    try:
        succeed(throttle, name, address, place)
    except TooManyAttempts as error:
        return error.seconds
    return 0


def test_waits_double_up_to_the_longest(throttle, clock):
    for _ in range(STRICT - 1):
        fail(throttle)
    waits = []
    for _ in range(9):
        fail(throttle)
        with pytest.raises(TooManyAttempts) as refused:
            succeed(throttle)
        waits.append(refused.value.seconds)
        assert f"wait {waits[-1]} s" in str(refused.value)
        clock.time += refused.value.seconds
    assert waits == [1, 2, 4, 8, 16, 32, LONGEST, LONGEST, LONGEST]


def test_the_right_password_after_the_wait_ends_it(throttle, clock):
    for _ in range(STRICT):
        fail(throttle)
    clock.time += 1
    succeed(throttle)
    for _ in range(STRICT - 1):
        fail(throttle)
        assert wait_of(throttle) == 0


def test_others_and_the_same_name_elsewhere_do_not_wait(throttle):
    for _ in range(STRICT):
        fail(throttle)
    assert wait_of(throttle) > 0
    assert wait_of(throttle, "bob") == 0
    assert wait_of(throttle, "alice", THERE) == 0


def test_many_names_from_one_address(throttle):
    for number in range(LENIENT):
        fail(throttle, f"user{number}")
    assert wait_of(throttle, "bob") > 0
    assert wait_of(throttle, "bob", THERE) == 0


def test_where_a_user_is_known_only_what_is_tried_there_counts(throttle, clock):
    for number in range(LENIENT):
        fail(throttle, address=f"198.51.100.{number}")
        fail(throttle, f"user{number}")
    assert wait_of(throttle) > 0
    assert wait_of(throttle, place="a device") == 0
    for _ in range(STRICT):
        fail(throttle, place="a device")
    assert wait_of(throttle, place="a device") == 1
    assert wait_of(throttle, place="a network") == 0
    clock.time += 1
    succeed(throttle, place="a device")
    fail(throttle, place="a device")
    assert wait_of(throttle, place="a device") == 0


def test_a_correct_password_in_between_does_not_reset_an_address(throttle):
    for number in range(LENIENT):
        succeed(throttle, "mallory")
        fail(throttle, f"user{number}")
    assert wait_of(throttle, "bob") > 0


def test_one_name_from_many_addresses(throttle):
    for number in range(LENIENT):
        fail(throttle, address=f"192.0.2.{number}")
    assert wait_of(throttle, address=THERE) > 0
    assert wait_of(throttle, "bob", THERE) == 0


def test_addresses_of_one_network_are_one_person(throttle):
    for number in range(LENIENT):
        fail(throttle, f"user{number}", f"2001:db8::{number:x}")
    assert wait_of(throttle, "bob", "2001:db8::ffff") > 0
    assert wait_of(throttle, "bob", "2001:db8:0:1::1") == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "", "no address"])
def test_a_proxy_that_nobody_told_of_is_not_taken_for_a_person(throttle, address):
    for number in range(2 * LENIENT):
        fail(throttle, f"user{number}", address)
    assert wait_of(throttle, "bob", address) == 0


def test_many_attempts_at_once_gain_nothing(throttle):
    tried = []

    def attempt(_):
        with suppress(NotAuthenticated, TooManyAttempts), throttle.attempt("alice", HERE):
            tried.append(1)
            raise NotAuthenticated("wrong")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(attempt, range(200)))
    assert len(tried) == STRICT


def test_trouble_of_ours_is_not_counted(throttle):
    for _ in range(2 * STRICT):
        fail(throttle, error=Unavailable)
    assert wait_of(throttle) == 0


def test_it_forgets(throttle, clock):
    for _ in range(STRICT + 9):
        clock.time += LONGEST
        fail(throttle)
    clock.time += FORGOTTEN + 1
    fail(throttle)
    assert wait_of(throttle) == 0


def test_its_memory_is_bounded(clock):
    throttle = Throttle(MANY, size=100, clock=clock)
    for number in range(1000):
        fail(throttle, f"{number}" + "x" * 100_000, "")
    assert len(throttle._failures) == 100
    assert sum(len(part) for key in throttle._failures for part in key) < 100_000
    for number in range(1000):
        succeed(throttle, f"user{number}", "")
    assert len(throttle._failures) <= 100


def test_so_many_sign_ins_from_one_address_in_a_minute(clock):
    throttle = Throttle(sign_ins=6, clock=clock)
    for _ in range(6):
        succeed(throttle)
    with pytest.raises(TooManyAttempts, match="sign-ins; wait 10 s"):
        succeed(throttle, "bob")
    succeed(throttle, "bob", THERE)
    clock.time += 10
    succeed(throttle)
    assert wait_of(throttle) == 10
    clock.time += 60
    for _ in range(6):
        assert wait_of(throttle) == 0
    assert wait_of(throttle) == 10


def test_so_many_registrations_from_one_address_in_an_hour(clock):
    throttle = Throttle(registrations=2, clock=clock)
    for _ in range(2):
        throttle.admit_registration("2001:db8::1")
    for address in ("2001:db8::1", "2001:db8::2"):
        with pytest.raises(TooManyAttempts, match="registrations; wait 1800 s"):
            throttle.admit_registration(address)
    throttle.admit_registration("2001:db8:0:1::1")
    clock.time += 1800
    throttle.admit_registration("2001:db8::2")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "", "no address"])
def test_addresses_that_say_nothing_have_no_limit(clock, address):
    throttle = Throttle(sign_ins=1, registrations=1, clock=clock)
    for _ in range(10):
        throttle.admit_registration(address)
        assert wait_of(throttle, address=address) == 0


def test_the_memory_of_a_limit_is_bounded(clock):
    throttle = Throttle(size=100, clock=clock)
    for number in range(1000):
        throttle.admit_registration(f"192.0.{number // 256}.{number % 256}")
    assert len(throttle._registrations._idle_at) == 100
