from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topsideas.workspace.keys import canonical_json, key_of

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def _reversed(value: object) -> object:
    """The same value with every mapping built in the opposite order."""
    if isinstance(value, dict):
        return {key: _reversed(value[key]) for key in reversed(value)}
    return [_reversed(item) for item in value] if isinstance(value, list) else value


@settings(deadline=None, max_examples=60)
@given(JSON)
def test_the_order_of_mappings_does_not_matter(value: object) -> None:
    assert key_of("verdict", value) == key_of("verdict", _reversed(value))


@settings(deadline=None, max_examples=60)
@given(JSON, JSON)
def test_different_values_have_different_keys(a: object, b: object) -> None:
    assert (key_of(a) == key_of(b)) == (
        json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    )


@settings(deadline=None, max_examples=60)
@given(JSON)
def test_canonical_json_is_json(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


def test_a_key_is_the_same_in_every_version() -> None:
    expected = hashlib.sha256(b'["plan",[1,2],{"a":1e-05,"b":null}]').hexdigest()
    assert key_of("plan", (1, 2), {"b": None, "a": 1e-5}) == expected


@pytest.mark.parametrize(
    ("a", "b"),
    [((1,), (1.0,)), ((1,), ("1",)), ((1,), (True,)), ((0.0,), (-0.0,)), (("ab",), ("a", "b"))],
)
def test_values_that_look_alike(a: tuple[object, ...], b: tuple[object, ...]) -> None:
    assert key_of(*a) != key_of(*b)


@pytest.mark.parametrize("part", [math.nan, math.inf, [-math.inf]])
def test_what_json_has_no_number_for(part: object) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        key_of(part)


@pytest.mark.parametrize("part", [{1, 2}, Path("x"), np.float32(1), b"x", object()])
def test_what_is_not_json(part: object) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        key_of(part)


@pytest.mark.parametrize("part", [{1: "a"}, [{"a": {None: 1}}], ({True: 1},)])
def test_mapping_keys_that_json_would_turn_into_text(part: object) -> None:
    with pytest.raises(TypeError, match=r"mapping key .* expected str"):
        key_of(part)
