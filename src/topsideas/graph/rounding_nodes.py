"""The nodes that store a float32 value in the low format and read it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from topsideas.graph.names import Names
from topsideas.precision import Accumulation, Numerics, Overflow, Subnormals

Nodes = list[ir.Node]

_FLOAT = ir.TensorType(ir.DataType.FLOAT)


def sums_low(node: ir.Node, numerics: Numerics) -> bool:
    """Whether a low op rounds inside too: the sum that it averages, not its results alone."""
    averages = node.op_type in ("ReduceMean", "GlobalAveragePool") and not node.domain
    return numerics.accumulation is Accumulation.LOW and averages


@dataclass(frozen=True)
class Rounding:
    """Writes roundings.

    Args:
        numerics: The rounding.
        opset: The version of the default opset, which decides how ``Clip`` is written.
        names: Gives out names for the nodes and for the values between them.
        root: The main graph, which holds the numbers that roundings compare with.
    """

    numerics: Numerics
    opset: int
    names: Names
    root: ir.Graph
    _scalars: dict[float, ir.Value] = field(default_factory=dict)

    def result(self, node: ir.Node, raw: ir.Value, name: str) -> tuple[Nodes, ir.Value]:
        """Nodes that store ``raw``, an output of a low ``node``; and what is read back."""
        summed = self._low_sum(node, raw)
        nodes, stored = self.value(summed[-1].outputs[0] if summed else raw, name)
        return [*summed, *nodes], stored

    def value(self, value: ir.Value, name: str) -> tuple[Nodes, ir.Value]:
        """Nodes that store ``value`` in the low format and read it back as ``name``."""
        chain = _Chain(name, self.names)
        if self.numerics.overflow is Overflow.SATURATE:
            value = self._clip(chain, value)
        low = chain.add("Cast", [value], to=ir.DataType(self.numerics.precision.onnx_type))
        result = chain.add("Cast", [low], to=ir.DataType.FLOAT)
        if self.numerics.subnormals is Subnormals.FLUSH:
            result = self._flush(chain, result)
        result.name, result.type = name, ir.TensorType(ir.DataType.FLOAT)
        return chain.nodes, result

    def _low_sum(self, node: ir.Node, mean: ir.Value) -> Nodes:
        """For a mean under low accumulation: round the sum it was divided from, divide again."""
        if not sums_low(node, self.numerics):
            return []
        chain = _Chain(f"{mean.name}/mean", self.names)
        count = chain.add("Cast", [chain.add("Size", [node.inputs[0]])], to=ir.DataType.FLOAT)
        out = chain.add("Cast", [chain.add("Size", [mean])], to=ir.DataType.FLOAT)
        terms = chain.add("Div", [count, out])
        nodes, total = self.value(chain.add("Mul", [mean, terms]), self.names.fresh("sum"))
        chain.nodes += nodes
        chain.add("Div", [total, terms])
        return chain.nodes

    def _clip(self, chain: _Chain, value: ir.Value) -> ir.Value:
        limit = self.numerics.precision.max
        if self.opset < 11:
            return chain.add("Clip", [value], min=-limit, max=limit)
        return chain.add("Clip", [value, self._scalar(-limit), self._scalar(limit)])

    def _flush(self, chain: _Chain, value: ir.Value) -> ir.Value:
        """Multiply by 0 below the normal range; keeps the sign of zero, NaN and infinity."""
        tiny = self._scalar(self.numerics.precision.smallest_normal)
        small = chain.add("Less", [chain.add("Abs", [value]), tiny])
        keep = chain.add("Cast", [chain.add("Not", [small])], to=ir.DataType.FLOAT)
        return chain.add("Mul", [value, keep])

    def _scalar(self, number: float) -> ir.Value:
        """A number as an initializer, the same one for all roundings: there are thousands."""
        if number not in self._scalars:
            tensor = ir.Tensor(np.array(number, np.float32))
            scalar = ir.Value(name=self.names.fresh("bound"), type=_FLOAT, const_value=tensor)
            scalar.shape = ir.Shape([])
            self.root.register_initializer(scalar)
            self._scalars[number] = scalar
        return self._scalars[number]


class _Chain:
    """Nodes under construction, with names derived from the value they serve."""

    def __init__(self, base: str, names: Names) -> None:
        self._base = base
        self._names = names
        self.nodes: list[ir.Node] = []

    def add(
        self, op: str, inputs: Sequence[ir.Value | None], **attributes: float | ir.DataType
    ) -> ir.Value:
        # Not ir.node, which takes ten times as long to find out what its arguments are.
        node = ir.Node("", op, inputs, [_attribute(k, v) for k, v in attributes.items()])
        self.nodes.append(node)
        node.name = self._names.fresh(f"{self._base}/{node.op_type}")
        node.outputs[0].name = node.name
        return node.outputs[0]


def _attribute(name: str, value: float | ir.DataType) -> ir.Attr:
    if isinstance(value, ir.DataType):
        return ir.AttrInt64(name, value.value)
    return ir.AttrFloat32(name, value)
