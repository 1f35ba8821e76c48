"""The seam between the tool and whatever runs a model: engines and executables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from topsideas.errors import EngineError
from topsideas.graph.ops import Op
from topsideas.plan import PrecisionPlan
from topsideas.verdict import Verdict

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
        stored_low: Whether the outputs were stored in the low format by an engine that does not
            show them unrounded: then what is at the end of the format's range was clipped.
    """

    id: int
    outputs: tuple[Any, ...]
    raw: tuple[np.ndarray | None, ...] = ()
    slot_inputs: tuple[Any, ...] = ()
    stored_low: bool = False


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


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an opened engine can do.

    Attributes:
        traces: Whether its executables can be traced.
        exact_trace: Whether a traced run gives the outputs of :meth:`Executable.run` bit for bit.
            Where tensors become outputs to be seen, a compiler fuses less, and it may not.
        bodies: Whether ops inside If, Loop and Scan are traced too.
        dynamic: Whether one executable runs on several input shapes.
        dear: Whether a search on it costs more than one on the emulator and a few builds.
        rounds_as_defined: Whether every low op rounds what it reads and writes. A compiler makes
            one kernel of several elementwise ops, and within it nothing is rounded.
        readable: Whether the executable tells in which precision each op really ran.
        counts: Whether the engine itself counts what CALC reports.
        finalizes: Whether a build for deployment is another than one for comparisons.
        opinions: Whether its executables can be run in other ways: see :class:`SecondOpinion`.
    """

    traces: bool = True
    exact_trace: bool = True
    bodies: bool = True
    dynamic: bool = True
    dear: bool = False
    rounds_as_defined: bool = True
    readable: bool = False
    counts: bool = False
    finalizes: bool = False
    opinions: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """What an engine is on this machine, found without a model.

    Attributes:
        version: Of what computes; empty if it cannot be imported.
        device: What it computes on.
        evidence: ``emulated`` or ``measured``.
        low: For each low format, why it is no evidence here; empty text where it is.
        remedy: What to do where it cannot run at all; empty where it can.
    """

    version: str = ""
    device: str = ""
    evidence: str = "measured"
    low: Mapping[str, str] = field(default_factory=dict)
    remedy: str = ""

    def refusal(self, precision: str) -> str:
        """Why low ops of this format are no evidence here; empty where they are."""
        return self.remedy or self.low.get(precision, f"it does not know {precision}")


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
class Canonical(Protocol):
    """An engine that knows which plans compute the same."""

    def canonical(self, plan: PrecisionPlan) -> PrecisionPlan:
        """The plan that stands for all that give the same outputs as this one."""
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
class Sharded(Protocol):
    """A runnable whose runs are made elsewhere, by workers that hold the samples."""

    def verdicts(
        self, samples: Sequence[int], bound: float, *, every: bool = False, repeats: int = 1
    ) -> Iterator[Verdict]:
        """The verdict on each sample, in order. Whoever stops iterating stops the workers.

        Args:
            samples: Their ids.
            bound: The largest margin that passes.
            every: All are wanted; otherwise none behind one that fails.
            repeats: How often each is run; the worst counts.
        """
        ...

    def outputs(self, samples: Sequence[int]) -> Iterator[dict[str, Any] | EngineError]:
        """The outputs for each sample, in order, or why there are none."""
        ...


@runtime_checkable
class Once(Protocol):
    """An executable that can be prepared for one plan alone, with nothing kept for others."""

    def once(self) -> Runnable:
        """The same plan, bit-equal to :meth:`Executable.run`. Raises EngineError."""
        ...


@runtime_checkable
class Readback(Protocol):
    """An executable that tells what the engine really did."""

    def differing(self, feeds: Arrays) -> Mapping[int, str]:
        """Ops that run in another precision than the plan's on a sample, each with which.

        Raises EngineError.
        """
        ...


@runtime_checkable
class Doubts(Protocol):
    """An executable that cannot tell what the engine did, but can tell what looks wrong."""

    def doubts(self, feeds: Arrays) -> list[str]:
        """Lines that the user should read; none as a rule. Raises EngineError."""
        ...


@runtime_checkable
class Kernels(Protocol):
    """An executable that tells which ops the engine fused."""

    def kernels(self, feeds: Arrays) -> Sequence[tuple[int, ...]] | None:
        """The ops of each kernel; None where it cannot tell after all. Raises EngineError."""
        ...


@runtime_checkable
class OwnStatistics(Protocol):
    """An executable whose engine counts by itself what CALC reports."""

    def statistics(
        self, feeds: Arrays, le: float, ge: float
    ) -> tuple[Mapping[int, Mapping[str, Any]], dict[str, Any]] | None:
        """By op id ``{"outputs": [fields…]}`` without a prefix, and the model's outputs.

        None where it does not count after all. Raises EngineError.

        Args:
            feeds: The inputs.
            le: Elements of at most this magnitude are counted.
            ge: Elements of at least this magnitude are counted.

        """
        ...


@runtime_checkable
class OwnOps(Protocol):
    """An engine that numbers the ops of its own compiled graph, which plans are then made of."""

    def ops(self) -> tuple[Op, ...]:
        """Its ops, in id order. Raises EngineError."""
        ...


@runtime_checkable
class Finalizes(Protocol):
    """An engine that builds for deployment in another way than for comparisons."""

    def finalize(self, plan: PrecisionPlan) -> Executable:
        """An executable of ``plan`` without what makes builds comparable op by op."""
        ...


@runtime_checkable
class Latency(Protocol):
    """An executable that measures its own latency."""

    def latency(self, feeds: Arrays, repeats: int) -> float | None:
        """Median seconds of one run over ``repeats`` runs; None where it cannot measure.

        Raises EngineError.
        """
        ...


@runtime_checkable
class OpByOp(Protocol):
    """An engine that runs single ops, and shows what an error at an op does to the outputs."""

    def run_op(self, op: int, values: Arrays) -> Sequence[np.ndarray] | None:
        """What a top-level op that runs low writes, without empty outputs.

        Args:
            op: Its id.
            values: What the values hold that it may read, by name.

        Returns:
            Its outputs; None if it is in a body, or reads something else.

        Raises:
            EngineError: It fails.
        """
        ...

    def disturbed(self, feeds: Arrays, errors: Arrays) -> dict[str, Any]:
        """The model's outputs in fp32 with errors added to some values.

        Args:
            feeds: The inputs.
            errors: What is added, by the name of a float32 value that a top-level op writes.

        Raises:
            EngineError: It fails.
        """
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

    def capabilities(self) -> Capabilities:
        """What can be asked of it."""
        ...

    def compile(self, plan: PrecisionPlan) -> Executable:
        """Compile the model; every candidate op outside the plan runs low. Raises EngineError."""
        ...

    def load(self, path: Path) -> Runnable:
        """Open what :meth:`Executable.save` wrote. Raises EngineError."""
        ...


def finalized(engine: Engine, plan: PrecisionPlan) -> Executable:
    """The executable to deploy. Raises EngineError."""
    return engine.finalize(plan) if isinstance(engine, Finalizes) else engine.compile(plan)
