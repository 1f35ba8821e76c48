"""A search that ends at any write to its journal: the next one goes on as if nothing had been."""

from __future__ import annotations

from typing import Any

import pytest
from arithmetic import Engine, TwoMinds, additive, search

from topsideas.calibration.journal import MemoryStore
from topsideas.calibration.result import SearchResult

ERRORS = [0.4, 0.1, 0.3, 0.05, 0.9, 0.2, 0.15, 0.6, 0.02, 0.25]
VALUES = (1.0, 0.5, 1.2, 0.8)


class Killed(BaseException):
    """Not even Ctrl-C: nothing may catch it."""


class Dying(MemoryStore):
    """Dies before the nth write, and tells of writes that repeat what is known."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after
        self.repeats: list[str] = []

    def put(self, kind: str, key: str, value: Any) -> None:
        if not self.left:
            raise Killed
        self.left -= 1
        if kind != "answer" and self.get(kind, key) is not None:
            self.repeats.append(kind)
        super().put(kind, key, value)


def _engine(kind: str) -> Engine:
    """Errors that change hands between the samples, so that no sample is always the hardest."""
    plain = additive(ERRORS)

    def error(kept: frozenset[int], x: float) -> float:
        return plain(kept, x) + (0.3 if x < 1 and not kept & {1, 4} else 0.0)

    if kind == "plain":
        return Engine(error)
    return TwoMinds(error, lambda kept, x: error(kept, x) + 0.07 * (len(kept) % 2))


def _lasting(found: SearchResult) -> tuple[Any, ...]:
    ledger = [(q.phase, q.items, q.verdict) for q in found.ledger]
    return found.plan, found.before, found.after, found.witnesses, found.felt, ledger


@pytest.mark.parametrize("kind", ["plain", "two executions"])
def test_a_search_that_dies_at_any_write_is_resumed(kind: str) -> None:
    whole = Dying(-1)
    expected = _lasting(search(_engine(kind), 10, values=VALUES, store=whole).run())
    writes = -1 - whole.left
    assert writes > 30
    assert whole.repeats == []
    for after in range(writes):
        store = Dying(after)
        with pytest.raises(Killed):
            search(_engine(kind), 10, values=VALUES, store=store).run()
        store.left = -1
        found = search(_engine(kind), 10, values=VALUES, store=store).run()
        assert _lasting(found) == expected, after
        assert store.repeats == [], after
