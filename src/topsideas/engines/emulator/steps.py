"""A model as a list of steps: what the emulator walks instead of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from topsideas.engines.emulator.store import Tensor
from topsideas.errors import EngineError
from topsideas.graph.constants import constant
from topsideas.graph.excerpt import read_values
from topsideas.graph.ops import bodies, op_id
from topsideas.graph.schemas import Slots


@dataclass(frozen=True, eq=False)
class Step:
    """One node, ready to be run.

    Attributes:
        node: The node.
        id: Its op id, which is unique and so also names the step.
        reads: The computed values it needs, those captured by its bodies included.
        writes: Its outputs, without the empty ones.
        inside: Ids of the candidate ops whose precision changes it: its own, or its bodies'.
        slots: Its own rounding slots; None if it is pinned.
        blocks: Its bodies by attribute name.
        size: How many nodes it stands for.
    """

    node: ir.Node
    id: int
    reads: tuple[ir.Value, ...]
    writes: tuple[ir.Value, ...]
    inside: frozenset[int]
    slots: Slots | None
    blocks: dict[str, Block]
    size: int


@dataclass(frozen=True, eq=False)
class Block:
    """A graph or body.

    Attributes:
        graph: The graph.
        steps: Its nodes in order, without ``Constant`` nodes.
        releases: For each step, the values born in this block that nothing needs after it.
    """

    graph: ir.Graph
    steps: tuple[Step, ...]
    releases: tuple[tuple[ir.Value, ...], ...]


def compile_block(graph: ir.Graph, slots: Mapping[int, Slots]) -> Block:
    """Turn a numbered graph into steps; ``slots`` holds those of every candidate op."""
    steps = tuple(_step(n, slots) for n in graph if not _is_constant(n))
    return Block(graph, steps, _releases(graph, steps))


def fed(graph: ir.Graph, feeds: Mapping[str, Tensor]) -> dict[ir.Value, Tensor]:
    """The inputs of a graph by value. Raises EngineError if one has no array."""
    for value in graph.inputs:
        if value.name not in feeds and not value.is_initializer():
            raise EngineError(f"no array for input {value.name!r}; given: {sorted(feeds)}")
    return {v: feeds[str(v.name)] for v in graph.inputs if v.name in feeds}


def _is_constant(node: ir.Node) -> bool:
    return node.op_type == "Constant" and constant(node.outputs[0]) is not None


def _step(node: ir.Node, slots: Mapping[int, Slots]) -> Step:
    blocks = {name: compile_block(body, slots) for name, body in bodies(node)}
    own = slots.get(op_id(node))
    children = [step for block in blocks.values() for step in block.steps]
    inside = {op_id(node)} if own is not None else set()
    return Step(
        node=node,
        id=op_id(node),
        reads=tuple(v for v in read_values(node) if constant(v) is None),
        writes=tuple(o for o in node.outputs if o.name),
        inside=frozenset(inside.union(*(step.inside for step in children))),
        slots=own,
        blocks=blocks,
        size=1 + sum(step.size for step in children),
    )


def _releases(graph: ir.Graph, steps: tuple[Step, ...]) -> tuple[tuple[ir.Value, ...], ...]:
    """Which values each step uses last. Outputs of the graph are never released."""
    needed = set(graph.outputs)
    born = {v for step in steps for v in step.writes} | set(graph.inputs)
    releases: list[tuple[ir.Value, ...]] = []
    for step in reversed(steps):
        last = [v for v in dict.fromkeys((*step.reads, *step.writes)) if v not in needed]
        releases.append(tuple(v for v in last if v in born))
        needed.update(last)
    return tuple(reversed(releases))
