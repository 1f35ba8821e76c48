"""Weights in external files: once read, their pages count as this process's memory."""

from __future__ import annotations

import contextlib
import mmap

import numpy as np


def give_back(array: np.ndarray) -> None:
    """Let the system have the pages of an array that is mapped from a file.

    They are read again, from the file or its cache, when somebody next looks at them. Arrays in
    memory of their own are left alone.
    """
    mapped = _file(array)
    if mapped is not None and hasattr(mapped, "madvise"):
        with contextlib.suppress(OSError, ValueError):  # nothing lost: it is advice only
            mapped.madvise(mmap.MADV_DONTNEED)


def is_mapped(array: np.ndarray) -> bool:
    """Whether an array lies in a file."""
    return _file(array) is not None


def _file(array: np.ndarray) -> mmap.mmap | None:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    mapped = base.obj if isinstance(base, memoryview) else base
    return mapped if isinstance(mapped, mmap.mmap) else None
