"""An engine that computes nothing: a planted answer, and builds that take as long as wanted.

What is measured on it is the search and whatever runs it, not a model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from topsideas.calibration.auto import AutoSearch
from topsideas.calibration.journal import Journal, MemoryStore, Store
from topsideas.calibration.progress import Progress, Silent
from topsideas.calibration.references import References
from topsideas.calibration.result import SearchResult
from topsideas.calibration.settings import Settings
from topsideas.calibration.team import Team
from topsideas.engines.base import Arrays, Capabilities, Identity, Trace
from topsideas.errors import EngineError
from topsideas.executors.base import Executor, Seat
from topsideas.plan import PrecisionPlan
from topsideas.precision import FP16
from topsideas.samples.sample import Sample

Sleep = Callable[[float], None]
Margin = Callable[[frozenset[int]], float]

# The output and its golden value: zeros, where only the absolute tolerance counts.
_SIZE = 4


@dataclass(frozen=True)
class Needed:
    """The rule that some items are needed: a margin of 20 to 26 for each that is left out.

    Attributes:
        needed: The answer.
    """

    needed: frozenset[int]

    def __call__(self, kept: frozenset[int]) -> float:
        """The margin of a plan."""
        return sum(20.0 + item % 7 for item in self.needed - kept) or 0.5


@dataclass(frozen=True)
class NullEngine:
    """See the module.

    Attributes:
        count: How many items there are.
        margin: The rule: the margin of a plan, at most 1 if it passes.
        build: Seconds that a plan takes to build.
        run: Seconds that a run of a sample takes.
        sleep: How these pass.
    """

    count: int
    margin: Margin
    build: float = 0.0
    run: float = 0.0
    sleep: Sleep = time.sleep

    def __call__(self, seat: Seat) -> NullEngine:
        """Itself: what opens an engine for a worker."""
        return self

    def identity(self) -> Identity:
        """What everybody sees that this is not."""
        return Identity("null", "0", "none", "planted")

    def capabilities(self) -> Capabilities:
        """It shows nothing of single ops."""
        return Capabilities(traces=False, bodies=False, rounds_as_defined=False)

    def compile(self, plan: PrecisionPlan) -> NullExecutable:
        """A plan, built when it is first run."""
        return NullExecutable(self, plan.kept)

    def load(self, path: Path) -> NoReturn:
        """There is nothing to load."""
        raise EngineError(f"{path}: the null engine saves nothing")


class NullExecutable:
    """A plan."""

    def __init__(self, engine: NullEngine, kept: frozenset[int]) -> None:
        self._engine, self._kept = engine, kept
        self._built = False

    def run(self, feeds: Arrays) -> dict[str, Any]:
        """Outputs that miss zero by the plan's margin at the default tolerance."""
        if not self._built:
            self._engine.sleep(self._engine.build)
            self._built = True
        if self._engine.run:
            self._engine.sleep(self._engine.run)
        error = self._engine.margin(self._kept) * 1e-2 * float(feeds["x"].flat[0])
        return {"y": np.full(_SIZE, error)}

    def trace(self, feeds: Arrays) -> Trace:
        """It has no ops."""
        raise EngineError("the null engine traces nothing")

    def save(self, path: Path) -> None:
        """There is nothing to save."""
        raise EngineError(f"{path}: the null engine saves nothing")

    def dump(self, path: Path) -> None:
        """There is nothing to list."""
        raise EngineError(f"{path}: the null engine saves nothing")


def null_samples(weights: Sequence[float] = (1.0,)) -> list[Sample]:
    """Samples that scale a plan's margin by ``weights``; the golden outputs are zeros."""
    golden = {"y": np.zeros(_SIZE)}
    return [Sample(at, {"x": np.array([w])}, golden) for at, w in enumerate(weights)]


def null_search(
    engine: NullEngine,
    executor: Executor | None = None,
    *,
    weights: Sequence[float] = (1.0,),
    store: Store | None = None,
    progress: Progress | None = None,
    settings: Settings | None = None,
) -> SearchResult:
    """Search for a planted answer.

    Args:
        engine: Whose answer.
        executor: Starts the workers; this process searches alone if None.
        weights: Of the samples; one of them should be 1.
        store: Remembers verdicts between runs.
        progress: Is told what is being done.
        settings: The rule and the budget.
    """
    settings, progress = settings or Settings(), progress or Silent()
    candidates = frozenset(range(engine.count))
    references = References(
        null_samples(weights), lambda: engine.compile(PrecisionPlan(candidates))
    )
    journal = Journal(store or MemoryStore(), {}, settings.judging())
    asked = (engine, candidates, FP16, references, None, settings, journal, progress, None)
    if executor is None:
        return AutoSearch(*asked).run()
    team = Team(executor, engine)
    with team.dispatcher(candidates, settings, references, None, progress) as dispatcher:
        return AutoSearch(*asked, dispatcher).run()
