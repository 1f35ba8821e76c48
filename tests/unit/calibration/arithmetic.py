"""An engine without arithmetic: each low op adds a known error to the one output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from topsideas.calibration.auto import AutoSearch
from topsideas.calibration.journal import Journal, MemoryStore, Store
from topsideas.calibration.progress import Progress, Silent
from topsideas.calibration.references import References
from topsideas.calibration.settings import Settings
from topsideas.engines.base import Arrays, Capabilities, Identity, OpRecord
from topsideas.plan import PrecisionPlan
from topsideas.precision import FP16
from topsideas.samples.sample import Sample
from topsideas.stats.criteria import Tolerance

Kept = frozenset[int]
ONE = Tolerance(rtol=0.0, atol=1.0)  # so that the margin is the error
GOLDEN = np.zeros(1, np.float32)


def additive(errors: Sequence[float]) -> Callable[[Kept, float], float]:
    """The error is the sum over the ops that are not kept, times the sample's factor."""
    return lambda kept, factor: factor * sum(e for i, e in enumerate(errors) if i not in kept)


@dataclass
class Engine:
    """Gives an error for a plan and a sample.

    Attributes:
        error: ``(kept, x) -> error``, where ``x`` is what the sample holds; may raise.
        large: Ops whose fp32 output is beyond fp16, on samples from this value on.
        runs: Every plan that was run, with the sample's value.
    """

    error: Callable[[Kept, float], float]
    large: Mapping[int, float] = field(default_factory=dict)
    runs: list[tuple[Kept, float]] = field(default_factory=list)

    def identity(self) -> Identity:
        return Identity("arithmetic", "1", "none", "emulated")

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def load(self, path: Path) -> Any:
        raise NotImplementedError

    def compile(self, plan: PrecisionPlan) -> Any:
        return Executable(self, plan.kept)


@dataclass
class Executable:
    engine: Engine
    kept: Kept

    def run(self, feeds: Arrays) -> dict[str, Any]:
        x = float(feeds["x"][0])
        self.engine.runs.append((self.kept, x))
        return {"y": np.array([self.engine.error(self.kept, x)], np.float32)}

    def trace(self, feeds: Arrays) -> Any:
        return Trace(self.engine, float(feeds["x"][0]))

    def save(self, path: Path) -> None:
        raise NotImplementedError

    def dump(self, path: Path) -> None:
        raise NotImplementedError


@dataclass
class Trace:
    engine: Engine
    x: float
    outputs: dict[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[OpRecord]:
        for op, least in self.engine.large.items():
            value = 1e5 if self.x >= least else 1.0
            yield OpRecord(op, outputs=(np.array([value], np.float32),))


class TwoMinds(Engine):
    """An engine whose second execution has its own errors."""

    def __init__(
        self,
        error: Callable[[Kept, float], float],
        second: Callable[[Kept, float], float],
    ) -> None:
        super().__init__(error)
        self.second = second

    def compile(self, plan: PrecisionPlan) -> Any:
        return Doubting(self, plan.kept)


class Doubting(Executable):
    def second_opinion(self) -> Executable:
        assert isinstance(self.engine, TwoMinds)
        return Executable(Engine(self.engine.second), self.kept)

    def fused(self) -> Executable:
        return self.second_opinion()


def samples(*values: float) -> list[Sample]:
    """Samples that hold one number each, with golden outputs of zero."""
    return [
        Sample(i, {"x": np.array([v], np.float32)}, {"y": GOLDEN}) for i, v in enumerate(values)
    ]


@dataclass(frozen=True)
class Fp32:
    """Runs a function, as what computes golden outputs that were not given."""

    run: Callable[[Any], Arrays]


def references(*values: float) -> References:
    return References(samples(*values), lambda: Fp32(lambda _: {"y": GOLDEN}))


def search(
    engine: Engine,
    count: int,
    *,
    settings: Settings | None = None,
    values: Sequence[float] = (1.0,),
    held: Sequence[float] = (),
    store: Store | None = None,
    progress: Progress | None = None,
) -> AutoSearch:
    """A search over ops 0 … count - 1."""
    chosen = settings or Settings(criterion=ONE)
    return AutoSearch(
        engine,
        frozenset(range(count)),
        FP16,
        references(*values),
        references(*held) if held else None,
        chosen,
        Journal(store or MemoryStore(), {"engine": "arithmetic"}, chosen.judging()),
        progress or Silent(),
    )
