"""Lifting a model's opset, where an op has the low format only in a later version of its schema.

Many ops know bfloat16 only from opset 22 on. A newer schema that differs in nothing but types and
new optional parts means the same for a node written for the old one, so such models are lifted by
changing a number. Two changes between 13 and 22 need a node rewritten; what else changed meaning
stops the lift before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from topsideas.graph.names import Names

NEWEST = 22
"""The opset up to which models are lifted: nearly every op has bf16 then, and runtimes read it."""

# The oldest opset that is lifted: before it, bfloat16 does not exist in ONNX.
_OLDEST = 13

# Same signature, another meaning: the version that changed it.
_MEANING_CHANGED = {"RoiAlign": 16, "GroupNormalization": 21, "Upsample": 14}

# From 18 on they take axes as an input, as ReduceSum did from 13 on.
_AXES_BECAME_INPUT = frozenset(
    f"Reduce{name}"
    for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
)
_REWRITTEN = 18

_OPTIONAL = onnx.defs.OpSchema.FormalParameterOption.Optional


def liftable_to(nodes: Iterable[ir.Node], opset: int) -> int:
    """The newest opset of the default domain that all nodes can be lifted to; at least ``opset``.

    Args:
        nodes: All nodes of a model, those of bodies too.
        opset: The version they are written for.
    """
    if not _OLDEST <= opset < NEWEST:
        return opset
    used = {
        (node.op_type, sum(bool(output.name) for output in node.outputs))
        for node in nodes
        if not node.domain
    }
    return min((_newest_of(op_type, outputs, opset) for op_type, outputs in used), default=NEWEST)


def needed_version(opset: int, limit: int, serves: Callable[[int], bool]) -> int:
    """The lowest version from ``opset`` to ``limit`` that serves; ``opset`` if none does."""
    return next((version for version in range(opset, limit + 1) if serves(version)), opset)


def lift(model: ir.Model, opset: int) -> None:
    """Lift a model in place to ``opset``, which :func:`liftable_to` must allow."""
    old = model.opset_imports.get("", 1)
    if opset <= old:
        return
    graphs = list(model.graphs())
    names = Names(graphs)
    if old < _REWRITTEN <= opset:
        for graph in graphs:
            for node in list(graph):
                _rewrite(node, names)
    model.opset_imports[""] = opset
    for graph in graphs:
        for node in graph:
            if not node.domain:
                node.version = None


@cache
def _newest_of(op_type: str, outputs: int, opset: int) -> int:
    newest = opset
    for version in range(opset + 1, NEWEST + 1):
        if not _means_the_same(op_type, outputs, opset, version):
            break
        newest = version
    return newest


def _means_the_same(op_type: str, outputs: int, old: int, new: int) -> bool:
    try:
        before = onnx.defs.get_schema(op_type, old)
        after = onnx.defs.get_schema(op_type, new)
    except onnx.defs.SchemaError:
        return False
    if before.since_version == after.since_version:
        return True
    if old < _MEANING_CHANGED.get(op_type, 0) <= new or after.deprecated:
        return False
    attributes_dropped = {"axes"} if op_type in _AXES_BECAME_INPUT else set()
    return (
        _extends(before.inputs, after.inputs)
        and _extends(before.outputs[:outputs], after.outputs[:outputs])
        and _keeps_attributes(before.attributes, after.attributes, attributes_dropped)
    )


def _extends(before: Any, after: Any) -> bool:
    """Whether formal parameters are the same but for more types and more optional ones."""
    if len(after) < len(before):
        return False
    same = all(
        new.option in (old.option, _OPTIONAL) and set(old.types) <= set(new.types)
        for old, new in zip(before, after, strict=False)
    )
    return same and all(new.option == _OPTIONAL for new in after[len(before) :])


def _keeps_attributes(before: Any, after: Any, dropped: set[str]) -> bool:
    kept = before.keys() - dropped
    return all(
        name in after
        and before[name].type == after[name].type
        and before[name].default_value == after[name].default_value
        for name in kept
    ) and not any(attr.required for name, attr in after.items() if name not in before)


def _rewrite(node: ir.Node, names: Names) -> None:
    """From opset 13–17 to 18."""
    if node.domain:
        return
    if node.op_type in _AXES_BECAME_INPUT and "axes" in node.attributes:
        axes = np.array(node.attributes.pop("axes").as_ints(), np.int64)
        _append_input(node, axes, names)
    if node.op_type == "Split" and len(node.inputs) == 1:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


def _append_input(node: ir.Node, array: np.ndarray, names: Names) -> None:
    name = names.fresh(f"{node.outputs[0].name}_axes")
    constant = ir.node("Constant", [], {"value": ir.tensor(array, name=name)}, name=name)
    constant.outputs[0].name = name
    constant.outputs[0].type = ir.TensorType(ir.DataType.INT64)
    constant.outputs[0].shape = ir.Shape(array.shape)
    node.prepend(constant)
    node.resize_inputs(len(node.inputs) + 1)
    node.replace_input_with(len(node.inputs) - 1, constant.outputs[0])
