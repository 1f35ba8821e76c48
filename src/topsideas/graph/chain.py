"""Nodes that the tool writes one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from topsideas.graph.names import Names

Nodes = list[ir.Node]


class Chain:
    """Nodes under construction, with names derived from the value they serve.

    Args:
        base: Begins every name.
        names: Gives out names.
    """

    def __init__(self, base: str, names: Names) -> None:
        self._base = base
        self._names = names
        self.nodes: Nodes = []

    def add(
        self,
        op: str,
        inputs: Sequence[ir.Value | None],
        **attributes: float | ir.DataType | ir.Graph | Sequence[int],
    ) -> ir.Value:
        """A node of the default domain; returns its only output."""
        # Not ir.node, which takes ten times as long to find out what its arguments are.
        node = ir.Node("", op, inputs, [_attribute(k, v) for k, v in attributes.items()])
        return self._append(node)

    def numbers(self, *numbers: int) -> ir.Value:
        """A constant vector of int64."""
        tensor = ir.Tensor(np.array(numbers, np.int64))
        return self._append(ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)]))

    def number(self, number: float) -> ir.Value:
        """A constant float32."""
        tensor = ir.Tensor(np.array(number, np.float32))
        return self._append(ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)]))

    def _append(self, node: ir.Node) -> ir.Value:
        self.nodes.append(node)
        node.name = self._names.fresh(f"{self._base}/{node.op_type}")
        node.outputs[0].name = node.name
        return node.outputs[0]


def _attribute(name: str, value: float | ir.DataType | ir.Graph | Sequence[int]) -> ir.Attr:
    if isinstance(value, ir.Graph):
        return ir.AttrGraph(name, value)
    if isinstance(value, ir.DataType):
        return ir.AttrInt64(name, value.value)
    if isinstance(value, int):
        return ir.AttrInt64(name, value)
    if isinstance(value, float):
        return ir.AttrFloat32(name, value)
    return ir.AttrInt64s(name, list(value))
