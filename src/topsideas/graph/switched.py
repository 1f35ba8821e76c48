"""A model whose ops take their precision as inputs, so that one session runs every plan.

Each candidate op becomes an ``If`` on a boolean input, its switch: one branch is the op as it is,
the other one rounds what the op reads and writes. Weights stay constants in both branches, so
runtimes pack them as usual and results are bit-equal to those of a graph with fixed precisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from topsideas.graph.chain import Nodes
from topsideas.graph.constants import LowConstants, constant
from topsideas.graph.emulation import forget_shapes
from topsideas.graph.excerpt import read_values
from topsideas.graph.names import Names
from topsideas.graph.ops import bodies, op_id
from topsideas.graph.rounding_nodes import Rounding, sums_low
from topsideas.graph.schemas import Slots
from topsideas.precision import Numerics

# They draw other numbers each time they run.
_RANDOM = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})
_DRAWING = _RANDOM | {"Bernoulli", "Multinomial"}
_TRAINING_MODE = 2

_SWITCH, _SECOND, _SHAPE = "topsideas.switch", "topsideas.second_switch", "topsideas.shape"

# Ops with more bytes of weights get no third branch, since each one packs weights of its own.
_SMALL_WEIGHTS = 1 << 16


@dataclass(frozen=True)
class Switched:
    """A rewritten model.

    Attributes:
        graph: Its main graph; the switches are read in it but declared nowhere.
        low: The switch of each candidate op: true runs it low.
        fresh: A second switch of some ops: whether any input needs rounding when the op runs low.
        producers: For the ops in ``fresh``, the ops that write these inputs; if all of them run
            low, none does.
    """

    graph: ir.Graph
    low: dict[int, ir.Value]
    fresh: dict[int, ir.Value]
    producers: dict[int, frozenset[int]]


def switched(model: ir.Model, slots: Mapping[int, Slots], numerics: Numerics) -> Switched:
    """A copy of ``model`` with a switch for each op in ``slots``.

    Args:
        model: A numbered model; left unchanged. Weights are shared with the copy.
        slots: For every candidate op, which of its inputs and outputs round.
        numerics: The rounding.
    """
    graph = model.clone().graph
    ranks = {v: len(v.shape) for n in graph for v in n.outputs if v.shape is not None}
    for value in ranks:
        value.meta[_SHAPE] = value.shape
    forget_shapes(graph)
    _keep_ranks(graph, ranks)
    _lift_constants(graph)
    switching = _Switching(graph, slots, numerics, model.opset_imports.get("", 1))
    switching.apply(graph)
    return Switched(graph, switching.low, switching.fresh, switching.producers)


def _keep_ranks(graph: ir.Graph, ranks: Mapping[ir.Value, int]) -> None:
    """Tell how many axes bodies read: inside a Scan, ONNX Runtime infers its own from those."""
    for node in graph:
        if any(bodies(node)):
            for value in read_values(node):
                if value in ranks:
                    value.shape = ir.Shape([None] * ranks[value])


def is_switch(node: ir.Node) -> bool:
    """Whether a node of a switched model stands for a candidate op, which its branches hold."""
    return node.op_type == "If" and _SWITCH in node.meta


def taken(switch: ir.Node, *, low: bool, stored: bool) -> ir.Graph:
    """The branch of a switch that runs.

    Args:
        switch: A node for which :func:`is_switch` holds.
        low: Whether the op runs low.
        stored: Whether its inputs are known to need no rounding then.
    """
    branch = switch.attributes["then_branch" if low else "else_branch"].as_graph()
    if low and branch[0].op_type == "If" and _SECOND in branch[0].meta:
        return branch[0].attributes["else_branch" if stored else "then_branch"].as_graph()
    return branch


def shape_of(value: ir.Value) -> ir.Shape | None:
    """The shape of a value that nodes of the model write, as far as it is known."""
    shape: ir.Shape | None = value.meta.get(_SHAPE)
    return shape


def draws(node: ir.Node) -> bool:
    """Whether a node, or one in its bodies, gives other values each time it runs."""
    if any(draws(inner) for _, body in bodies(node) for inner in body):
        return True
    if node.op_type == "Dropout" and not node.domain:
        return len(node.inputs) > _TRAINING_MODE and node.inputs[_TRAINING_MODE] is not None
    return node.op_type in _DRAWING and not node.domain


def _lift_constants(graph: ir.Graph) -> None:
    """Turn ``Constant`` nodes of the main graph into initializers, which any segment may hold."""
    for node in list(graph):
        tensor = constant(node.outputs[0]) if node.op_type == "Constant" else None
        if tensor is None or node.outputs[0] in graph.outputs:
            continue
        old = node.outputs[0]
        lifted = ir.Value(name=old.name, type=ir.TensorType(tensor.dtype), const_value=tensor)
        lifted.shape = ir.Shape(tensor.shape.numpy())
        ir.convenience.replace_all_uses_with(old, lifted)
        graph.remove(node)
        graph.register_initializer(lifted)


@dataclass
class _Switching:
    """One rewriting in place."""

    root: ir.Graph
    slots: Mapping[int, Slots]
    numerics: Numerics
    opset: int
    low: dict[int, ir.Value] = field(default_factory=dict)
    fresh: dict[int, ir.Value] = field(default_factory=dict)
    producers: dict[int, frozenset[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = Names((self.root, *self.root.subgraphs()))
        self.rounding = Rounding(self.numerics, self.opset, self.names, self.root)
        self.constants = LowConstants(self.numerics)
        self.weights: dict[ir.Value, ir.Value] = {}

    def apply(self, graph: ir.Graph) -> None:
        """Rewrite ``graph`` and, recursively, its bodies."""
        for node in list(graph):
            for _, body in bodies(node):
                self.apply(body)
            if op_id(node) in self.slots:
                self._replace(node, graph)

    def _replace(self, node: ir.Node, graph: ir.Graph) -> None:
        op = op_id(node)
        self.low[op] = _switch(self.names.fresh(f"low/{op}"))
        drawn = self._drawn(node) if node.op_type in _RANDOM and not node.domain else None
        low = self._low_branch(node) if drawn is None else self._stored(node, drawn)
        kept = self._kept_branch(node) if drawn is None else self._as_is(node, drawn)
        container = self._if(self.low[op], {"then_branch": low, "else_branch": kept}, node)
        container.meta.update({**node.meta, _SWITCH: True})
        graph.insert_before(node, container if drawn is None else [drawn, container])
        named = [o for o in node.outputs if o.name]
        for old, new in zip(named, container.outputs, strict=True):
            new.name, new.type, new.shape = old.name, old.type, old.shape
            new.meta.update(old.meta)
            old.name = self.names.fresh(f"{old.name}/old")
            ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        graph.remove(node, safe=True)

    def _if(self, switch: ir.Value, branches: dict[str, ir.Graph], node: ir.Node) -> ir.Node:
        attributes = [ir.AttrGraph(name, graph) for name, graph in branches.items()]
        count = sum(bool(o.name) for o in node.outputs)
        return ir.Node("", "If", [switch], attributes, num_outputs=count, name=node.name)

    def _kept_branch(self, node: ir.Node) -> ir.Graph:
        copy = self._copy(node, "kept")
        return ir.Graph([], [o for o in copy.outputs if o.name], nodes=[copy], name="kept")

    def _drawn(self, node: ir.Node) -> ir.Node:
        """The op outside its branches: both precisions must see the same numbers."""
        copy = self._copy(node, "drawn")
        copy.meta.clear()
        return copy

    def _stored(self, node: ir.Node, drawn: ir.Node) -> ir.Graph:
        name = self.names.fresh(f"{node.outputs[0].name}/low")
        nodes, value = self.rounding.result(drawn, drawn.outputs[0], name)
        return ir.Graph([], [value], nodes=nodes, name="low")

    def _as_is(self, node: ir.Node, drawn: ir.Node) -> ir.Graph:
        same = ir.node("Identity", drawn.outputs)
        same.outputs[0].name = self.names.fresh(f"{node.outputs[0].name}/kept")
        same.outputs[0].type = drawn.outputs[0].type
        return ir.Graph([], same.outputs, nodes=[same], name="kept")

    def _low_branch(self, node: ir.Node) -> ir.Graph:
        """The op run low; where its producers often run low too, their results are read as is."""
        op, producers = op_id(node), self._producers(node)
        if producers is None or self._weight_bytes(node) > _SMALL_WEIGHTS:
            return self._rounded(node, "low", inputs=True)
        if not producers:
            return self._rounded(node, "low", inputs=False)
        self.producers[op] = producers
        self.fresh[op] = _switch(self.names.fresh(f"fresh/{op}"))
        branches = {
            "then_branch": self._rounded(node, "fresh", inputs=True),
            "else_branch": self._rounded(node, "stored", inputs=False),
        }
        inner = self._if(self.fresh[op], branches, node)
        inner.meta[_SECOND] = True
        for new, old in zip(inner.outputs, [o for o in node.outputs if o.name], strict=True):
            new.name, new.type = self.names.fresh(f"{old.name}/low"), old.type
        return ir.Graph([], inner.outputs, nodes=[inner], name="low")

    def _producers(self, node: ir.Node) -> frozenset[int] | None:
        """The ops whose low results are all that ``node`` would round; None if others are."""
        found = set()
        for value in self._rounded_inputs(node):
            if constant(value) is not None:
                continue
            producer = value.producer()
            slots = self.slots.get(op_id(producer)) if producer is not None else None
            # Rewritten producers have lost their index; all their float32 outputs are rounded
            # unless the schema pins one, which is rare: then the input is rounded once more.
            if producer is None or slots is None or not self._stores_all(producer, slots):
                return None
            found.add(op_id(producer))
        return frozenset(found)

    @staticmethod
    def _stores_all(producer: ir.Node, slots: Slots) -> bool:
        floats = sum(o.dtype == ir.DataType.FLOAT for o in producer.outputs if o.name)
        return floats <= len(slots.outputs)

    def _rounded_inputs(self, node: ir.Node) -> list[ir.Value]:
        inputs = (node.inputs[i] for i in sorted(self.slots[op_id(node)].inputs))
        return list(dict.fromkeys(v for v in inputs if v is not None))

    def _weight_bytes(self, node: ir.Node) -> int:
        tensors = (constant(v) for v in self._rounded_inputs(node))
        return sum(t.nbytes for t in tensors if t is not None)

    def _rounded(self, node: ir.Node, label: str, *, inputs: bool) -> ir.Graph:
        """A branch with ``node`` run low.

        Args:
            node: The op.
            label: Goes into names.
            inputs: Also round computed inputs; constants always are.
        """
        copy = self._copy(node, f"{label}/raw")
        before = self._round_inputs(copy, label, computed=inputs)
        after: Nodes = []
        outputs: list[ir.Value] = []
        for index, (value, old) in enumerate(zip(copy.outputs, node.outputs, strict=True)):
            if not old.name:
                continue
            stores = index in self.slots[op_id(node)].outputs
            if stores or sums_low(copy, self.numerics):
                name = self.names.fresh(f"{old.name}/{label}")
                nodes, value = self.rounding.result(copy, value, name, stores=stores)
                after += nodes
            outputs.append(value)
        return ir.Graph([], outputs, nodes=[*before, copy, *after], name=label)

    def _round_inputs(self, copy: ir.Node, label: str, *, computed: bool) -> Nodes:
        before: Nodes = []
        rounded: dict[ir.Value, ir.Value] = {}
        for index in sorted(self.slots[op_id(copy)].inputs):
            value = copy.inputs[index]
            if value is None:
                continue
            if constant(value) is not None:
                rounded[value] = self._low_weight(value)
            elif not computed:
                continue
            elif value not in rounded:
                name = self.names.fresh(f"{value.name}/{label}")
                nodes, rounded[value] = self.rounding.value(value, name)
                before += nodes
            copy.replace_input_with(index, rounded[value])
        return before

    def _low_weight(self, value: ir.Value) -> ir.Value:
        tensor = constant(value)
        assert tensor is not None
        if value not in self.weights:
            low = self.constants.of(tensor)
            name = self.names.fresh(f"{value.name}/low")
            weight = ir.Value(name=name, type=ir.TensorType(low.dtype), const_value=low)
            weight.shape = ir.Shape(low.shape.numpy())
            self.root.register_initializer(weight)
            self.weights[value] = weight
        return self.weights[value]

    def _copy(self, node: ir.Node, label: str) -> ir.Node:
        copy = ir.Node(
            node.domain,
            node.op_type,
            node.inputs,
            node.attributes.values(),
            overload=node.overload,
            num_outputs=len(node.outputs),
            name=node.name,
        )
        copy.meta.update(node.meta)
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name = self.names.fresh(f"{old.name}/{label}") if old.name else ""
            new.type = old.type
        return copy


def _switch(name: str) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
