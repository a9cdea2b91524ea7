"""Scopes of API tokens: each includes the ones before it, and none allows to change the account."""

from itertools import pairwise

import pytest

from yaptide.domain.rights import ALLOWED, Action, Scope, least_scope


@pytest.mark.parametrize(
    ("scope", "added"),
    [
        (Scope.READ, {Action.READ}),
        (Scope.SUBMIT, {Action.SUBMIT, Action.CANCEL}),
        (Scope.ALL, {Action.RUN, Action.DELETE, Action.VIEW_ACCOUNT}),
        (Scope.ADMIN, {Action.OPERATE}),
    ],
)
def test_actions_that_each_scope_adds(scope, added):
    scopes = list(Scope)
    before = scopes[: scopes.index(scope)]
    assert ALLOWED[scope] - frozenset().union(*(ALLOWED[narrower] for narrower in before)) == added
    assert {action for action in Action if least_scope(action) is scope} == added


def test_each_scope_includes_the_ones_before_it():
    for narrower, wider in pairwise(Scope):
        assert ALLOWED[narrower] < ALLOWED[wider]


def test_no_scope_allows_to_change_the_account():
    assert least_scope(Action.CHANGE_ACCOUNT) is None
    assert not any(Action.CHANGE_ACCOUNT in allowed for allowed in ALLOWED.values())
