"""The ``emulator`` engine: the numerics of the design, on any machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from topsideas.engines.base import Arrays, Identity
from topsideas.engines.emulator import runtime
from topsideas.engines.emulator.executor import Executor
from topsideas.engines.emulator.selftest import check_runtime
from topsideas.engines.emulator.sessions import Sessions
from topsideas.engines.emulator.steps import compile_block
from topsideas.engines.emulator.tracer import Tracer
from topsideas.engines.options import EngineOptions
from topsideas.errors import EngineError
from topsideas.graph.conversion_files import write_model
from topsideas.graph.emulation import check_expressible, emulated
from topsideas.graph.loading import Model
from topsideas.graph.portable import portable
from topsideas.plan import PrecisionPlan
from topsideas.precision import Accumulation, Numerics, Subnormals

# Marks the emulator's executables, so that a plain model is not taken for one.
STAMP = "topsideas.numerics"


_MEMORY_LIMIT = 2 << 30


class EmulatorEngine:
    """Runs plans on ONNX Runtime's fp32 kernels with explicit rounding.

    Args:
        model: The model.
        numerics: What rounding the target does.
        threads: How many samples the caller may run side by side. One op always runs on one
            thread, since kernels that split a sum over threads change its last bits.
        memory_limit: Bytes of intermediate tensors to remember; a third of RAM if None.

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
        self._sessions = Sessions(model.graph_model, self._slots, numerics)
        self._executor = Executor(self._block, self._sessions, memory_limit or _third_of_ram())

    def identity(self) -> Identity:
        """The emulator on this ONNX Runtime, with its numerics."""
        return Identity(
            name="emulator",
            version=f"onnxruntime {ort.__version__}",
            device="CPU",
            evidence="emulated",
            options=self._numerics.to_json(),
        )

    def compile(self, plan: PrecisionPlan) -> EmulatorExecutable:
        """An executable of ``plan``; nothing is built until it runs."""
        return EmulatorExecutable(self, plan.low(self._model.candidates))

    @property
    def work(self) -> float:
        """Node executions so far, in full passes over the model."""
        return self._executor.node_runs / max(1, self._executor.nodes)

    def whole(self, low: frozenset[int], *, between: bool = True) -> ir.Model:
        """The whole model under a plan as one float32 model with explicit roundings.

        Args:
            low: The ops that run low.
            between: Whether they round what they hand to each other.
        """
        model, numerics = self._model.graph_model, self._numerics
        return emulated(model, low, self._slots, numerics, between=between)


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
        write_model(self._stamped(), path)

    def dump(self, path: Path) -> None:
        """Write the emulated graph as ONNX text, weights elided."""
        path.write_text(_listing(self._stamped()), encoding="utf-8")

    def second_opinion(self) -> WholeModel:
        """The plan as one session with fp32 fusions: a second opinion on the same definition.

        It shares no executor with :meth:`run`, and its fp32 parts differ in the last bits, as
        those of any other machine do. An answer that holds only without them is not robust.
        """
        return WholeModel.open(self._stamped(), fused=True)

    def fused(self) -> WholeModel:
        """The plan where low ops do not round between each other: a target that fuses them.

        Real targets lie between this and :meth:`run`; an answer with room for them holds in both.
        """
        return WholeModel.open(self.engine.whole(self.low, between=False), fused=True)

    def freeze(self) -> WholeModel:
        """The plan as one session whose outputs equal those of :meth:`run` bit for bit."""
        return WholeModel.open(self._stamped())

    def _stamped(self) -> ir.Model:
        model = self.engine.whole(self.low)
        model.metadata_props[STAMP] = json.dumps(self.engine._numerics.to_json())
        return model


@dataclass(frozen=True)
class WholeModel:
    """A whole emulated model in one session.

    Attributes:
        session: The session.
        weights: Kept alive because the session refers to them.
    """

    session: ort.InferenceSession
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def open(cls, model: ir.Model, *, fused: bool = False) -> WholeModel:
        """A session of a model that nobody else holds. Raises EngineError."""
        proto, weights = portable(model)
        return cls(runtime.session(proto, weights, fused=fused), weights)

    @classmethod
    def load(cls, path: Path) -> WholeModel:
        """Open an executable that was saved.

        Raises:
            EngineError: The file is missing or is no executable of the emulator.
        """
        if not path.is_file():
            raise EngineError(f"{path}: no such executable")
        loaded = cls(runtime.session(str(path)))
        if STAMP not in loaded.session.get_modelmeta().custom_metadata_map:
            raise EngineError(
                f"{path}: an ONNX model but no executable of the emulator; expected a file that "
                "save_executable wrote"
            )
        return loaded

    def run(self, feeds: Arrays) -> dict[str, Any]:
        """The outputs by name. Raises EngineError."""
        names = [o.name for o in self.session.get_outputs()]
        return dict(zip(names, runtime.run(self.session, feeds, "the whole model"), strict=True))


def _third_of_ram() -> int:
    if not hasattr(os, "sysconf"):  # Windows does not tell
        return _MEMORY_LIMIT
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 3


def _listing(model: ir.Model) -> str:
    proto = ir.to_proto(model)
    for tensor in proto.graph.initializer:
        tensor.ClearField("raw_data")
    return str(onnx.printer.to_text(proto))


def open_emulator(model: Model, options: EngineOptions) -> EmulatorEngine:
    """Open the emulator; its compile options are ``subnormals`` and ``accumulation``.

    Raises:
        EngineError: An option is unknown, or the model or the runtime does not fit.
    """
    return EmulatorEngine(model, emulator_numerics(options), threads=options.threads)


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
