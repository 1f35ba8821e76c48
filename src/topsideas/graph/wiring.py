"""Which op reads from which, and where what an op rounds comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from topsideas.graph.constants import constant
from topsideas.graph.excerpt import read_values
from topsideas.graph.ops import op_id
from topsideas.graph.schemas import Slots


@dataclass(frozen=True, slots=True)
class Source:
    """Where an input comes from.

    Attributes:
        op: The id of the op that writes it; None for constants and inputs of a graph.
        name: The value's name.
        constant: Whether it is known before the model runs.
    """

    op: int | None
    name: str
    constant: bool


def reads_from(model: ir.Model) -> dict[int, list[int]]:
    """For each op the ids of the ops whose outputs it reads, those its bodies capture included.

    Constants are left out: they compute nothing.
    """
    found: dict[int, list[int]] = {}
    for graph in model.graphs():
        for node in graph:
            sources = (source_of(value) for value in read_values(node))
            ids = dict.fromkeys(s.op for s in sources if s.op is not None and not s.constant)
            found[op_id(node)] = list(ids)
    return found


def rounded_inputs(model: ir.Model, slots: Mapping[int, Slots]) -> dict[int, list[Source]]:
    """For each op that may run low, where the inputs come from that it rounds, in order."""
    return {
        op_id(node): [
            source_of(value)
            for index in sorted(slots[op_id(node)].inputs)
            if (value := node.inputs[index]) is not None
        ]
        for graph in model.graphs()
        for node in graph
        if op_id(node) in slots
    }


def source_of(value: ir.Value) -> Source:
    """Where a value comes from."""
    producer = value.producer()
    return Source(
        None if producer is None else op_id(producer),
        value.name or "",
        constant(value) is not None,
    )
