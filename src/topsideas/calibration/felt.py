"""Measures what sets of ops do to the outputs when they alone run low."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from topsideas.calibration.journal import Journal
from topsideas.calibration.judge import Judge
from topsideas.calibration.references import Arrays, References
from topsideas.engines.base import Engine
from topsideas.errors import EngineError
from topsideas.plan import PrecisionPlan
from topsideas.stats.criteria import Criterion
from topsideas.stats.probes import Probes, decode, encode

Items = frozenset[int]


@dataclass(frozen=True)
class View:
    """Where effects are watched.

    Attributes:
        sample: The sample.
        kept: The failing plan whose worst elements are the probes.
    """

    sample: int
    kept: Items


@dataclass
class Felt:
    """Effects of ops, watched at probes, and remembered in the journal.

    Args:
        engine: Runs plans.
        candidates: The ops that may run low.
        references: The samples.
        judge: Gives margins.
        journal: Remembers deviations, which do not depend on the tolerance.
        criterion: What deviations are measured against.
        threads: How many runs are made side by side.
        check: Called between runs; may raise to stop.

    Attributes:
        margins: The worst margin measured of each op alone, over the samples it was measured on.
    """

    engine: Engine
    candidates: Items
    references: References
    judge: Judge
    journal: Journal
    criterion: Criterion
    threads: int
    check: Callable[[], None]
    margins: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._probes: dict[View, Probes] = {}

    def watch(self, view: View) -> None:
        """Choose the probes of a view by what its failing plan does. Raises EngineError."""
        key = _key(view)
        known = self.journal.recall("probes", key)
        if known is None:
            failing = self._failing(view.kept, view.sample)
            known = Probes.choose(failing, self._run(frozenset(), view.sample)).to_json()
            self.journal.record("probes", key, known)
        self._probes[view] = Probes.from_json(known)

    def _failing(self, kept: Items, sample: int) -> Arrays:
        try:
            return self._run(self.candidates - kept, sample)
        except EngineError:
            return {}  # a plan that cannot run deviates everywhere

    def variances(self, questions: Sequence[tuple[View, Items]]) -> Iterator[np.ndarray]:
        """For each (view, ops that run low), the squared shares of the allowance at the probes.

        They come in the order of the questions while others are measured side by side.
        """
        known = [self.journal.recall("felt", _key(*question)) for question in questions]
        with ThreadPoolExecutor(self.threads) as pool:
            runs = [
                None if text is not None else pool.submit(self._measure, question)
                for question, text in zip(questions, known, strict=True)
            ]
            try:
                for question, text, run in zip(questions, known, runs, strict=True):
                    self.check()
                    values = (
                        self._keep(question, *run.result())
                        if run
                        else decode(str(text), np.float32)
                    )
                    self._note_margin(*question)
                    yield self._probes[question[0]].shares(values, self.criterion) ** 2
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _measure(self, question: tuple[View, Items]) -> tuple[np.ndarray, float]:
        view, low = question
        try:
            outputs = self._run(low, view.sample)
        except EngineError:
            return self._probes[view].deviations({}), np.inf
        return self._probes[view].deviations(outputs), self.judge.margin_of(outputs, view.sample)

    def _keep(self, question: tuple[View, Items], values: np.ndarray, margin: float) -> np.ndarray:
        view, low = question
        key = [view.sample, sorted(low)]
        # First, as with deviations on record nobody measures a margin that a kill kept back.
        if self.journal.recall("margin", key) is None:
            self.journal.record("margin", key, margin if np.isfinite(margin) else "inf")
        self.journal.record("felt", _key(view, low), encode(values))
        return values

    def _note_margin(self, view: View, low: Items) -> None:
        """Remember the margin of a single op, unless only its deviations were known."""
        known = self.journal.recall("margin", [view.sample, sorted(low)])
        if len(low) == 1 and known is not None:
            op = next(iter(low))
            self.margins[op] = max(float(known), self.margins.get(op, 0.0))

    def _run(self, low: Items, sample: int) -> Arrays:
        executable = self.engine.compile(PrecisionPlan(self.candidates - low))
        return executable.run(self.references.inputs(sample))


def _key(view: View, *low: Items) -> list[Any]:
    return [view.sample, sorted(view.kept), *map(sorted, low)]
