"""The nodes that store a float32 value in the low format and read it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from topsideas.graph.names import Names
from topsideas.precision import Accumulation, Numerics, Overflow, Subnormals

Nodes = list[ir.Node]


@dataclass(frozen=True)
class Rounding:
    """Writes roundings.

    Args:
        numerics: The rounding.
        opset: The version of the default opset, which decides how ``Clip`` is written.
        names: Gives out names for the nodes and for the values between them.
    """

    numerics: Numerics
    opset: int
    names: Names

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
        averaging = node.op_type in ("ReduceMean", "GlobalAveragePool") and not node.domain
        if self.numerics.accumulation is not Accumulation.LOW or not averaging:
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
        return chain.add("Clip", [value, chain.scalar(-limit), chain.scalar(limit)])

    def _flush(self, chain: _Chain, value: ir.Value) -> ir.Value:
        """Multiply by 0 below the normal range; keeps the sign of zero, NaN and infinity."""
        tiny = chain.scalar(self.numerics.precision.smallest_normal)
        small = chain.add("Less", [chain.add("Abs", [value]), tiny])
        keep = chain.add("Cast", [chain.add("Not", [small])], to=ir.DataType.FLOAT)
        return chain.add("Mul", [value, keep])


class _Chain:
    """Nodes under construction, with names derived from the value they serve."""

    def __init__(self, base: str, names: Names) -> None:
        self._base = base
        self._names = names
        self.nodes: list[ir.Node] = []

    def add(
        self, op: str, inputs: Sequence[ir.Value | None], **attributes: float | ir.DataType
    ) -> ir.Value:
        plain = {k: v.value if isinstance(v, ir.DataType) else v for k, v in attributes.items()}
        return self._append(ir.node(op, inputs, plain))

    def scalar(self, number: float) -> ir.Value:
        tensor = ir.tensor(np.array(number, np.float32))
        return self._append(ir.node("Constant", [], {"value": tensor}))

    def _append(self, node: ir.Node) -> ir.Value:
        self.nodes.append(node)
        node.name = self._names.fresh(f"{self._base}/{node.op_type}")
        node.outputs[0].name = node.name
        return node.outputs[0]
