"""Freed memory goes back after so many bytes."""

from __future__ import annotations

import pytest

from topsideas.calibration import heap


def test_memory_is_given_back_each_time_enough_was_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    trims: list[int] = []
    monkeypatch.setattr(heap, "_trim", lambda: trims.append(1))
    found = heap.Heap(100)
    for _ in range(5):
        found.freed(50)
    assert len(trims) == 2


def test_giving_back_never_fails() -> None:
    heap.Heap(1).freed(1)
