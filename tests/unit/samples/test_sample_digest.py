from __future__ import annotations

import hashlib

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from topsideas.errors import UsageError
from topsideas.samples.sample import Sample, arrays_digest, split_holdout

_ARRAYS = hnp.arrays(
    st.sampled_from([np.dtype("f4"), np.dtype("i8"), np.dtype("?")]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
_NAMED = st.dictionaries(st.text(max_size=3), _ARRAYS, max_size=3)


def _same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(
        (a[n].dtype, a[n].shape, a[n].tobytes()) == (b[n].dtype, b[n].shape, b[n].tobytes())
        for n in a
    )


@settings(deadline=None, max_examples=60)
@given(_NAMED, _NAMED)
def test_digests_are_equal_exactly_where_the_arrays_are(
    a: dict[str, np.ndarray], b: dict[str, np.ndarray]
) -> None:
    assert (arrays_digest(a) == arrays_digest(b)) == _same(a, b)


@settings(deadline=None, max_examples=60)
@given(_NAMED)
def test_order_and_memory_layout_do_not_matter(arrays: dict[str, np.ndarray]) -> None:
    other = {name: np.asfortranarray(arrays[name]) for name in reversed(arrays)}
    other = {name: array.reshape(arrays[name].shape) for name, array in other.items()}
    assert arrays_digest(other) == arrays_digest(arrays)


def test_a_digest_is_the_same_in_every_version() -> None:
    arrays = {"x": np.array([1, -1], np.int16)}
    content = b'["x", "int16", [2], 4]\n' + b"\x01\x00\xff\xff"
    assert arrays_digest(arrays) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.zeros(2, np.float16), np.zeros(2, ml_dtypes.bfloat16)),
        (np.zeros(2, np.int32), np.zeros(2, np.float32)),
        (np.float32(0.0), np.float32(-0.0)),
        (np.array(["a", "b"], object), np.array(["ab", ""], object)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
    ],
)
def test_what_tells_arrays_apart(a: np.ndarray, b: np.ndarray) -> None:
    assert arrays_digest({"x": np.asarray(a)}) != arrays_digest({"x": np.asarray(b)})


def test_inputs_and_golden_have_digests_of_their_own() -> None:
    inputs, golden = {"x": np.zeros(2)}, {"y": np.zeros(2)}
    with_golden, without = Sample(0, inputs, golden), Sample(1, inputs, None)
    assert with_golden.inputs_digest == without.inputs_digest
    assert with_golden.golden_digest == arrays_digest(golden)
    assert without.golden_digest is None
    assert with_golden.load() is with_golden


def test_the_last_samples_by_id_are_held_out() -> None:
    samples = [Sample(i, {}, None) for i in (10, 2, 7)]
    search, held = split_holdout(samples, 1)
    assert [s.id for s in search] == [2, 7]
    assert [s.id for s in held] == [10]
    assert split_holdout(samples, 0)[1] == []


@pytest.mark.parametrize("k", [-1, 3, 4])
def test_a_holdout_that_leaves_nothing_is_refused(k: int) -> None:
    samples = [Sample(i, {}, None) for i in range(3)]
    with pytest.raises(UsageError, match=f"cannot hold out {k} of 3 samples: expected 0 or more"):
        split_holdout(samples, k)
