"""Lifting a model's opset, where an op has the low format only in a later version of its schema.

Many ops know bfloat16 only from opset 22 on. A newer schema that differs in nothing but types and
new optional parts means the same for a node written for the old one, so such models are lifted by
changing a number. Attributes that became inputs are moved; what else changed meaning stops the
lift before it.
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

FIRST_WITH_BF16 = 13
"""The opset in which bfloat16 came to ONNX."""

# Before it, ops broadcast in another way, and not all of their schemas show it.
_OLDEST = 7

# Attributes that became inputs: in which version, and from which input on.
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
_MOVED: dict[str, tuple[int, tuple[str, ...]]] = {
    "Slice": (10, ("starts", "ends", "axes")),
    "TopK": (10, ("k",)),
    "Pad": (11, ("pads",)),
    "Squeeze": (13, ("axes",)),
    "Unsqueeze": (13, ("axes",)),
    "ReduceSum": (13, ("axes",)),
    "Split": (13, ("split",)),
    **{f"Reduce{name}": (18, ("axes",)) for name in _REDUCTIONS},
}

# Attributes that went away, or mean something else, and do not matter in the nodes that are
# lifted; see ``_is_plain``.
_DROPPED: dict[str, tuple[int, str]] = {
    "Pad": (11, "value"),
    "Dropout": (12, "ratio"),
    "Softmax": (13, "axis"),
    "LogSoftmax": (13, "axis"),
    "Hardmax": (13, "axis"),
}
_SOFTMAX = {"Softmax", "LogSoftmax", "Hardmax"}
_SPLITS_IN_NUMBERS = 18

# Same signature, another meaning: the version that changed it.
_MEANING_CHANGED = {"RoiAlign": 16, "GroupNormalization": 21, "Upsample": 14}

_OPTIONAL = onnx.defs.OpSchema.FormalParameterOption.Optional


def liftable_to(nodes: Iterable[ir.Node], opset: int, limit: int = NEWEST) -> int:
    """The newest opset of the default domain that all nodes can be lifted to; at least ``opset``.

    Args:
        nodes: All nodes of a model, those of bodies too.
        opset: The version they are written for.
        limit: How far to look.
    """
    if opset < _OLDEST:
        return opset
    return min((_liftable(n, opset, limit) for n in nodes if not n.domain), default=limit)


def _liftable(node: ir.Node, opset: int, limit: int) -> int:
    outputs = sum(bool(output.name) for output in node.outputs)
    newest = _newest_of(node.op_type, outputs, opset, max(opset, limit))
    version, _ = _DROPPED.get(node.op_type, (0, ""))
    return version - 1 if opset < version <= newest and not _is_plain(node) else newest


def _is_plain(node: ir.Node) -> bool:
    """Whether what an older version could say besides is not said."""
    if node.op_type == "Pad":  # by zero, which is the default of the new input
        value = node.attributes.get("value")
        return value is None or value.as_float() == 0
    if node.op_type == "Dropout":  # not training: the ratio is not used
        return sum(bool(output.name) for output in node.outputs) == 1
    return _softmax_axis(node) is not None


def _softmax_axis(node: ir.Node) -> int | None:
    """The one axis that an old softmax runs over; None where there are more, or none is known.

    The old op took all axes from ``axis`` on as one, the new one takes that axis. They agree where
    all of them but one have a single element.
    """
    given = node.attributes.get("axis")
    axis = given.as_int() if given is not None else 1
    if axis == -1:
        return axis
    shape = _shape(node)
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    axis %= len(shape)
    several = [at for at in range(axis, len(shape)) if shape[at] != 1]
    return several[0] if len(several) == 1 else axis if not several else None


def _shape(node: ir.Node) -> ir.Shape | None:
    """The shape of what an op reads, or of what it writes, of which it keeps the shape."""
    values = (node.inputs[0], node.outputs[0])
    known = [v.shape for v in values if v is not None and v.shape is not None]
    return known[0] if known and all(len(shape) == len(known[0]) for shape in known) else None


def needed_version(opset: int, limit: int, serves: Callable[[int], bool]) -> int:
    """The lowest version from ``opset`` to ``limit`` that serves; ``opset`` if none does."""
    return next((version for version in range(opset, limit + 1) if serves(version)), opset)


def lift(model: ir.Model, opset: int) -> None:
    """Lift a model in place to ``opset``, which :func:`liftable_to` must allow.

    Nodes keep their places; what becomes an input becomes an initializer of the node's graph.
    """
    old = model.opset_imports.get("", 1)
    if opset <= old:
        return
    graphs = list(model.graphs())
    names = Names(graphs)
    for graph in graphs:
        for node in list(graph):
            if not node.domain:
                _rewrite(node, old, opset, names)
                node.version = None
    model.opset_imports[""] = opset


def lift_ir_version(model: ir.Model) -> list[str]:
    """Lift a model in place to IR version 4; a line that says so.

    Up to IR version 3 weights had to be listed as inputs, which fixes their type to float32.
    From 4 on they need not be, and those that are count as overridable defaults. Runtimes treat
    the weights of old models as constants; this says the same in the file.
    """
    if model.ir_version >= 4:
        return []
    old, model.ir_version = model.ir_version, 4
    fixed = fix_weights(model)
    line = f"IR version {old} lifted to 4, so that {fixed} weights are constants "
    return [line + "and no longer listed among the inputs"]


def fix_weights(model: ir.Model) -> int:
    """Take weights off a model's inputs, so that no caller can replace them; returns how many."""
    inputs, weights = model.graph.inputs, model.graph.initializers
    listed = [value for value in inputs if value.name in weights]
    for value in listed:
        inputs.remove(value)
    return len(listed)


@cache
def _newest_of(op_type: str, outputs: int, opset: int, limit: int) -> int:
    newest = opset
    for version in range(opset + 1, limit + 1):
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
    moved = _gone(_MOVED.get(op_type, (0, ())), old, new)
    version, dropped = _DROPPED.get(op_type, (0, ""))
    gone = {*moved, *_gone((version, (dropped,)), old, new)}
    return (
        _extends(before.inputs, after.inputs, len(moved))
        and _extends(before.outputs[:outputs], after.outputs[:outputs], 0)
        and _keeps_attributes(before.attributes, after.attributes, gone)
    )


def _gone(change: tuple[int, tuple[str, ...]], old: int, new: int) -> tuple[str, ...]:
    """The attributes of a change, if it lies between two versions."""
    version, attributes = change
    return attributes if old < version <= new else ()


def _extends(before: Any, after: Any, moved: int) -> bool:
    """Whether formal parameters are the same but for more types and more optional ones.

    The first ``moved`` of the new ones were attributes.
    """
    if len(after) < len(before):
        return False
    same = all(
        new.option in (old.option, _OPTIONAL) and set(old.types) <= set(new.types)
        for old, new in zip(before, after, strict=False)
    )
    return same and all(new.option == _OPTIONAL for new in after[len(before) + moved :])


def _keeps_attributes(before: Any, after: Any, dropped: set[str]) -> bool:
    kept = before.keys() - dropped
    return all(
        name in after
        and before[name].type == after[name].type
        and before[name].default_value == after[name].default_value
        for name in kept
    ) and not any(attr.required for name, attr in after.items() if name not in before)


def _rewrite(node: ir.Node, old: int, new: int, names: Names) -> None:
    for name in _gone(_MOVED.get(node.op_type, (0, ())), old, new):
        attribute = node.attributes.pop(name, None)
        index = _MOVED[node.op_type][1].index(name) + 1
        if attribute is not None:
            values = attribute.value if isinstance(attribute.value, int) else attribute.as_ints()
            array = np.atleast_1d(np.array(values, np.int64))
            _set_input(node, index, array, names.fresh(f"{node.outputs[0].name}_{name}"))
    version, dropped = _DROPPED.get(node.op_type, (0, ""))
    if old < version <= new:
        axis = _softmax_axis(node) if node.op_type in _SOFTMAX else None
        node.attributes.pop(dropped, None)
        if axis is not None:
            node.attributes["axis"] = ir.AttrInt64("axis", axis)
    whole = node.op_type == "Split" and len(node.inputs) == 1
    if whole and old < _SPLITS_IN_NUMBERS <= new:
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", len(node.outputs))


def _set_input(node: ir.Node, index: int, array: np.ndarray, name: str) -> None:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.type, value.shape = ir.TensorType(ir.DataType.INT64), ir.Shape(array.shape)
    assert node.graph is not None
    assert isinstance(node.graph, ir.Graph)
    node.graph.register_initializer(value)
    node.resize_inputs(max(index + 1, len(node.inputs)))
    node.replace_input_with(index, value)
