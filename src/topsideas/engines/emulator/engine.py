"""The ``emulator`` engine: the numerics of the design, on any machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from topsideas.engines.base import Arrays, Capabilities, Identity, Probe, Runnable
from topsideas.engines.emulator import runtime
from topsideas.engines.emulator.compiled import Compiler
from topsideas.engines.emulator.composed import Composer
from topsideas.engines.emulator.executor import Executor
from topsideas.engines.emulator.kernels import SingleOps
from topsideas.engines.emulator.memory import Room, default_limit, shares
from topsideas.engines.emulator.plans import EmulatedPlans
from topsideas.engines.emulator.segments import segments
from topsideas.engines.emulator.selftest import check_runtime
from topsideas.engines.emulator.sessions import MAX_BYTES, Sessions
from topsideas.engines.emulator.steps import compile_block
from topsideas.engines.emulator.tracer import Tracer
from topsideas.engines.emulator.whole import STAMP, WholeModel, open_plan
from topsideas.engines.options import EngineOptions
from topsideas.errors import EngineError
from topsideas.graph.emulation import check_expressible, emulated
from topsideas.graph.equivalence import Equivalence
from topsideas.graph.loading import Model
from topsideas.graph.switched import draws, switched
from topsideas.plan import PrecisionPlan
from topsideas.precision import Accumulation, Numerics, Subnormals

# Plans for a single use that stay open.
_ONCE = 2


class EmulatorEngine:
    """Runs plans on ONNX Runtime's fp32 kernels with explicit rounding.

    Args:
        model: The model.
        numerics: What rounding the target does.
        threads: How many samples the caller may run side by side. One op always runs on one
            thread, since kernels that split a sum over threads change its last bits.
        memory_limit: Bytes of weights and of intermediate tensors to hold; a third of RAM if
            None. What does not fit is opened, or computed, again.

    Raises:
        EngineError: The installed runtime does not honour casts, or the model's opset cannot
            express them.
    """

    def __init__(
        self,
        model: Model,
        numerics: Numerics,
        *,
        threads: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        check_expressible(model.opset, numerics)
        check_runtime(numerics)
        self._model = model
        self._numerics = numerics
        self.threads = threads or runtime.default_threads()
        self._slots = {op.id: op.slots for op in model.ops if op.candidate}
        self._block = compile_block(model.graph, self._slots)
        self._shares = shares(memory_limit or default_limit(), model.graph)
        self._room = Room(tight=self._shares.tight)
        limit = min(MAX_BYTES, self._shares.sessions)
        self._sessions = Sessions(model.graph_model, self._slots, numerics, limit, self._room)
        self._compiler = self._new_compiler()
        self._building = Lock()
        self._built: Executor | None = None
        self._composer: Composer | None = None
        self._once: dict[frozenset[int], Runnable] = {}
        self.plans = EmulatedPlans(self._stamped, self.spare_compiler)
        self._passes = 0

    @property
    def _executor(self) -> Executor:
        """Made when first needed: a model that passes in low precision never needs it."""
        with self._building:
            if self._built is None:
                whole = switched(self._model.graph_model, self._slots, self._numerics)
                cut = segments(whole, self._shares.sessions)
                self._built = Executor(whole.graph, cut, self._compiler, self._shares.tensors)
                if Composer.suits(whole.graph, cut):
                    model = self._model.graph_model
                    self._composer = Composer(
                        whole.graph, cut, model.opset_imports, model.ir_version
                    )
            return self._built

    def forget(self) -> None:
        """Drop what is remembered of the plans that were run, as if none had been."""
        self._executor.forget()

    def spare_compiler(self, *, fused: bool) -> Compiler:
        """Another compiler; where memory is tight, only one at a time has sessions open."""
        return self._new_compiler(fused=fused)

    def opened_once(self, executable: EmulatorExecutable) -> Runnable:
        """What runs a plan for a single use.

        All low and all kept are asked for twice by every search, with the other one in between:
        where memory is not tight these two stay open. Not where an op draws numbers: a session
        draws others when it runs again, a new one draws the same.
        """
        known = self._once.get(executable.low)
        if known is not None:
            return known
        opened = self.plans.open(executable.low, fused=False)
        if not self._shares.tight and not any(map(draws, self._model.graph)):
            self._once = dict([*self._once.items(), (executable.low, opened)][-_ONCE:])
        return opened

    def opened_fused(self, low: frozenset[int]) -> Runnable:
        """What runs a plan with fp32 fusions."""
        if self._composer is None:  # nothing has been searched yet, or it does not suit the model
            return self.plans.open(low, fused=True)
        return WholeModel.of(*self._composer.serialise(low), fused=True)

    def _new_compiler(self, *, fused: bool = False) -> Compiler:
        model, limit = self._model.graph_model, self._shares.sessions
        opsets = model.opset_imports
        return Compiler(opsets, model.ir_version, limit, fused=fused, room=self._room)

    def identity(self) -> Identity:
        """The emulator on this ONNX Runtime, with its numerics."""
        return Identity(
            name="emulator",
            version=f"onnxruntime {ort.__version__}",
            device="CPU",
            evidence="emulated",
            options=self._numerics.to_json(),
        )

    def capabilities(self) -> Capabilities:
        """Everything: it is the definition."""
        return Capabilities(opinions=True)

    def load(self, path: Path) -> WholeModel:
        """Open an executable that was saved. Raises EngineError."""
        return WholeModel.load(path)

    def compile(self, plan: PrecisionPlan) -> EmulatorExecutable:
        """An executable of ``plan``; nothing is built until it runs."""
        return EmulatorExecutable(self, plan.low(self._model.candidates))

    def canonical(self, plan: PrecisionPlan) -> PrecisionPlan:
        """The plan with every op low that may be without changing an output; see `graph`."""
        candidates = self._model.candidates
        return PrecisionPlan(candidates - self._same.largest(plan.low(candidates)))

    def run_op(self, op: int, values: Arrays) -> list[np.ndarray] | None:
        """See :class:`topsideas.engines.base.OpByOp`."""
        return self._single_ops.run(op, values)

    def disturbed(self, feeds: Arrays, errors: Arrays) -> dict[str, Any]:
        """See :class:`topsideas.engines.base.OpByOp`."""
        return self._single_ops.disturbed(feeds, errors)

    @cached_property
    def _single_ops(self) -> SingleOps:
        model, rooms = self._model.graph_model, self.spare_compiler
        return SingleOps(model, self._slots, self._numerics, rooms)

    @cached_property
    def _same(self) -> Equivalence:
        return Equivalence(self._model.graph_model, self._slots, self._numerics)

    def blocks(self) -> list[frozenset[int]]:
        """The candidate ops of each segment."""
        return [segment.ops for segment in self._executor.segments]

    @property
    def work(self) -> float:
        """Node executions so far, in full passes over the model."""
        runs, nodes = (self._built.node_runs, self._built.nodes) if self._built else (0, 1)
        return self._passes + runs / max(1, nodes)

    def count_pass(self) -> None:
        """Count a run of the whole model."""
        with self._building:
            self._passes += 1

    def whole(self, low: frozenset[int], *, between: bool = True) -> ir.Model:
        """The whole model under a plan as one float32 model with explicit roundings.

        Args:
            low: The ops that run low.
            between: Whether they round what they hand to each other.
        """
        model, numerics = self._model.graph_model, self._numerics
        return emulated(model, low, self._slots, numerics, between=between)

    def _stamped(self, low: frozenset[int]) -> ir.Model:
        model = self.whole(low)
        model.metadata_props[STAMP] = json.dumps(self._numerics.to_json())
        return model


@dataclass(frozen=True)
class EmulatorExecutable:
    """One plan on the emulator."""

    engine: EmulatorEngine
    low: frozenset[int]

    def run(self, feeds: Arrays) -> dict[str, np.ndarray]:
        """The outputs by name. Raises EngineError."""
        return self.engine._executor.run(self.low, feeds)

    def trace(self, feeds: Arrays) -> Tracer:
        """A run that shows what each op read and wrote; it happens while it is iterated."""
        return Tracer(self.engine._block, self.engine._sessions, self.low, feeds)

    def save(self, path: Path) -> None:
        """Write the emulated model: float32 ONNX with explicit roundings, runs anywhere."""
        self.engine.plans.save(self.low, path)

    def dump(self, path: Path) -> None:
        """Write the emulated graph as ONNX text, weights elided."""
        path.write_text(self.engine.plans.listing(self.low), encoding="utf-8")

    def second_opinion(self) -> Runnable:
        """The plan as one graph with fp32 fusions: a second opinion on the same definition.

        It shares no executor with :meth:`run`, and its fp32 parts differ in the last bits, as
        those of any other machine do. An answer that holds only without them is not robust.
        """
        return _Counted(self.engine.opened_fused(self.low), self.engine)

    def fused(self) -> Runnable:
        """The plan where low ops do not round between each other: a target that fuses them.

        Real targets lie between this and :meth:`run`; an answer with room for them holds in both.
        """
        whole = self.engine.whole(self.low, between=False)
        return _Counted(open_plan(whole, self.engine.spare_compiler, fused=True), self.engine)

    def once(self) -> Runnable:
        """The plan for a single use: bit-equal to :meth:`run`, nothing is remembered."""
        return _Counted(self.engine.opened_once(self), self.engine)

    def freeze(self) -> WholeModel:
        """The plan as one session whose outputs equal those of :meth:`run` bit for bit."""
        return self.engine.plans.freeze(self.low)


@dataclass(frozen=True)
class _Counted:
    """Counts each run as a pass of the engine."""

    runnable: Runnable
    engine: EmulatorEngine

    def run(self, feeds: Arrays) -> dict[str, Any]:
        self.engine.count_pass()
        return self.runnable.run(feeds)


def probe(options: EngineOptions) -> Probe:
    """The emulator on this ONNX Runtime, if that honours casts."""
    try:
        check_runtime(options.numerics)
    except EngineError as error:
        return Probe(remedy=str(error))
    low = {"fp16": "", "bf16": ""}
    return Probe(f"onnxruntime {ort.__version__}", "CPU", "emulated", low)


def open_emulator(model: Model, options: EngineOptions) -> EmulatorEngine:
    """Open the emulator; its compile options are ``subnormals`` and ``accumulation``.

    Raises:
        EngineError: An option is unknown, or the model or the runtime does not fit.
    """
    return EmulatorEngine(
        model,
        emulator_numerics(options),
        threads=options.threads,
        memory_limit=options.memory_limit,
    )


def emulator_numerics(options: EngineOptions) -> Numerics:
    """The numerics with the emulator's own compile options applied. Raises EngineError."""
    # A resource mode distributes work over a card: it changes no value that is emulated.
    own = {k: v for k, v in options.merged().items() if k != "resource_mode"}
    unknown = sorted(own.keys() - {"subnormals", "accumulation"})
    if unknown:
        raise EngineError(
            f"compile option {unknown[0]!r} is unknown to the emulator; expected subnormals, "
            "accumulation or resource_mode"
        )
    return replace(
        options.numerics,
        subnormals=_member(Subnormals, "subnormals", own),
        accumulation=_member(Accumulation, "accumulation", own),
    )


_Choice = TypeVar("_Choice", bound=Enum)


def _member(kind: type[_Choice], name: str, own: Mapping[str, Any]) -> _Choice:
    """The option's value as a member of ``kind``; its first member where it is not given."""
    allowed = {member.value: member for member in kind}
    value = own.get(name, next(iter(allowed)))
    if not isinstance(value, str) or value not in allowed:
        raise EngineError(f"compile option {name!r} is {value!r}; expected one of {list(allowed)}")
    return allowed[value]
