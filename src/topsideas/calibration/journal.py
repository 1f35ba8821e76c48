"""What a run writes down the moment it knows it, so that the next run need not ask again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

from topsideas.verdict import Verdict


class Store(Protocol):
    """Keeps JSON values by kind and key."""

    def get(self, kind: str, key: str) -> Any | None:
        """The value, or None if it is not known."""
        ...

    def put(self, kind: str, key: str, value: Any) -> None:
        """Keep a value."""
        ...


class MemoryStore:
    """A store for the length of a process, where there is no workspace."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], Any] = {}

    def get(self, kind: str, key: str) -> Any | None:
        """The value, or None if it is not known."""
        return self._values.get((kind, key))

    def put(self, kind: str, key: str, value: Any) -> None:
        """Keep a value."""
        self._values[kind, key] = value


# What depends on the rule of pass and fail; the rest is shared by runs with other tolerances.
_RULED = {
    "verdict",
    "strict",
    "margin",
    "confirm",
    "full",
    "nearby",
    "differ",
    "compared",
    "evidence",
    "repairs",
}


class Journal:
    """Verdicts and measurements of one problem.

    Args:
        store: Where they are kept.
        problem: Everything that a measurement depends on but its own key: model, samples,
            engine, numerics, tool version.
        rule: What a verdict depends on besides: the criterion. Both are JSON values.
    """

    def __init__(self, store: Store, problem: Mapping[str, Any], rule: Mapping[str, Any]) -> None:
        self._store = store
        self._problem = dict(problem)
        self._rule = dict(rule)
        # Once, as it lists every sample: with 10,000 of them each key took 15 ms.
        self._about = _sha256(self._problem)

    def verdict(self, kept: frozenset[int], *, strict: bool = False) -> Verdict | None:
        """The verdict on a plan, if an earlier run knew it.

        Args:
            kept: The plan.
            strict: Whether two executions had to agree.
        """
        known = self.recall("strict" if strict else "verdict", sorted(kept))
        return Verdict.from_json(known) if known is not None else None

    def record_verdict(
        self, kept: frozenset[int], verdict: Verdict, *, strict: bool = False
    ) -> None:
        """Write a verdict down; see :meth:`verdict`."""
        self.record("strict" if strict else "verdict", sorted(kept), verdict.to_json())

    def nearby(self) -> frozenset[int]:
        """The latest answer of a search with another rule, to begin from; empty if none is known.

        It stays the same for all runs with one rule, so that each goes the way of the first.
        """
        known = self.recall("nearby", None)
        if known is None:
            latest = self.recall("answer", None) or {"rule": self._rule, "kept": []}
            known = [] if latest["rule"] == self._rule else latest["kept"]
            self.record("nearby", None, known)
        return frozenset(known)

    def record_answer(self, kept: frozenset[int]) -> None:
        """Write down what a search ended with; see :meth:`nearby`."""
        self.record("answer", None, {"rule": self._rule, "kept": sorted(kept)})

    def recall(self, kind: str, key: Any) -> Any | None:
        """A measurement, if an earlier run knew it."""
        return self._store.get(kind, self.key(kind, key))

    def record(self, kind: str, key: Any, value: Any) -> None:
        """Write a measurement down."""
        self._store.put(kind, self.key(kind, key), value)

    def of(self, more: Mapping[str, Any], rule: Mapping[str, Any]) -> Journal:
        """The journal of a problem that differs in ``more`` and in its rule."""
        return Journal(self._store, {**self._problem, **more}, rule)

    def key(self, kind: str, key: Any) -> str:
        """The name under which a store keeps something of this problem."""
        rule = self._rule if kind in _RULED else None
        return _sha256([self._about, rule, kind, key])


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
