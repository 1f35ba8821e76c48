"""The seam between the tool and whatever runs a model: engines and executables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from topsideas.plan import PrecisionPlan

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class OpRecord:
    """What one executed op read and wrote in a traced run.

    Attributes:
        id: The op's id. An op in a loop body gives a record per iteration.
        outputs: Its outputs as stored, without the empty ones.
        raw: For a low op, each output before it was rounded; None where it does not round.
            Empty for ops that do not run low.
        slot_inputs: For a candidate op, the inputs that it rounds when it runs low, as they were
            stored.
    """

    id: int
    outputs: tuple[Any, ...]
    raw: tuple[np.ndarray | None, ...] = ()
    slot_inputs: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who produced a result. Everything in it goes into cache keys and reports.

    Attributes:
        name: The engine's name in the registry.
        version: The version of what computes.
        device: What it computes on.
        evidence: ``emulated``, or ``measured`` on a device.
        options: Whatever else changes results.
    """

    name: str
    version: str
    device: str
    evidence: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            "name": self.name,
            "version": self.version,
            "device": self.device,
            "evidence": self.evidence,
            **self.options,
        }


class Trace(Protocol):
    """A run that is watched. Iterating it runs the model and may raise EngineError."""

    outputs: dict[str, Any]
    """The model's outputs by name, once the iteration has ended."""

    def __iter__(self) -> Iterator[OpRecord]:
        """A record per executed op, in order."""
        ...


class Runnable(Protocol):
    """Anything that computes a model's outputs."""

    def run(self, feeds: Arrays) -> dict[str, Any]:
        """The outputs by name. Raises EngineError."""
        ...


class Executable(Runnable, Protocol):
    """A model compiled under a plan."""

    def trace(self, feeds: Arrays) -> Trace:
        """A run that shows what each op read and wrote; it happens while it is iterated."""
        ...

    def save(self, path: Path) -> None:
        """Write the compiled artefact."""
        ...

    def dump(self, path: Path) -> None:
        """Write a readable listing of the compiled graph."""
        ...


@runtime_checkable
class SecondOpinion(Protocol):
    """An executable that can be run in other ways than its own."""

    def second_opinion(self) -> Runnable:
        """The same plan, executed by other means. Raises EngineError."""
        ...

    def fused(self) -> Runnable:
        """The same plan on a target that rounds as little as fusion allows. Raises EngineError."""
        ...


@runtime_checkable
class Once(Protocol):
    """An executable that can be prepared for one plan alone, with nothing kept for others."""

    def once(self) -> Runnable:
        """The same plan, bit-equal to :meth:`Executable.run`. Raises EngineError."""
        ...


@runtime_checkable
class Blocks(Protocol):
    """An engine that runs a model in blocks, each again only if something before it changed."""

    def blocks(self) -> Sequence[frozenset[int]]:
        """The candidate ops of each block, in execution order; no op is in two of them."""
        ...


@runtime_checkable
class Timed(Protocol):
    """An engine that measures how long ops take."""

    def times(self, feeds: Arrays) -> Mapping[int, tuple[float, float]]:
        """The seconds of each op in fp32 and in the low precision, in one run of a sample.

        The executions of an op in a loop add up. Ops that cannot be told apart from their
        neighbours are left out. Raises EngineError.
        """
        ...


class Engine(Protocol):
    """Compiles one model under any plan."""

    def identity(self) -> Identity:
        """Who computes, for reports and cache keys."""
        ...

    def compile(self, plan: PrecisionPlan) -> Executable:
        """Compile the model; every candidate op outside the plan runs low. Raises EngineError."""
        ...
