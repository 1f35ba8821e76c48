"""Measures what sets of ops do to the outputs when they alone run low."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from topsideas.calibration.journal import Journal
from topsideas.calibration.judge import Judge
from topsideas.calibration.pooled import PooledEngine
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
        self._unknown: set[int] = set()

    def watch(self, view: View) -> None:
        """Choose the probes of a view by what its failing plan does. Raises EngineError."""
        key = _key(view)
        known = self.journal.recall("watched", key)
        if known is None:
            asked = [(view.sample, self.candidates - view.kept), (view.sample, frozenset[int]())]
            low, fp32 = self._outputs(asked)
            if isinstance(fp32, EngineError):
                raise fp32
            # A plan that cannot run deviates everywhere.
            known = Probes.choose({} if isinstance(low, EngineError) else low, fp32).to_json()
            self.journal.record("watched", key, known)
        self._probes[view] = Probes.from_json(known)

    def variances(self, questions: Sequence[tuple[View, Items]]) -> Generator[np.ndarray]:
        """For each (view, ops that run low), the squared shares of the allowance at the probes.

        They come in the order of the questions while others are measured side by side.
        """
        known = [self.journal.recall("effect", _key(*question)) for question in questions]
        unknown = [q for q, text in zip(questions, known, strict=True) if text is None]
        with contextlib.closing(self._measurements(unknown)) as runs:
            for question, text in zip(questions, known, strict=True):
                self.check()
                values = (
                    self._keep(question, *next(runs))
                    if text is None
                    else decode(str(text), np.float32)
                )
                self._note_margin(*question)
                yield self._probes[question[0]].shares(values, self.criterion) ** 2

    def _measurements(
        self, questions: Sequence[tuple[View, Items]]
    ) -> Generator[tuple[np.ndarray, float]]:
        """Deviations and margin of each, in order, while others run side by side."""
        if isinstance(self.engine, PooledEngine):
            asked = [(view.sample, low) for view, low in questions]
            for (view, _), outputs in zip(questions, self._outputs(asked), strict=True):
                yield self._measured(view, outputs)
            return
        with ThreadPoolExecutor(self.threads) as pool:
            runs = [pool.submit(self._measure, question) for question in questions]
            try:
                yield from (run.result() for run in runs)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _measure(self, question: tuple[View, Items]) -> tuple[np.ndarray, float]:
        view, low = question
        return self._measured(view, self._run(view.sample, low))

    def _outputs(self, questions: Sequence[tuple[int, Items]]) -> Iterator[Arrays | EngineError]:
        if isinstance(self.engine, PooledEngine):
            return self.engine.outputs([(self.candidates - low, s) for s, low in questions])
        return (self._run(*question) for question in questions)

    def _measured(self, view: View, outputs: Arrays | EngineError) -> tuple[np.ndarray, float]:
        if isinstance(outputs, EngineError):
            return self._probes[view].deviations({}), np.inf
        return self._probes[view].deviations(outputs), self.judge.margin_of(outputs, view.sample)

    def _keep(self, question: tuple[View, Items], values: np.ndarray, margin: float) -> np.ndarray:
        view, low = question
        key = [view.sample, sorted(low)]
        # First, as with deviations on record nobody measures a margin that a kill kept back.
        if self.journal.recall("margin", key) is None:
            self.journal.record("margin", key, margin if np.isfinite(margin) else "inf")
        self.journal.record("effect", _key(view, low), encode(values))
        return values

    def _note_margin(self, view: View, low: Items) -> None:
        """Remember the margin of a single op, unless only its deviations were known of a sample.

        Without one of its samples, the worst of the others would be told as the worst of all.
        """
        if len(low) != 1:
            return
        op = next(iter(low))
        known = self.journal.recall("margin", [view.sample, sorted(low)])
        if known is None:
            self._unknown.add(op)
            self.margins.pop(op, None)
        elif op not in self._unknown:
            self.margins[op] = max(float(known), self.margins.get(op, 0.0))

    def _run(self, sample: int, low: Items) -> Arrays | EngineError:
        executable = self.engine.compile(PrecisionPlan(self.candidates - low))
        try:
            return executable.run(self.references.inputs(sample))
        except EngineError as error:
            return error


def _key(view: View, *low: Items) -> list[Any]:
    return [view.sample, sorted(view.kept), *map(sorted, low)]
