"""Tensors by content, within a memory limit."""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from functools import cache
from threading import Lock

import numpy as np
import xxhash

Key = bytes
Tensor = object  # np.ndarray, or a list of them for a sequence, or None for an empty optional


class Missing(Enum):
    """The type of ``MISSING``."""

    MISSING = 0


MISSING = Missing.MISSING


def content_key(tensor: Tensor) -> Key:
    """A 128-bit digest of dtype, shape and bytes; equal keys mean equal tensors."""
    if isinstance(tensor, np.ndarray) and tensor.dtype != object:
        content = np.ascontiguousarray(tensor).data
        return xxhash.xxh3_128_digest(content) + _form(tensor.dtype, tensor.shape)
    digest = xxhash.xxh3_128()
    _feed(digest, tensor)
    return digest.digest()


@cache
def _form(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    return f"{dtype.str}{shape}".encode()


def _feed(digest: xxhash.xxh3_128, tensor: Tensor) -> None:
    if isinstance(tensor, np.ndarray):
        digest.update(f"{tensor.dtype.str}{tensor.shape}".encode())
        if tensor.dtype == object:
            digest.update("\0".join(map(str, tensor.ravel())).encode())
        else:
            digest.update(np.ascontiguousarray(tensor).data.cast("B") if tensor.size else b"")
    elif isinstance(tensor, list):
        digest.update(f"sequence{len(tensor)}".encode())
        for item in tensor:
            _feed(digest, item)
    else:
        digest.update(repr(tensor).encode())


def size_of(tensor: Tensor) -> int:
    """Bytes held by a tensor or a sequence of them."""
    if isinstance(tensor, list):
        return sum(size_of(item) for item in tensor)
    return int(getattr(tensor, "nbytes", 0))


# After this share of the limit was dropped, freed memory is handed back.
_TRIM_SHARE = 0.125


@cache
def _malloc_trim() -> Callable[[int], int]:
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):  # not glibc: nothing to be done, nothing lost
        return lambda _: 0
    return trim


def return_memory() -> None:
    """Give freed pages back to the system.

    Tensors that come and go in all sizes leave holes in the heap, which glibc keeps: without
    this, twice the limit was measured as resident.
    """
    _malloc_trim()(0)


class TensorStore:
    """Keeps the latest used tensors up to a limit; what was dropped must be recomputed.

    Args:
        limit: Bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = Lock()
        self._dropped = 0
        self._bytes = 0
        self._tensors: OrderedDict[Key, Tensor] = OrderedDict()

    def find(self, key: Key) -> Tensor | Missing:
        """The tensor, or MISSING if it was dropped or never put."""
        with self._lock:
            if key not in self._tensors:
                return MISSING
            self._tensors.move_to_end(key)
            return self._tensors[key]

    def put(self, key: Key, tensor: Tensor) -> None:
        """Keep a tensor, dropping the longest unused ones where the limit asks for it."""
        with self._lock:
            if key not in self._tensors:
                self._bytes += size_of(tensor)
            self._tensors[key] = tensor
            self._tensors.move_to_end(key)
            while self._bytes > self._limit and len(self._tensors) > 1:
                self._drop(self._tensors.popitem(last=False)[1])

    def _drop(self, tensor: Tensor) -> None:
        size = size_of(tensor)
        self._bytes -= size
        self._dropped += size
        if self._dropped > self._limit * _TRIM_SHARE:
            self._dropped = 0
            return_memory()
