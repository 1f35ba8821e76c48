from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from topsideas.engines.emulator.store import MISSING, TensorStore, content_key, size_of

F = np.float32


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (np.zeros(4, F), np.zeros((2, 2), F)),
        (np.zeros(4, F), np.zeros(4, np.int32)),
        (np.zeros(4, F), np.zeros(8, np.float16)),
        (np.array([0.0], F), np.array([-0.0], F)),
        (np.zeros(0, F), np.zeros((0, 1), F)),
        (np.array(1.0, F), np.array([1.0], F)),
        (np.array(["a", "b"], object), np.array(["a", "c"], object)),
        (np.array(["ab", "c"], object), np.array(["a", "bc"], object)),
        ([np.zeros(2, F)], np.zeros(2, F)),
        ([np.zeros(2, F)], [np.zeros(1, F), np.zeros(1, F)]),
        ([], None),
        ([None], None),
    ],
)
def test_different_tensors_have_different_keys(left: Any, right: Any) -> None:
    assert content_key(left) != content_key(right)


@pytest.mark.parametrize(
    "tensor",
    [
        np.arange(6, dtype=F).reshape(2, 3),
        np.zeros((2, 0), F),
        np.array(1.5, F),
        np.array(["a", "b"], object),
        np.array([np.nan], F),
        [np.arange(3), np.arange(2)],
        None,
    ],
    ids=str,
)
def test_equal_tensors_have_equal_keys(tensor: Any) -> None:
    copy = [t.copy() for t in tensor] if isinstance(tensor, list) else tensor
    copy = tensor.copy() if isinstance(tensor, np.ndarray) else copy
    assert content_key(copy) == content_key(tensor)


def test_memory_order_does_not_matter() -> None:
    x = np.arange(6, dtype=F).reshape(2, 3)
    assert content_key(np.asfortranarray(x)) == content_key(x)
    assert content_key(np.arange(12, dtype=F)[::2]) == content_key(np.arange(0, 12, 2).astype(F))


def test_the_longest_unused_tensors_are_dropped() -> None:
    store = TensorStore(limit=12)
    for key in (b"a", b"b", b"c"):
        store.put(key, np.zeros(1, F))
    store.find(b"a")
    store.put(b"d", np.zeros(1, F))
    assert store.find(b"b") is MISSING
    assert all(store.find(k) is not MISSING for k in (b"a", b"c", b"d"))


def test_the_latest_tensor_is_kept_however_large() -> None:
    store = TensorStore(limit=1)
    store.put(b"a", np.zeros(1000, F))
    assert store.find(b"a") is not MISSING
    store.put(b"b", np.zeros(1, F))
    assert store.find(b"a") is MISSING


def test_a_tensor_is_counted_once() -> None:
    store = TensorStore(limit=8)
    for _ in range(5):
        store.put(b"a", np.zeros(1, F))
    store.put(b"b", np.zeros(1, F))
    assert store.find(b"a") is not MISSING


def test_none_is_a_tensor_like_others() -> None:
    store = TensorStore(limit=8)
    store.put(b"a", None)
    assert store.find(b"a") is None


def test_sizes() -> None:
    assert size_of(np.zeros(3, F)) == 12
    assert size_of([np.zeros(3, F), [np.zeros(1, F)]]) == 16
    assert size_of(None) == 0
