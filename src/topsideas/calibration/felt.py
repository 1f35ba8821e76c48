"""Measures what sets of ops do to the outputs when they alone run low."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

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
        self._probes: dict[int, Probes] = {}

    def watch(self, sample: int, kept: Items) -> None:
        """Choose the probes of a sample by what a failing plan does to it. Raises EngineError."""
        known = self.journal.recall("probes", sample)
        if known is None:
            chosen = Probes.choose(self._failing(kept, sample), self._run(frozenset(), sample))
            known = chosen.to_json()
            self.journal.record("probes", sample, known)
        self._probes[sample] = Probes.from_json(known)

    def _failing(self, kept: Items, sample: int) -> Arrays:
        try:
            return self._run(self.candidates - kept, sample)
        except EngineError:
            return {}  # a plan that cannot run deviates everywhere

    def variances(self, questions: Sequence[tuple[int, Items]]) -> Iterator[np.ndarray]:
        """For each (sample, ops that run low), the squared shares of the allowance at the probes.

        They come in the order of the questions while others are measured side by side.
        """
        known = [self.journal.recall("felt", [s, sorted(low)]) for s, low in questions]
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

    def _measure(self, question: tuple[int, Items]) -> tuple[np.ndarray, float]:
        sample, low = question
        try:
            outputs = self._run(low, sample)
        except EngineError:
            return self._probes[sample].deviations({}), np.inf
        return self._probes[sample].deviations(outputs), self.judge.margin_of(outputs, sample)

    def _keep(self, question: tuple[int, Items], values: np.ndarray, margin: float) -> np.ndarray:
        key = [question[0], sorted(question[1])]
        # First, as with deviations on record nobody measures a margin that a kill kept back.
        if self.journal.recall("margin", key) is None:
            self.journal.record("margin", key, margin if np.isfinite(margin) else "inf")
        self.journal.record("felt", key, encode(values))
        return values

    def _note_margin(self, sample: int, low: Items) -> None:
        """Remember the margin of a single op, unless only its deviations were known."""
        known = self.journal.recall("margin", [sample, sorted(low)])
        if len(low) == 1 and known is not None:
            op = next(iter(low))
            self.margins[op] = max(float(known), self.margins.get(op, 0.0))

    def _run(self, low: Items, sample: int) -> Arrays:
        executable = self.engine.compile(PrecisionPlan(self.candidates - low))
        return executable.run(self.references.inputs(sample))
