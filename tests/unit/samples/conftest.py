from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from topsideas.samples.signature import Signature, TensorSpec

F32 = np.dtype(np.float32)


@pytest.fixture
def signature() -> Signature:
    """Two inputs that share the symbol N, one output."""
    return Signature(
        (
            TensorSpec("image", F32, ("N", 3, None)),
            TensorSpec("ids", np.dtype(np.int64), ("N",)),
        ),
        (TensorSpec("logits", F32, ("N", 2)),),
    )


@pytest.fixture
def typed() -> Signature:
    """One input per dtype that npz files do not keep as it is."""
    return Signature(
        (
            TensorSpec("text", np.dtype(object), (2,)),
            TensorSpec("brain", np.dtype(ml_dtypes.bfloat16), (2,)),
            TensorSpec("anything", None, None),
        ),
        (),
    )


@pytest.fixture
def good() -> dict[str, np.ndarray]:
    return {
        "image": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "ids": np.array([4, 5]),
    }


@pytest.fixture
def golden() -> dict[str, np.ndarray]:
    return {"logits": np.ones((2, 2), np.float32)}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write an npz file into the test's folder."""

    def _write(name: str, arrays: dict[str, np.ndarray]) -> Path:
        path = tmp_path / name
        np.savez(path, **arrays)
        return path

    return _write
