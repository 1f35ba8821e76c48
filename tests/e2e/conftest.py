from __future__ import annotations

from pathlib import Path

import pytest
from e2e_bench import Bench, squares_bench


@pytest.fixture
def squares(tmp_path: Path) -> Bench:
    """The overflowing model with two samples and golden outputs, in a folder of its own."""
    return squares_bench(tmp_path)
