"""What OpenVINO's compiled graph says about the precision in which each op really runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import openvino as ov

from topsideas.engines.foreign import mapped
from topsideas.engines.openvino.runtime import NAME
from topsideas.engines.typed import TypedModel
from topsideas.graph.loading import Model

_FLOATS = {"f16", "bf16", "f32"}
_LOW = {"f16", "bf16"}
# Kernels that move values between layouts and precisions compute nothing.
_MOVES = {"Convert", "Reorder", "Input", "Output", "Const"}
# Kernels made of elementwise ops bear the type of what they read. They hold casts too: measured,
# a chain that is kept between low neighbours runs in fp32 inside one that is called f16.
_CHAINS = {"Subgraph", "Eltwise"}


@dataclass(frozen=True, slots=True)
class Kernel:
    """One node of the compiled graph.

    Attributes:
        kind: What it does.
        precision: What it computes in.
        ops: The ops of the model that it stands for, fused ones included.
    """

    kind: str
    precision: str
    ops: tuple[int, ...]


def kernels(compiled: ov.CompiledModel, typed: TypedModel) -> Iterator[Kernel]:
    """The nodes of a compiled graph in execution order. Raises EngineError."""
    with mapped(NAME, "reading the compiled graph"):
        nodes = [
            {str(k): _text(info[k]) for k in info.keys()}  # noqa: SIM118 - an RTMap is no dict
            for node in compiled.get_runtime_model().get_ordered_ops()
            if (info := node.get_rt_info()) is not None
        ]
    for node in nodes:
        names = node.get("originalLayersNames", "").split(",")
        ops = dict.fromkeys(op for name in names if (op := typed.op_of(name)) is not None)
        yield Kernel(node.get("layerType", "?"), node.get("runtimePrecision", "?"), tuple(ops))


def differing_ops(
    compiled: ov.CompiledModel, typed: TypedModel, model: Model
) -> Mapping[int, str]:
    """Candidate ops that no kernel runs in the precision that the plan says, with what does.

    Ops that the compiler folded away do not show, and neither do those inside loop bodies and
    kept ops in a chain of elementwise ops whose input is low.
    """
    ran: dict[int, set[str]] = defaultdict(set)
    for kernel in kernels(compiled, typed):
        if kernel.kind not in _MOVES and kernel.precision in _FLOATS:
            silent = kernel.kind in _CHAINS and kernel.precision in _LOW
            for op in kernel.ops:
                if op in typed.low or not silent:
                    ran[op].add(kernel.precision)
    return {
        op: "+".join(sorted(found))
        for op, found in sorted(ran.items())
        if op in model.candidates and not _as_planned(found, low=op in typed.low)
    }


def _as_planned(found: set[str], *, low: bool) -> bool:
    return bool(found & _LOW) if low else "f32" in found


def listing(compiled: ov.CompiledModel, typed: TypedModel) -> str:
    """A line per compiled node."""
    lines = ["# kind precision ops"]
    for kernel in kernels(compiled, typed):
        ops = ",".join(map(str, kernel.ops)) or "-"
        lines.append(f"{kernel.kind} {kernel.precision} {ops}")
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    astype = getattr(value, "astype", None)
    return str(astype(str)) if astype is not None else str(value)
