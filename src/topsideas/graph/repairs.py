"""Edits of a model that let ops run low which otherwise must stay in fp32.

An edit finds its nodes by their op ids and changes a copy in place. It returns what it changed in
words, or raises :class:`NotApplicable`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from topsideas.graph.constants import constant
from topsideas.graph.names import Names
from topsideas.graph.ops import bodies, op_id
from topsideas.graph.portable import take_in

# From this opset on Clip reads its bounds.
_CLIP_READS = 11

Change = Callable[["Workbench"], list[str]]


class NotApplicable(Exception):  # noqa: N818 - it is no failure
    """An edit does not fit the graph."""


class Workbench:
    """A copy of a model that edits work on; its nodes keep the ids of the original.

    Args:
        model: A numbered model; left unchanged.
    """

    def __init__(self, model: ir.Model) -> None:
        self.adopt(model.clone())

    def adopt(self, model: ir.Model) -> None:
        """Go on with another numbered model."""
        self.model = model
        self.graph = self.model.graph
        self.names = Names(self.model.graphs())
        self._nodes = {op_id(node): node for node in self.graph}

    def node(self, op: int) -> ir.Node:
        """The node of an op. Raises NotApplicable for ops in bodies."""
        if op not in self._nodes:
            raise NotApplicable(f"op {op} is in a body")
        return self._nodes[op]

    def constant(self, array: np.ndarray, like: str) -> ir.Value:
        """A new initializer."""
        name = self.names.fresh(f"{like}/repaired")
        value = ir.Value(name=name, const_value=ir.Tensor(array, name=name))
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        value.shape = ir.Shape(array.shape)
        self.graph.register_initializer(value)
        return value

    def insert_after(
        self,
        value: ir.Value,
        op_type: str,
        *operands: ir.Value,
        only: Collection[ir.Node] = (),
        attributes: Mapping[str, float] | None = None,
    ) -> ir.Value:
        """Put ``op_type(value, *operands)`` between a value and its readers, or some of them."""
        readers = [use for use in value.uses() if not only or use.node in only]
        name = self.names.fresh(f"{value.name}/{op_type.lower()}")
        node = ir.node(op_type, [value, *operands], attributes, name=name)
        result = node.outputs[0]
        result.name, result.type, result.shape = name, value.type, value.shape
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            producer.append(node)
        for use in readers:
            use.node.replace_input_with(use.idx, result)
        return result

    def finished(self) -> tuple[onnx.ModelProto, list[int]]:
        """The edited model, and for each of its op ids the original's; -1 for what is new."""
        ids = list(_in_id_order(self.graph))
        take_in(self.graph)
        return ir.to_proto(self.model), ids


def _in_id_order(graph: ir.Graph) -> Iterator[int]:
    """The ids of nodes in the order in which they will be numbered anew."""
    yield from (op_id(node) for node in graph)
    yield from (i for node in graph for i in _in_bodies(node))


def _in_bodies(node: ir.Node) -> Iterator[int]:
    for _, body in bodies(node):
        for child in body:
            yield op_id(child)
            yield from _in_bodies(child)


@dataclass(frozen=True, slots=True)
class ClampConstants:
    """Constants beyond the range that some ops read are cut to its ends.

    Attributes:
        ops: The ops.
        limit: The largest magnitude of the low format.
    """

    ops: frozenset[int]
    limit: float

    def __call__(self, bench: Workbench) -> list[str]:
        """Change the constants."""
        changes = []
        for read in _constants(bench, self.ops):
            array = read.array
            if np.any(np.isfinite(array) & (np.abs(array) > self.limit)):
                read.replace(bench, np.clip(array, -self.limit, self.limit))
                worst = float(array.flat[int(np.argmax(np.abs(array)))])
                changes.append(
                    f"'{read.value.name}': {worst:.4g} becomes {_nearest(worst, self.limit)}"
                )
        return _some(changes)


@dataclass(frozen=True, slots=True)
class RaiseConstants:
    """Constants that some ops read and that the low format stores as zero are raised.

    Attributes:
        ops: The ops.
        vanishing: The largest magnitude that is stored as zero.
        least: What they become.
    """

    ops: frozenset[int]
    vanishing: float
    least: float

    def __call__(self, bench: Workbench) -> list[str]:
        """Change the constants."""
        changes = []
        for read in _constants(bench, self.ops):
            array = read.array
            small = (np.abs(array) <= self.vanishing) & (array != 0)
            if small.any():
                read.replace(bench, np.where(small, np.copysign(self.least, array), array))
                first = float(array[small].flat[0])
                changes.append(f"'{read.value.name}': {first:.4g} becomes {self.least:.4g}")
        return _some(changes)


@dataclass(frozen=True, slots=True)
class SplitConstants:
    """Constant factors beyond the range are divided by a power of two, which follows the op.

    Attributes:
        ops: The ops, which multiply or divide by them.
        exponent: They are divided by ``2**exponent``.
    """

    ops: frozenset[int]
    exponent: int

    def __call__(self, bench: Workbench) -> list[str]:
        """Change the constants and insert the factors. Raises NotApplicable."""
        changes = []
        for op in sorted(self.ops):
            node = bench.node(op)
            read = next(_constants(bench, {op}), None)
            output = node.outputs[0]
            if node.op_type not in ("Mul", "Div") or read is None or output.is_graph_output():
                raise NotApplicable("only factors can be split")
            divides = node.op_type == "Div" and read.index == 1
            read.replace(bench, read.array * np.float32(2.0**-self.exponent))
            follows = -self.exponent if divides else self.exponent
            factor = bench.constant(np.array(2.0**follows, np.float32), "factor")
            bench.insert_after(output, "Mul", factor)
            changes.append(f"'{read.value.name}' times 2^-{self.exponent}, then times 2^{follows}")
        return _some(changes)


@dataclass(frozen=True, slots=True)
class ClampOutputs:
    """What some ops write is cut to the range, so that infinity becomes the largest number.

    Attributes:
        ops: The ops that write what does not fit.
        limit: The largest magnitude of the low format.
    """

    ops: tuple[int, ...]
    limit: float

    def __call__(self, bench: Workbench) -> list[str]:
        """Insert the clips. Raises NotApplicable."""
        ends, attributes = self._ends(bench)
        for op in self.ops:
            value = bench.node(op).outputs[0]
            if value.is_graph_output():
                raise NotApplicable("an output of the model would be cut")
            bench.insert_after(value, "Clip", *ends, attributes=attributes)
        return [f"Clip to ±{self.limit:.8g} after op {', '.join(map(str, self.ops))}"]

    def _ends(self, bench: Workbench) -> tuple[list[ir.Value], Mapping[str, float] | None]:
        """The bounds as Clip takes them: inputs, or before opset 11 attributes."""
        low, high = -self.limit, self.limit
        if bench.model.opset_imports.get("", 1) < _CLIP_READS:
            return [], {"min": low, "max": high}
        return [bench.constant(np.array(end, np.float32), "range") for end in (low, high)], None


@dataclass(frozen=True, slots=True)
class _Constant:
    """A float32 constant that an op reads.

    Attributes:
        node: The op.
        index: Which of its inputs it is.
        value: The constant.
        array: What it holds.
    """

    node: ir.Node
    index: int
    value: ir.Value
    array: np.ndarray

    def replace(self, bench: Workbench, array: np.ndarray) -> None:
        """Let this op read another one; others go on reading the old one."""
        other = bench.constant(np.asarray(array, np.float32), self.value.name or "")
        self.node.replace_input_with(self.index, other)


def _constants(bench: Workbench, ops: Collection[int]) -> Iterator[_Constant]:
    for op in sorted(ops):
        node = bench.node(op)
        for index, value in enumerate(node.inputs):
            tensor = constant(value) if value is not None else None
            if value is not None and tensor is not None and tensor.dtype == ir.DataType.FLOAT:
                yield _Constant(node, index, value, tensor.numpy())


def _nearest(value: float, limit: float) -> str:
    return f"{np.copysign(limit, value):.8g}"


def _some(changes: list[str]) -> list[str]:
    if not changes:
        raise NotApplicable("there is nothing to change")
    return list(dict.fromkeys(changes))
