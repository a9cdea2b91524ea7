"""Helpers of all routes."""

import pytest

from yaptide.api.http import has_many_values


@pytest.mark.parametrize(
    ("text", "has_many"),
    [
        (b"[1,2,3,4,5,6,7]", False),
        (b"[1,2,3,4,5,6,7,8,9]", True),
        (b"[" * 9, True),
        (b'{"a":' * 9, True),
        (b'{"a": "[,{,[,{,[,{,[,{,[,{,["}', False),
        (rb'{"a": "\",,,,,\\", "b": ",,,,,,,"}', False),
        (rb'["\\",[],[],[],[],[]]', True),
        (b'"' + b"[," * 100, False),
        (rb'"[,[,[,[,[' + rb"\n" * 100, True),  # that takes too long to find out
        (rb'"[,[,[,[,[\"', False),
        (b"", False),
    ],
)
def test_values_of_a_json_text_are_counted_outside_its_strings(text, has_many):
    assert has_many_values(text, 8) is has_many
