"""Products whose terms are added one after the other in the low format.

This is what kernels without wider accumulators do: they start with the bias, and each term is one
fused multiply-add, rounded. The terms of a convolution come by kernel positions, and by channels
within each. The fp16 kernels of the Arm Compute Library do so bit for bit (docs/engines.md). Here
a product is exact in float32, and what is added to it is rounded to float32 and then once more.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from topsideas.graph.chain import Chain, Nodes
from topsideas.graph.constants import constant
from topsideas.graph.names import Names

OPSET = 11
"""The first opset whose nodes can write such a sum."""

_END = (1 << 63) - 1
# What a loop hands on: its turn, whether it goes on, the sum.
_CARRIED = (ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.FLOAT)

Store = Callable[[ir.Value, str], tuple[Nodes, ir.Value]]


def adds_terms(node: ir.Node) -> bool:
    """Whether a sum of this node can be written term by term."""
    if node.domain or node.op_type not in ("Conv", "Gemm", "MatMul"):
        return False
    return node.op_type != "Conv" or _kernel(node) is not None


@dataclass(frozen=True)
class Termwise:
    """Writes such sums.

    Args:
        store: Gives the nodes that round a value, and the rounded value under a name.
        names: Gives out names.
        opset: The version of the default opset.
    """

    store: Store
    names: Names
    opset: int

    def sum(self, node: ir.Node, raw: ir.Value) -> Nodes:
        """Nodes whose last one gives what ``node`` does, summed term by term.

        Args:
            node: A node for which :func:`adds_terms` holds, with the inputs that it reads.
            raw: Its result in float32, of which the shape is read.
        """
        chain = Chain(f"{raw.name}/terms", self.names)
        size = chain.add("Shape", [raw])
        if node.op_type == "Conv":
            self._conv(chain, node, size)
        elif node.op_type == "Gemm":
            self._gemm(chain, node, size)
        else:
            self._matmul(chain, node, size)
        return chain.nodes

    def _matmul(self, chain: Chain, node: ir.Node, size: ir.Value) -> None:
        left, right = node.inputs[:2]
        start = chain.add("ConstantOfShape", [size])
        vectors = [_rank(left) == 1, _rank(right) == 1]
        outer = (None, None) if any(vectors) else (-1, -2)
        count = self._length(chain, left, -1)
        self._added(chain, start, count, (left, right), (-1, -1 if vectors[1] else -2), outer)

    def _gemm(self, chain: Chain, node: ir.Node, size: ir.Value) -> None:
        left, right, bias = (*node.inputs, None)[:3]
        scales = [_float(node, name, 1.0) for name in ("alpha", "beta")]
        if bias is not None and scales[1] != 1.0:
            bias = chain.add("Mul", [bias, chain.number(scales[1])])
        if bias is not None and scales[0] == 1.0:
            start = chain.add("Expand", [bias, size])
        else:
            start = chain.add("ConstantOfShape", [size])
        axes = (1 - _int(node, "transA", 0), _int(node, "transB", 0))
        count = self._length(chain, left, axes[0])
        total = self._added(chain, start, count, (left, right), axes, (-1, -2))
        if scales[0] != 1.0:
            total = self._stored(chain, chain.add("Mul", [total, chain.number(scales[0])]))
            if bias is not None:
                chain.add("Add", [total, bias])

    def _conv(self, chain: Chain, node: ir.Node, size: ir.Value) -> None:
        data, weight, bias = (*node.inputs, None)[:3]
        kernel = _kernel(node)
        assert kernel is not None
        groups, (written, read, *window) = _int(node, "group", 1), kernel
        ones = [1] * len(window)
        batch = chain.add("Slice", [size, chain.numbers(0), chain.numbers(1)])
        area = chain.add("Slice", [size, chain.numbers(2), chain.numbers(_END)])
        into = [batch, chain.numbers(groups, written // groups), area]
        begun = chain.add("ConstantOfShape", [chain.add("Concat", into, axis=0)])
        if bias is not None:
            shape = chain.numbers(groups, written // groups, *ones)
            begun = chain.add("Add", [begun, chain.add("Reshape", [bias, shape])])
        parts = chain.add("Concat", [batch, chain.numbers(groups, read), area], axis=0)
        slices = _Window(node, window).slices(chain, data, area)
        terms = chain.add("Concat", [chain.add("Reshape", [s, parts]) for s in slices], axis=2)
        shape = chain.numbers(groups, written // groups, read, *window)
        order = [*range(3, 3 + len(window)), 2, 0, 1]
        weights = chain.add("Transpose", [chain.add("Reshape", [weight, shape])], perm=order)
        shape = chain.numbers(-1, groups, written // groups, *ones)
        weights = chain.add("Reshape", [weights, shape])
        count = chain.numbers(read * math.prod(window))
        total = self._added(chain, begun, count, (terms, weights), (2, 0), (2, None))
        chain.add("Reshape", [total, size])

    def _added(
        self,
        chain: Chain,
        start: ir.Value,
        count: ir.Value,
        factors: Sequence[ir.Value | None],
        axes: Sequence[int],
        outer: Sequence[int | None],
    ) -> ir.Value:
        """Add the products of slices to ``start``, each rounded.

        Args:
            chain: Where nodes are written.
            start: What it begins with.
            count: How many slices there are.
            factors: Two tensors.
            axes: The axis of each along which they are sliced.
            outer: The axis that is put into each slice; None for none.
        """
        # Not a scan, for which runtimes must know the number of axes.
        turn, going, sum_ = (
            ir.Value(name=self.names.fresh(f"{start.name}/{what}"), type=ir.TensorType(kind))
            for what, kind in zip(("turn", "going", "sum"), _CARRIED, strict=True)
        )
        turn.shape, going.shape = ir.Shape([]), ir.Shape([])
        body = Chain(f"{start.name}/term", self.names)
        on = body.add("Identity", [going])
        slices = [
            self._slice(body, factor, turn, axis, put)
            for factor, axis, put in zip(factors, axes, outer, strict=True)
        ]
        result = self._stored(body, body.add("Add", [sum_, body.add("Mul", slices)]))
        graph = ir.Graph([turn, going, sum_], [on, result], nodes=body.nodes, name="term")
        return chain.add("Loop", [count, None, start], body=graph)

    def _slice(
        self, chain: Chain, factor: ir.Value | None, at: ir.Value, axis: int, outer: int | None
    ) -> ir.Value:
        found = chain.add("Gather", [factor, at], axis=axis)
        if outer is None:
            return found
        if self.opset < 13:
            return chain.add("Unsqueeze", [found], axes=[outer])
        return chain.add("Unsqueeze", [found, chain.numbers(outer)])

    @staticmethod
    def _length(chain: Chain, value: ir.Value | None, axis: int) -> ir.Value:
        return chain.add("Gather", [chain.add("Shape", [value]), chain.numbers(axis)], axis=0)

    def _stored(self, chain: Chain, value: ir.Value) -> ir.Value:
        nodes, stored = self.store(value, self.names.fresh(f"{value.name}/stored"))
        chain.nodes += nodes
        return stored


@dataclass(frozen=True)
class _Window:
    """The window of a convolution: its node and the extent of its kernel."""

    node: ir.Node
    kernel: Sequence[int]

    def slices(self, chain: Chain, data: ir.Value | None, area: ir.Value) -> list[ir.Value]:
        """What each position of the kernel reads, in order, as large as what is written."""
        padded = chain.add("Pad", [data, self._pads(chain, data, area)])
        axes = range(2, 2 + len(self.kernel))
        less = chain.add("Sub", [area, chain.numbers(1)])
        span = chain.add("Add", [chain.add("Mul", [less, self._steps(chain)]), chain.numbers(1)])
        found = []
        for position in itertools.product(*map(range, self.kernel)):
            first = chain.numbers(*(p * d for p, d in zip(position, self._dilations, strict=True)))
            last = chain.add("Add", [first, span])
            inputs = [padded, first, last, chain.numbers(*axes), self._steps(chain)]
            found.append(chain.add("Slice", inputs))
        return found

    def _pads(self, chain: Chain, data: ir.Value | None, area: ir.Value) -> ir.Value:
        count = len(self.kernel)
        kind = _string(self.node, "auto_pad", "NOTSET")
        if kind in ("NOTSET", "VALID"):
            pads = _ints(self.node, "pads", [0] * (2 * count))
            return chain.numbers(0, 0, *pads[:count], 0, 0, *pads[count:])
        less = chain.add("Sub", [area, chain.numbers(1)])
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self._dilations, strict=True)]
        needed = chain.add("Mul", [less, self._steps(chain)])
        needed = chain.add("Add", [needed, chain.numbers(*reach)])
        size = [chain.add("Shape", [data]), chain.numbers(2), chain.numbers(_END)]
        total = chain.add("Sub", [needed, chain.add("Slice", size)])
        total = chain.add("Mul", [total, self._positive(chain, total)])
        half = chain.add("Div", [total, chain.numbers(2)])
        rest = chain.add("Sub", [total, half])
        before, after = (half, rest) if kind == "SAME_UPPER" else (rest, half)
        none = chain.numbers(0, 0)
        return chain.add("Concat", [none, before, none, after], axis=0)

    @staticmethod
    def _positive(chain: Chain, value: ir.Value) -> ir.Value:
        """1 where a number is above 0: older opsets have no ``Max`` of whole numbers."""
        positive = chain.add("Greater", [value, chain.numbers(0)])
        return chain.add("Cast", [positive], to=ir.DataType.INT64)

    def _steps(self, chain: Chain) -> ir.Value:
        return chain.numbers(*_ints(self.node, "strides", [1] * len(self.kernel)))

    @property
    def _dilations(self) -> Sequence[int]:
        return _ints(self.node, "dilations", [1] * len(self.kernel))


def _kernel(node: ir.Node) -> list[int] | None:
    """The shape of a convolution's weights; None if they are computed."""
    weight = node.inputs[1]
    tensor = constant(weight) if weight is not None else None
    return None if tensor is None else list(tensor.shape.numpy())


def _rank(value: ir.Value | None) -> int | None:
    if value is None:
        return None
    tensor = constant(value)
    shape = value.shape if tensor is None else tensor.shape
    return None if shape is None else len(shape)


def _int(node: ir.Node, name: str, default: int) -> int:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def _float(node: ir.Node, name: str, default: float) -> float:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def _ints(node: ir.Node, name: str, default: Sequence[int]) -> Sequence[int]:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_ints()


def _string(node: ir.Node, name: str, default: str) -> str:
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()
