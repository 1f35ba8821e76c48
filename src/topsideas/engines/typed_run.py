"""What engines that compile typed models share: executables that are built once, and traces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from topsideas.engines.base import Arrays, OpRecord, Trace
from topsideas.engines.feeds import checked_feeds, in_order
from topsideas.engines.lazily import Lazily
from topsideas.engines.typed import TypedModel, records
from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan


class Runner(Protocol):
    """A typed model that a runtime has compiled."""

    def run(self, feeds: Arrays) -> dict[str, Any]:
        """The user's outputs by name. Raises EngineError."""
        ...

    def fetch(self, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Every output by name, of inputs that were checked. Raises EngineError."""
        ...

    def latency(self, feeds: Arrays, repeats: int) -> float:
        """Median seconds of one run. Raises EngineError."""
        ...


R_co = TypeVar("R_co", bound=Runner, covariant=True)


@dataclass(frozen=True)
class Built(Generic[R_co]):
    """A typed model and what a runtime made of it."""

    typed: TypedModel
    runner: R_co


class Compiles(Protocol[R_co]):
    """An engine that compiles typed models."""

    @property
    def model(self) -> Model:
        """The user's model."""
        ...

    def build(self, plan: PrecisionPlan, *, traced: bool) -> Built[R_co]:
        """Convert and compile. Raises EngineError."""
        ...


class TypedExecutable(Generic[R_co]):
    """One plan; it is built when it is first used, so that a build that fails is a verdict.

    Args:
        engine: Compiles it.
        plan: The plan.
    """

    def __init__(self, engine: Compiles[R_co], plan: PrecisionPlan) -> None:
        self._engine = engine
        self._build = Lazily(lambda: engine.build(plan, traced=False))
        self._watch = Lazily(lambda: engine.build(plan, traced=True))

    @property
    def built(self) -> Built[R_co]:
        """The build. Raises EngineError."""
        return self._build()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the converter had to say."""
        return self.built.typed.warnings

    def prepare(self) -> None:
        """Build now. Raises EngineError."""
        self._build()

    def run(self, feeds: Arrays) -> dict[str, Any]:
        """The outputs by name. Raises EngineError."""
        return self.built.runner.run(feeds)

    def latency(self, feeds: Arrays, repeats: int) -> float:
        """Median seconds of one run. Raises EngineError."""
        return self.built.runner.latency(feeds, repeats)

    def trace(self, feeds: Arrays) -> Trace:
        """A run of another build, in which every top-level tensor is an output."""
        return _Trace(self._engine.model, self._watch, feeds)


class _Trace:
    """A traced run; it happens while it is iterated."""

    def __init__(self, model: Model, watch: Lazily[Built[Any]], feeds: Arrays) -> None:
        self._model, self._watch, self._feeds = model, watch, feeds
        self.outputs: dict[str, Any] = {}

    def __iter__(self) -> Iterator[OpRecord]:
        watched, feeds = self._watch(), checked_feeds(self._model, self._feeds)
        fetched = watched.runner.fetch(feeds)
        yield from records(self._model, watched.typed, feeds, fetched)
        self.outputs = in_order(self._model, fetched)
