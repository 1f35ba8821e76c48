"""Op ids: which nodes a model has, what they are called, and which of them may run low."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from topsideas.graph.schemas import NO_SLOTS, Slots, Target, low_slots, target_of
from topsideas.precision import FP16

_META_ID = "topsideas.op_id"


@dataclass(frozen=True, slots=True)
class Op:
    """One node of the user's model.

    Attributes:
        id: Index in ``graph.node`` for the main graph; nodes of If/Loop/Scan bodies follow
            after the last main id, depth first, in the order of the file.
        path: ``main/loop_3/body/MatMul_7``: the containers, then op type and index in its graph.
        name: The node's own name; may be empty or repeated.
        type: The operator, with its domain where that is not ONNX's own.
        slots: Which float32 inputs and outputs the op would hold in the low precision.
        candidate: Whether it may run low.
        reason: Why it is pinned, if it is.
        outputs: Names of its outputs.
        shapes: Their static shapes as inferred; symbolic sizes are strings, unknown is None.
        dtypes: Their element types by ONNX's names; empty where unknown, or no tensor.
    """

    id: int
    path: str
    name: str
    type: str
    slots: Slots
    candidate: bool
    reason: str
    outputs: tuple[str, ...]
    shapes: tuple[tuple[int | str | None, ...] | None, ...]
    dtypes: tuple[str, ...]


def op_id(node: ir.Node) -> int:
    """The id of a numbered node; clones keep it. -1 for nodes the tool inserted."""
    return int(node.meta.get(_META_ID, -1))


def number(node: ir.Node, identity: int) -> None:
    """Give a node an id."""
    node.meta[_META_ID] = identity


def bodies(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    """The subgraphs of a node as (attribute name, graph), in the order of the file."""
    for name, attr in node.attributes.items():
        if attr.type == ir.AttributeType.GRAPH:
            yield name, attr.as_graph()
        elif attr.type == ir.AttributeType.GRAPHS:
            for index, graph in enumerate(attr.as_graphs()):
                yield f"{name}_{index}", graph


def enumerate_ops(model: ir.Model, target: Target | None = None) -> tuple[Op, ...]:
    """Number every node (the id is written into the node's meta) and describe it.

    Args:
        model: The model.
        target: The low format that candidates are for; fp16 by default.
    """
    target = target or target_of(model, FP16)
    for index, node in enumerate(model.graph):
        node.meta[_META_ID] = index
    found = [_describe(target, node, "main", i) for i, node in enumerate(model.graph)]
    for index, node in enumerate(model.graph):
        _enumerate_bodies(target, node, "main", index, found)
    return tuple(found)


def _enumerate_bodies(
    target: Target, node: ir.Node, prefix: str, index: int, found: list[Op]
) -> None:
    for attribute, graph in bodies(node):
        inside = f"{prefix}/{node.op_type.lower()}_{index}/{attribute}"
        for position, child in enumerate(graph):
            child.meta[_META_ID] = len(found)
            found.append(_describe(target, child, inside, position))
            _enumerate_bodies(target, child, inside, position, found)


def _describe(target: Target, node: ir.Node, prefix: str, index: int) -> Op:
    slots = low_slots(node, target)
    pinned = slots if isinstance(slots, str) else ""
    return Op(
        id=op_id(node),
        path=f"{prefix}/{node.op_type}_{index}",
        name=node.name or "",
        type=f"{node.domain}:{node.op_type}" if node.domain else node.op_type,
        slots=NO_SLOTS if isinstance(slots, str) else slots,
        candidate=not pinned,
        reason=pinned,
        outputs=tuple(o.name or "" for o in node.outputs),
        shapes=tuple(_shape(o) for o in node.outputs),
        dtypes=tuple(_dtype(o) for o in node.outputs),
    )


def _dtype(value: ir.Value) -> str:
    is_tensor = isinstance(value.type, ir.TensorType)
    return value.type.dtype.name if is_tensor and value.type is not None else ""


def _shape(value: ir.Value) -> tuple[int | str | None, ...] | None:
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)
