"""Casts on edges: what every reader wants, and how it gets it with as few casts as possible."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from topsideas.graph.constants import constant
from topsideas.graph.conversion_weights import LowWeights
from topsideas.graph.names import Names
from topsideas.graph.ops import op_id
from topsideas.graph.schemas import SHAPE_ONLY, Slots

_FLOAT = ir.DataType.FLOAT
_SUFFIX = {_FLOAT: "fp32", ir.DataType.FLOAT16: "fp16", ir.DataType.BFLOAT16: "bf16"}


class Edges:
    """Connects the nodes of a model again after the outputs of low ops became low.

    Create it while the model is still as the user wrote it: what is float32 then has to arrive
    as float32 at every kept op and every output of a graph. Set the types of the low ops'
    outputs, then call :meth:`connect`.

    Args:
        model: The model, changed in place.
        slots: For every op that runs low, its low inputs and outputs.
        weights: Makes low copies of constants.
        low_io: Give the float32 inputs and outputs of the main graph the low type.

    Attributes:
        casts: The ``Cast`` nodes that were inserted.
        overridable: Names of weights that are inputs too, and therefore cast at run time.
    """

    def __init__(
        self,
        model: ir.Model,
        slots: Mapping[int, Slots],
        weights: LowWeights,
        *,
        low_io: bool = False,
    ) -> None:
        self.casts: list[ir.Node] = []
        self.overridable: list[str] = []
        self._graphs = list(model.graphs())
        self._weights = weights
        self._low = weights.dtype
        self._names = Names(self._graphs)
        self._main = model.graph
        self._low_io = low_io
        # What each float32 edge must carry; edges that take either type are absent.
        self._wanted: dict[tuple[ir.Node, int], ir.DataType] = {}
        self._float_outputs = [
            (graph, index)
            for graph in self._graphs
            for index, value in enumerate(graph.outputs)
            if _is_float(value)
        ]
        self._made: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._replaced: dict[ir.Value, ir.Value] = {}
        self._superfluous: list[ir.Node] = []
        self._users_void = {n for graph in self._graphs for n in graph if self._casts_low(n)}
        self._note_wanted(slots)
        if low_io:
            self._lower_inputs()

    def connect(self) -> None:
        """Give every reader its type, give the graphs their outputs, drop what became void."""
        for graph in self._graphs:
            for node in graph:
                self._bypass_void_cast(node)
        for (node, index), dtype in self._wanted.items():
            value = node.inputs[index]
            if value is not None:
                node.replace_input_with(index, self._as(value, dtype))
        self._restore_outputs()
        for node in reversed(self._superfluous):
            _remove_unread(node)
        # The user's casts that became void may have been the only readers of one of ours.
        self.casts = [node for node in self.casts if not _remove_unread(node)]

    def _note_wanted(self, slots: Mapping[int, Slots]) -> None:
        for graph in self._graphs:
            for node in graph:
                low = slots[op_id(node)].inputs if op_id(node) in slots else frozenset()
                for index, value in enumerate(node.inputs):
                    if value is None or not _is_float(value):
                        continue
                    if index in low:
                        self._wanted[node, index] = self._low
                    elif not _reads_any_type(node, value):
                        self._wanted[node, index] = _FLOAT

    def _lower_inputs(self) -> None:
        for value in self._main.inputs:
            if not _is_float(value):
                continue
            if value.const_value is not None:
                value.const_value = self._weights.of(value.const_value, value.name or "")
            value.type = ir.TensorType(self._low)

    def _casts_low(self, node: ir.Node) -> bool:
        """Whether ``node`` is a cast from the low type to the low type."""
        value = node.inputs[0] if _is_cast(node) else None
        return value is not None and value.dtype == node.outputs[0].dtype == self._low

    def _bypass_void_cast(self, node: ir.Node) -> None:
        """A cast of the user's whose two sides became low: its readers read its input."""
        if not self._became_void(node):
            return
        value, output = node.inputs[0], node.outputs[0]
        assert value is not None
        source = self._as(value, self._low)
        for reader in output.uses():
            reader.node.replace_input_with(reader.idx, source)
        self._wanted.pop((node, 0), None)
        node.replace_input_with(0, source)
        self._replaced[output] = source
        self._superfluous.append(node)
        if output.is_graph_output():  # stays to carry the name where the user's output is low
            node.op_type = "Identity"
            node.attributes.clear()

    def _became_void(self, node: ir.Node) -> bool:
        if not _is_cast(node) or node.outputs[0].dtype != self._low or node in self._users_void:
            return False
        # A kept cast reads what its producer stored, and has no wish of its own.
        value = node.inputs[0]
        stored = value.dtype if value is not None else None
        return self._wanted.get((node, 0), stored) == self._low

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """``value`` in the type asked for, made once."""
        if value.dtype == dtype:
            return value
        if (value, dtype) not in self._made:
            self._made[value, dtype] = self._make(value, dtype)
        return self._made[value, dtype]

    def _make(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        tensor = constant(value)
        if _is_overridable(value):
            if dtype == self._low:
                self.overridable.append(value.name or "")
        elif tensor is not None and dtype == self._low:
            return self._low_weight(value, tensor)
        producer = value.producer()
        if producer is not None and _is_cast(producer):
            source = producer.inputs[0]
            if source is not None and source.dtype == dtype == self._low:
                self._superfluous.append(producer)  # widened what was low; unless others read it
                return source
        cast = self._cast(value, dtype)
        assert value.graph is not None
        if producer is not None:
            producer.append(cast)
        else:
            value.graph[0].prepend(cast)
        return cast.outputs[0]

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Node:
        name = self._names.fresh(f"{value.name}_{_SUFFIX[dtype]}")
        node = ir.node("Cast", [value], {"to": int(dtype)}, name=self._names.fresh(f"{name}_cast"))
        node.outputs[0].name = name
        node.outputs[0].type = ir.TensorType(dtype)
        if not value.is_graph_output():  # models declare wrong ones, and runtimes plan by them
            node.outputs[0].shape = value.shape
        self.casts.append(node)
        return node

    def _identity(self, value: ir.Value) -> ir.Node:
        name = self._names.fresh(f"{value.name}_output")
        node = ir.node("Identity", [value], name=name)
        node.outputs[0].name, node.outputs[0].type = name, value.type
        return node

    def _low_weight(self, value: ir.Value, tensor: ir.TensorProtocol) -> ir.Value:
        """Stored low instead of float32 where only low ops read it, else stored in both types."""
        name, graph = value.name or "", value.graph
        assert graph is not None
        if not self._only_low(value):
            value = _copy_of_constant(value, self._names.fresh(f"{name}_{_SUFFIX[self._low]}"))
        low = self._weights.of(tensor, name)
        if value.is_initializer():
            value.const_value = low
        else:
            producer = value.producer()
            assert producer is not None
            value.const_value = None
            producer.attributes.clear()
            producer.attributes["value"] = ir.AttrTensor("value", low)
        value.type = ir.TensorType(self._low)
        return value

    def _only_low(self, value: ir.Value) -> bool:
        return not value.is_graph_output() and all(
            self._wanted.get((use.node, use.idx), self._low) == self._low for use in value.uses()
        )

    def _restore_outputs(self) -> None:
        """Give outputs of graphs their type again, or the low one, under their old names."""
        restored: dict[ir.Value, ir.Value] = {}
        for graph, index in self._float_outputs:
            value = graph.outputs[index]
            wanted = self._low if self._low_io and graph is self._main else _FLOAT
            if value.dtype == wanted:
                continue
            if value not in restored:
                restored[value] = self._output_cast(graph, value, wanted)
            graph.outputs[index] = restored[value]
        for value, cast in restored.items():
            suffix = _SUFFIX[value.dtype or _FLOAT]
            name, value.name = value.name, self._names.fresh(f"{value.name}_{suffix}")
            cast.name, cast.shape = name, value.shape
            value.shape = None  # what an output declares may be wrong, and memory is planned by it

    def _output_cast(self, graph: ir.Graph, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        source = value
        while source in self._replaced:
            source = self._replaced[source]
        shared = self._as(source, wanted) if self._may_share(source, graph) else None
        if shared is None or shared.is_graph_output():
            node = self._cast(source, wanted)  # a body must return a value of its own
        elif shared.producer() is None:  # what the user's casts widened: it has a name already
            node = self._identity(shared)
        else:
            return shared
        graph.append(node)
        return node.outputs[0]

    @staticmethod
    def _may_share(source: ir.Value, graph: ir.Graph) -> bool:
        """Whether a cast for a reader may bear an output's name: not where it is a weight."""
        return source.graph is graph and (source.producer() is not None or source.is_graph_input())


def _is_float(value: ir.Value) -> bool:
    return isinstance(value.type, ir.TensorType) and value.dtype == _FLOAT


def _is_cast(node: ir.Node) -> bool:
    return node.op_type == "Cast" and not node.domain


def _remove_unread(node: ir.Node) -> bool:
    """Remove a node with one output that nobody reads; says whether it is gone."""
    output = node.outputs[0]
    if node.graph is not None and not output.uses() and not output.is_graph_output():
        node.graph.remove(node, safe=True)
    return node.graph is None


def _is_overridable(value: ir.Value) -> bool:
    """An initializer that is an input too: the caller may feed a float32 tensor instead."""
    return value.is_initializer() and value.is_graph_input()


def _reads_any_type(node: ir.Node, value: ir.Value) -> bool:
    """Whether a kept ``node`` gives the same answer on what a low producer stored."""
    if node.op_type in SHAPE_ONLY and not node.domain:
        return True
    return _is_cast(node) and (_is_overridable(value) or constant(value) is None)


def _copy_of_constant(value: ir.Value, name: str) -> ir.Value:
    """A second value beside the constant ``value``, to be filled."""
    producer = value.producer()
    if producer is None:
        copy = ir.Value(name=name, shape=value.shape, const_value=value.const_value)
        assert value.graph is not None
        value.graph.register_initializer(copy)
        return copy
    node = ir.node("Constant", [], name=name)
    node.outputs[0].name, node.outputs[0].shape = name, value.shape
    producer.append(node)
    return node.outputs[0]
