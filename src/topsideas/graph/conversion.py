"""The deployable model: a strongly typed mixed-precision ONNX graph for one plan.

Low ops hold fp16 (or bf16) tensors, kept and pinned ops hold float32, and casts stand on the
edges between them. What the graph computes with fp32 accumulators is what
:func:`topsideas.graph.emulation.emulated` computes, bit for bit: the two agree on where values
are rounded, one by types, the other by pairs of casts.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import onnx_ir as ir

from topsideas.graph.conversion_edges import Edges
from topsideas.graph.conversion_files import write
from topsideas.graph.conversion_types import check_types, set_output_types
from topsideas.graph.conversion_weights import LowWeights
from topsideas.graph.emulation import check_expressible
from topsideas.graph.lifting import fix_weights, lift, lift_ir_version
from topsideas.graph.loading import Model
from topsideas.graph.ops import op_id
from topsideas.graph.schemas import target_of
from topsideas.graph.work import cast_work
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics

__all__ = ["Conversion", "Converter", "convert", "write"]


@dataclass(frozen=True)
class Conversion:
    """A converted model.

    Attributes:
        model: The mixed-precision model; a copy that shares unchanged weights with its source.
        casts: How many ``Cast`` nodes were inserted.
        cast_bytes: What they read and write in one pass, where each op runs once; sizes that are
            not known count as 1.
        warnings: What the reader must know: weights that overflow the low format, ops that had
            to stay fp32 although the plan has them low, a lifted opset or IR version.
    """

    model: ir.Model
    casts: int
    cast_bytes: int
    warnings: tuple[str, ...]


def convert(
    model: Model,
    plan: PrecisionPlan,
    numerics: Numerics,
    *,
    low_io: bool = False,
    fixed_weights: bool = False,
) -> Conversion:
    """Turn ``model`` into a strongly typed model in which ``plan.kept`` computes in fp32.

    Names of the model's inputs and outputs stay as they are, and so do the interfaces of If, Loop
    and Scan bodies. A saturating target saturates by itself: nothing is inserted for it, only
    weights are stored saturated.

    Args:
        model: The loaded model; unchanged.
        plan: The ops to keep in fp32; all other candidates become low.
        numerics: The low format, and how weights are rounded to it.
        low_io: Give the model's float32 inputs and outputs the low type. By default they keep
            their type.
        fixed_weights: Take weights off the model's inputs, so that they can be stored low.

    Raises:
        EngineError: The model's opset cannot express the low format.
        ModelError: The result's types do not check, which is never passed over.
    """
    converter = Converter(model, numerics, low_io=low_io, fixed_weights=fixed_weights)
    return converter.convert(plan)


class Converter:
    """Converts one model for many plans; each weight is rounded once for all of them.

    One thread at a time.

    Args:
        model: The loaded model; unchanged.
        numerics: The low format, and how weights are rounded to it.
        low_io: Give the model's float32 inputs and outputs the low type.
        fixed_weights: Take weights off the model's inputs, so that they can be stored low.
    """

    def __init__(
        self,
        model: Model,
        numerics: Numerics,
        *,
        low_io: bool = False,
        fixed_weights: bool = False,
    ) -> None:
        self._model = model
        self._numerics = numerics
        self._low_io = low_io
        self._fixed_weights = fixed_weights
        self._weights = LowWeights(numerics)
        self._slots = {op.id: op.slots for op in model.ops}
        self._target = target_of(model.graph_model, numerics.precision)

    def convert(self, plan: PrecisionPlan) -> Conversion:
        """The model for ``plan``; see :func:`convert`."""
        asked = plan.low(self._model.candidates)
        if asked or self._low_io:
            check_expressible(self._model.opset, self._numerics)
        low, refused = asked - self._inexpressible, asked & self._inexpressible
        copy = self._model.graph_model.clone()
        fixed = self._fix_weights(copy)
        if not low and not self._low_io:
            return Conversion(copy, 0, 0, (*self._refusal(refused), *fixed))
        lifted = [*fixed, *lift_ir_version(copy), *self._lift_opset(copy, low)]
        self._weights.warnings.clear()
        edges = self._rewrite(copy, low)
        check_types(copy, self._model.graph_model)
        told = *self._refusal(refused), *lifted, *_overridable(edges), *self._weights.warnings
        moved = sum(_moved(node) for node in edges.casts)
        return Conversion(copy, len(edges.casts), moved, told)

    def _fix_weights(self, copy: ir.Model) -> list[str]:
        fixed = fix_weights(copy) if self._fixed_weights and copy.ir_version >= 4 else 0
        return [f"{fixed} weights taken off the inputs: they are constants now"] if fixed else []

    def _rewrite(self, copy: ir.Model, low: Collection[int]) -> Edges:
        nodes = [node for graph in copy.graphs() for node in graph if op_id(node) in low]
        slots = {i: self._slots[i] for i in low}
        edges = Edges(copy, slots, self._weights, low_io=self._low_io)
        for node in nodes:
            set_output_types(node, self._slots[op_id(node)], self._weights, copy.opset_imports)
        edges.connect()
        return edges

    def _lift_opset(self, copy: ir.Model, low: Collection[int]) -> list[str]:
        """Lift the opset as far as the low ops need it; a line that says so."""
        nodes = [node for node in _nodes(self._model.graph_model) if op_id(node) in low]
        versions = {op_id(n): self._target.version(n) for n in nodes if not n.domain}
        old, new = self._model.opset, max(versions.values(), default=self._model.opset)
        if new <= old:
            return []
        lift(copy, new)
        types = sorted({n.op_type for n in nodes if versions.get(op_id(n), old) == new})
        name = self._numerics.precision.name
        return [f"opset {old} lifted to {new}, where {', '.join(types)} got {name}"]

    @functools.cached_property
    def _inexpressible(self) -> frozenset[int]:
        """Candidates whose schema does not know the low format, if it was loaded for another."""
        return self._model.inexpressible(self._numerics.precision)

    def _refusal(self, refused: Collection[int]) -> tuple[str, ...]:
        if not refused:
            return ()
        types = sorted({op.type for op in self._model.ops if op.id in refused})
        ids = ", ".join(map(str, sorted(refused)))
        line = f"kept in fp32, as {', '.join(types)} has no {self._numerics.precision.name} "
        return (line + f"variant at opset {self._model.opset}: ops {ids}",)


def _nodes(model: ir.Model) -> Iterable[ir.Node]:
    for graph in model.graphs():
        yield from graph


def _moved(cast: ir.Node) -> int:
    shape = cast.outputs[0].shape or ()
    return int(cast_work(tuple(d if isinstance(d, int) else 1 for d in shape)))


def _overridable(edges: Edges) -> list[str]:
    if not edges.overridable:
        return []
    line = f"{len(edges.overridable)} weights stay float32 and are cast at run time, as they are "
    return [
        line + "listed among the model's inputs, where a caller may replace them "
        f"({', '.join(edges.overridable[:3])}, ...). Remedy: --fixed_weights, if none does"
    ]
