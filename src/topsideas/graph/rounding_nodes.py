"""The nodes that store a float32 value in the low format and read it back."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from topsideas.graph.chain import Chain, Nodes
from topsideas.graph.names import Names
from topsideas.graph.termwise import Termwise, adds_terms
from topsideas.precision import Accumulation, Numerics, Overflow, Subnormals

_FLOAT = ir.TensorType(ir.DataType.FLOAT)

MEANS = frozenset(["ReduceMean", "GlobalAveragePool"])
"""Ops whose sum low accumulation rounds before it is divided."""


def sums_low(node: ir.Node, numerics: Numerics) -> bool:
    """Whether a low op rounds inside too: the sum that it averages or that a product is."""
    if numerics.accumulation is Accumulation.TERMWISE:
        return adds_terms(node)
    averages = node.op_type in MEANS and not node.domain
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

    def result(
        self, node: ir.Node, raw: ir.Value, name: str, *, stores: bool = True
    ) -> tuple[Nodes, ir.Value]:
        """Nodes that give an output of a low ``node``, and what its readers get.

        Args:
            node: The node, with the inputs that it reads.
            raw: Its output as float32 kernels compute it.
            name: What the result is called.
            stores: Whether it is stored; one that is handed on inside a kernel is not.
        """
        summed = self._low_sum(node, raw)
        value = summed[-1].outputs[0] if summed else raw
        if not stores:
            value.name = name
            return summed, value
        nodes, stored = self.value(value, name)
        return [*summed, *nodes], stored

    def value(self, value: ir.Value, name: str) -> tuple[Nodes, ir.Value]:
        """Nodes that store ``value`` in the low format and read it back as ``name``."""
        chain = Chain(name, self.names)
        if self.numerics.overflow is Overflow.SATURATE:
            value = self._clip(chain, value)
        low = chain.add("Cast", [value], to=ir.DataType(self.numerics.precision.onnx_type))
        result = chain.add("Cast", [low], to=ir.DataType.FLOAT)
        if self.numerics.subnormals is Subnormals.FLUSH:
            result = self._flush(chain, result)
        result.name, result.type = name, ir.TensorType(ir.DataType.FLOAT)
        return chain.nodes, result

    def _low_sum(self, node: ir.Node, raw: ir.Value) -> Nodes:
        """The sum inside once more, as it is rounded there."""
        if not sums_low(node, self.numerics):
            return []
        if adds_terms(node):
            return Termwise(self.value, self.names, self.opset).sum(node, raw)
        return self._mean(raw, node)

    def _mean(self, mean: ir.Value, node: ir.Node) -> Nodes:
        """For a mean under low accumulation: round the sum it was divided from, divide again."""
        chain = Chain(f"{mean.name}/mean", self.names)
        count = chain.add("Cast", [chain.add("Size", [node.inputs[0]])], to=ir.DataType.FLOAT)
        out = chain.add("Cast", [chain.add("Size", [mean])], to=ir.DataType.FLOAT)
        terms = chain.add("Div", [count, out])
        nodes, total = self.value(chain.add("Mul", [mean, terms]), self.names.fresh("sum"))
        chain.nodes += nodes
        chain.add("Div", [total, terms])
        return chain.nodes

    def _clip(self, chain: Chain, value: ir.Value) -> ir.Value:
        limit = self.numerics.precision.max
        if self.opset < 11:
            return chain.add("Clip", [value], min=-limit, max=limit)
        return chain.add("Clip", [value, self._scalar(-limit), self._scalar(limit)])

    def _flush(self, chain: Chain, value: ir.Value) -> ir.Value:
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
