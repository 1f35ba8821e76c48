"""The low precision emulated inside an fp32 graph, by explicit pairs of casts.

A low op reads rounded inputs, computes in fp32 and stores rounded outputs; a kept op reads what
was stored. The result is an ordinary float32 model whose outputs are what a target with fp32
accumulators and the given rounding would produce. Runtimes must honour cast pairs for this to
hold, which the emulator checks when it starts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from topsideas.errors import EngineError
from topsideas.graph.constants import LowConstants, constant
from topsideas.graph.names import Names
from topsideas.graph.ops import bodies, op_id
from topsideas.graph.rounding_nodes import Rounding, sums_low
from topsideas.graph.schemas import Slots
from topsideas.graph.termwise import OPSET as TERMWISE_OPSET
from topsideas.precision import BF16, Accumulation, Numerics


def emulated(
    model: ir.Model,
    low: Collection[int],
    slots: Mapping[int, Slots],
    numerics: Numerics,
    *,
    between: bool = True,
) -> ir.Model:
    """A copy of ``model`` in which the ops with an id in ``low`` round as ``numerics`` says.

    Args:
        model: A numbered model; left unchanged. Weights are shared with the copy.
        low: Ids of the ops that run low.
        slots: For every id in ``low``, which of its inputs and outputs round.
        numerics: The rounding.
        between: Round what low ops hand to each other. Without it only weights and what comes
            from outside the low ops is rounded: what a target computes that fuses them all.

    Raises:
        EngineError: The model's opset cannot express the rounding.
    """
    opset = model.opset_imports.get("", 1)
    check_expressible(opset, numerics)
    copy = model.clone()
    forget_shapes(copy.graph)
    constants = LowConstants(numerics)
    emulate(copy.graph, low, slots, constants, opset, between=between)
    _drop_unread_weights(copy.graph)
    return copy


def _drop_unread_weights(graph: ir.Graph) -> None:
    """Originals of weights that are read rounded only."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and value not in graph.outputs and value not in graph.inputs:
            del graph.initializers[name]


def forget_shapes(graph: ir.Graph) -> None:
    """Drop declared shapes: models declare wrong ones, and runtimes plan memory by them.

    What a loop collects keeps its shape, which is that of the result if it never turns. What a
    scan reads and what its body gives keep their rank, which runtimes must know.
    """
    nodes = list(graph.all_nodes())
    collected = {v for node in nodes if node.op_type == "Loop" for v in _collected(node)}
    scans = [node for node in nodes if node.op_type == "Scan"]
    ranked = {v for node in scans for v in node.inputs}
    ranked |= {v for node in scans for _, body in bodies(node) for v in body.outputs}
    for node in nodes:
        for value in node.outputs:
            if value in ranked and value.shape is not None:
                value.shape = ir.Shape([None] * len(value.shape))
            elif value not in collected:
                value.shape = None


def _collected(loop: ir.Node) -> list[ir.Value]:
    carried = len(loop.inputs) - 2
    return [v for _, body in bodies(loop) for v in body.outputs[1 + carried :]]


def emulate(
    graph: ir.Graph,
    low: Collection[int],
    slots: Mapping[int, Slots],
    constants: LowConstants,
    opset: int,
    stored: Collection[ir.Value] = (),
    *,
    between: bool = True,
) -> None:
    """Rewrite a main graph and its bodies in place; see :func:`emulated`.

    Args:
        graph: A graph that captures nothing from outside.
        low: Ids of the ops that run low.
        slots: Their rounding slots.
        constants: Makes, and remembers, rounded weights; knows the numerics.
        opset: The version of the default opset, which decides how ``Clip`` is written.
        stored: Inputs of the graph that are representable in the low format already.
        between: Round what low ops hand to each other.
    """
    _Emulation(graph, low, slots, constants, opset, set(stored), between).apply(graph)


def check_expressible(opset: int, numerics: Numerics) -> None:
    """Raise EngineError if models of this opset cannot hold the casts that rounding needs."""
    if opset < 6:
        raise EngineError(
            f"opset {opset} is too old to emulate; expected 6 or newer. Remedy: lift the model "
            "with onnx.version_converter.convert_version(model, 13)"
        )
    if numerics.accumulation is Accumulation.TERMWISE and opset < TERMWISE_OPSET:
        raise EngineError(
            f"accumulation: termwise needs opset {TERMWISE_OPSET}, the model has {opset}. "
            "Remedy: lift the model with onnx.version_converter.convert_version(model, 13)"
        )
    if numerics.precision is BF16 and opset < 13:
        raise EngineError(
            f"bf16 needs opset 13 or newer (Cast has no bfloat16 before), the model has {opset}. "
            "Remedy: lift the model with onnx.version_converter.convert_version(model, 13)"
        )


@dataclass
class _Emulation:
    """One rewriting in place. ``stored`` are values representable in the low format already."""

    root: ir.Graph
    low: Collection[int]
    slots: Mapping[int, Slots]
    constants: LowConstants
    opset: int
    stored: set[ir.Value]
    between: bool
    rounded: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = Names((self.root, *self.root.subgraphs()))
        self.rounding = Rounding(self.constants.numerics, self.opset, self.names, self.root)

    def apply(self, graph: ir.Graph) -> None:
        """Rewrite ``graph`` and, recursively, its bodies."""
        for node in list(graph):
            if op_id(node) in self.low:
                self._round_inputs(node)
                if self.between:
                    self._round_outputs(node, graph)
            for _, body in bodies(node):
                self.apply(body)

    def _round_inputs(self, node: ir.Node) -> None:
        for index in sorted(self.slots[op_id(node)].inputs):
            value = node.inputs[index]
            if value is None or value in self.stored or self._is_between(value):
                continue
            if value not in self.rounded:
                self.rounded[value] = self._low_copy(value)
            node.replace_input_with(index, self.rounded[value])

    def _is_between(self, value: ir.Value) -> bool:
        """Whether a low op hands the value on, and such values are left alone."""
        producer = value.producer()
        return not self.between and producer is not None and op_id(producer) in self.low

    def _low_copy(self, value: ir.Value) -> ir.Value:
        """A rounded copy of ``value``, made where the value is born, so that a loop reuses it."""
        tensor = constant(value)
        if tensor is not None:
            return self._low_weight(value, tensor)
        nodes, result = self.rounding.value(value, self.names.fresh(f"{value.name}/low"))
        producer = value.producer()
        home = value.graph
        if producer is not None:
            producer.append(nodes)
        elif home is not None and len(home):
            home[0].prepend(nodes)
        return result

    def _low_weight(self, value: ir.Value, tensor: ir.TensorProtocol) -> ir.Value:
        low = self.constants.of(tensor)
        name = self.names.fresh(f"{value.name}/low")
        weight = ir.Value(name=name, type=ir.TensorType(low.dtype), const_value=low)
        weight.shape = ir.Shape(low.shape.numpy())
        self.root.register_initializer(weight)
        return weight

    def _round_outputs(self, node: ir.Node, graph: ir.Graph) -> None:
        slots = self.slots[op_id(node)].outputs
        inside = range(len(node.outputs)) if sums_low(node, self.rounding.numerics) else ()
        for index in sorted(slots | set(inside)):
            value, name = node.outputs[index], node.outputs[index].name or ""
            readers = list(value.uses())
            value.name = self.names.fresh(f"{name}/raw")
            stores = index in slots
            nodes, stored = self.rounding.result(node, value, name, stores=stores)
            node.append(nodes)
            for reader in readers:
                reader.node.replace_input_with(reader.idx, stored)
            for position, output in enumerate(graph.outputs):
                if output is value:
                    graph.outputs[position] = stored
                    stored.shape = value.shape
            if stores:
                self.stored.add(stored)
