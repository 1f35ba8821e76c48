"""Random small models: every kind of edge, body, type and name that the converter must get right.

All tensors have one shape, so that any value fits anywhere; what varies is the graph. A model
that ONNX Runtime itself refuses is not one that a test can judge: see ``runs``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from conversion_runners import Runtime
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan

SHAPE = (2, 3)
FLOAT, HALF, BRAIN = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
DOUBLE, INT8, BOOL, INT64 = (
    TensorProto.DOUBLE,
    TensorProto.INT8,
    TensorProto.BOOL,
    TensorProto.INT64,
)

# What an inserted name could run into, and what tools that build names by hand trip over.
_HOSTILE = (
    "x_fp16",
    "x_fp32",
    "v_fp16_cast",
    "a/b",
    "ä",
    "[0]",
    "n,m:*",
    "v_fp16_1",
    " ",
    "x_bf16",
)
_NODE_NAMES = ("", "", "node", "x_fp16_cast", "node_1", "a,b", "ops/é")
_WEIGHTS = (0.1, -1.0, 1000.3, 70000.0, 1e-9, 65519.0, 3.4e38, 0.0)
_DEPTH = 3

Draw = Callable[[st.SearchStrategy], object]


@dataclass
class _Scope:
    """What a graph under construction holds, and what it sees of the graphs around it."""

    values: dict[str, int]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    own: list[str] = field(default_factory=list)


class _Builder:
    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._used: set[str] = set()

    def pick(self, options: object) -> object:
        return self._draw(st.sampled_from(list(options)))

    def chance(self, one_in: int) -> bool:
        return self._draw(st.integers(0, one_in - 1)) == one_in - 1

    def name(self) -> str:
        wish = self.pick(_HOSTILE) if self.chance(4) else f"v{len(self._used)}"
        while wish in self._used:
            wish += "_"
        self._used.add(wish)
        return wish

    def of(self, scope: _Scope, kind: int = FLOAT) -> str:
        """A value of a type; recent ones are likelier, so that graphs get deep."""
        found = [name for name, k in scope.values.items() if k == kind]
        if not found:
            return self.cast(scope, kind)
        return str(self.pick(found[-3:] + found))

    def add(self, scope: _Scope, op: str, inputs: list[str], kinds: list[int], **more: object):
        outputs = [self.name() for _ in kinds]
        domain = more.pop("domain", "")
        name = str(self.pick(_NODE_NAMES))
        scope.nodes.append(helper.make_node(op, inputs, outputs, name, domain=domain, **more))
        for output, kind in zip(outputs, kinds, strict=True):
            scope.values[output] = kind
            scope.own.append(output)
        return outputs[0]

    def cast(self, scope: _Scope, kind: int) -> str:
        return self.add(scope, "Cast", [self.of(scope)], [kind], to=kind)

    def weight(self, scope: _Scope, shape: tuple[int, ...] = SHAPE) -> str:
        array = np.resize([self.pick(_WEIGHTS) for _ in range(3)], shape).astype(np.float32)
        if self.chance(3):
            tensor = numpy_helper.from_array(array)
            if shape != SHAPE:
                return self._constant(scope, tensor)
            return self.add(scope, "Constant", [], [FLOAT], value=tensor)
        name = self.name()
        scope.weights.append(numpy_helper.from_array(array, name))
        if shape == SHAPE:
            scope.values[name] = FLOAT
            if self.chance(4):
                scope.own.append(name)
        return name

    def _constant(self, scope: _Scope, tensor: onnx.TensorProto) -> str:
        name = self.name()
        scope.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def any_float(self, scope: _Scope, shape: tuple[int, ...] = SHAPE) -> str:
        return self.weight(scope, shape) if self.chance(4) else self.of(scope)

    # --- one step each ---------------------------------------------------------------------

    def step(self, scope: _Scope, depth: int) -> None:
        steps = [self._unary, self._binary, self._binary, self._cast, self._strange, self._shaped]
        if depth < _DEPTH:
            steps += [self._if, self._loop, self._scan]
        self.pick(steps)(scope, depth)

    def _unary(self, scope: _Scope, depth: int) -> None:
        op = str(self.pick(("Tanh", "Neg", "Identity", "Sqrt", "Exp", "Sigmoid", "Softmax")))
        self.add(scope, op, [self.of(scope)], [FLOAT])

    def _binary(self, scope: _Scope, depth: int) -> None:
        op = str(self.pick(("Add", "Mul", "Sub", "Div", "Max")))
        shape = self.pick((SHAPE, SHAPE, (3,), (), (1,)))
        sides = [self.of(scope), self.any_float(scope, shape)]
        self.add(scope, op, sides[:: self.pick((1, -1))], [FLOAT])

    def _cast(self, scope: _Scope, depth: int) -> None:
        kind = self.pick((HALF, HALF, BRAIN, DOUBLE, FLOAT))
        low = self.cast(scope, kind)
        if kind == HALF and self.chance(2):
            # A part of the user's own in fp16; the CPU provider computes in fp32 what computes.
            low = self.add(scope, "Identity", [low], [HALF])
        if self.chance(2):
            self.add(scope, "Cast", [low], [FLOAT], to=FLOAT)

    def _strange(self, scope: _Scope, depth: int) -> None:
        self.pick(
            (self._quantised, self._optional, self._sequence, self._clip, self._where, self._like)
        )(scope)

    def _quantised(self, scope: _Scope) -> None:
        scale, zero = self._scalar(scope, np.float32(0.05)), self._scalar(scope, np.int8(3))
        low = self.add(scope, "QuantizeLinear", [self.of(scope), scale, zero], [INT8])
        if self.chance(2):
            self.add(scope, "DequantizeLinear", [low, scale, zero], [FLOAT])

    def _scalar(self, scope: _Scope, value: np.generic) -> str:
        name = self.name()
        scope.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _optional(self, scope: _Scope) -> None:
        held = self.name()
        scope.nodes.append(helper.make_node("Optional", [self.of(scope)], [held]))
        self.add(scope, "OptionalGetElement", [held], [FLOAT])

    def _sequence(self, scope: _Scope) -> None:
        held = self.name()
        parts = [self.of(scope), self.of(scope)]
        scope.nodes.append(helper.make_node("SequenceConstruct", parts, [held]))
        self.add(scope, "SequenceAt", [held, self._scalar(scope, np.int64(1))], [FLOAT])

    def _clip(self, scope: _Scope) -> None:
        least = self.weight(scope, ()) if self.chance(2) else ""
        self.add(scope, "Clip", [self.of(scope), least, self.weight(scope, ())], [FLOAT])

    def _where(self, scope: _Scope) -> None:
        self.add(scope, "Less", [self.of(scope), self.any_float(scope)], [BOOL])
        sides = [self.of(scope), self.any_float(scope)]
        self.add(scope, "Where", [self.of(scope, BOOL), *sides], [FLOAT])

    def _like(self, scope: _Scope) -> None:
        shape = self.name()
        scope.nodes.append(helper.make_node("Shape", [self.of(scope)], [shape]))
        if self.chance(2):
            fill = numpy_helper.from_array(np.array([self.pick(_WEIGHTS)], np.float32))
            self.add(scope, "ConstantOfShape", [shape], [FLOAT], value=fill)
        else:
            self.add(scope, "Reshape", [self.of(scope), shape], [FLOAT])

    def _shaped(self, scope: _Scope, depth: int) -> None:
        kind = self.pick(("MatMul", "LayerNormalization", "Split", "Dropout", "FusedMatMul"))
        data = self.of(scope)
        if kind == "MatMul":
            self.add(scope, kind, [data, self.weight(scope, (3, 3))], [FLOAT])
        elif kind == "FusedMatMul":
            sides = [data, self.weight(scope, (3, 3))]
            self.add(scope, kind, sides, [FLOAT], domain="com.microsoft", alpha=0.5)
        elif kind == "LayerNormalization":
            self.add(scope, kind, [data, self.weight(scope, (3,))], [FLOAT])
        elif kind == "Dropout":
            self.add(scope, kind, [data], [FLOAT, BOOL])
        else:
            halves = [self.name(), self.name()]
            scope.nodes.append(helper.make_node("Split", [data], halves, axis=0, num_outputs=2))
            self.add(scope, "Concat", halves, [FLOAT], axis=0)

    # --- bodies ----------------------------------------------------------------------------

    def _condition(self, scope: _Scope) -> str:
        """A bool scalar from a float."""
        total = self.name()
        reduced = helper.make_node("ReduceMax", [self.of(scope)], [total], keepdims=0)
        scope.nodes.append(reduced)
        flag = self.name()
        limit = self._scalar(scope, np.float32(self.pick((0.0, 1.0))))
        scope.nodes.append(helper.make_node("Less", [total, limit], [flag]))
        return flag

    def _body(self, scope: _Scope, depth: int, given: list[str], results: int) -> _Scope:
        inner = _Scope(dict(scope.values) | dict.fromkeys(given, FLOAT), own=list(given))
        for _ in range(self._draw(st.integers(0, 3))):
            self.step(inner, depth + 1)
        while len(self._results(inner, given)) < results:
            self._unary(inner, depth)
        return inner

    def _results(self, scope: _Scope, given: list[str]) -> list[str]:
        return [n for n in dict.fromkeys(scope.own) if scope.values[n] == FLOAT]

    def _give(self, inner: _Scope, given: list[str], count: int) -> list[str]:
        """Results of a body: values of its own, each once, most likely the last."""
        found = self._results(inner, given)
        return [found.pop(-1 if not self.chance(3) else 0) for _ in range(count)]

    def _graph(self, inner: _Scope, inputs: list[onnx.ValueInfoProto], outputs: list) -> object:
        typed = inner.weights
        return helper.make_graph(inner.nodes, "body", inputs, outputs, typed)

    def _if(self, scope: _Scope, depth: int) -> None:
        flag, count = self._condition(scope), int(self._draw(st.integers(1, 2)))
        branches = {}
        for side in ("then_branch", "else_branch"):
            inner = self._body(scope, depth, [], count)
            given = [_info(name) for name in self._give(inner, [], count)]
            branches[side] = self._graph(inner, [], given)
        self.add(scope, "If", [flag], [FLOAT] * count, **branches)

    def _loop(self, scope: _Scope, depth: int) -> None:
        turn, going, state, still = (self.name() for _ in range(4))
        inner = self._body(scope, depth, [state], 2)
        inner.nodes.append(helper.make_node("Identity", [going], [still]))
        results = self._give(inner, [state], 2)
        inputs = [_scalar(turn, INT64), _scalar(going, BOOL), _info(state)]
        body = self._graph(inner, inputs, [_scalar(still, BOOL), *map(_info, results)])
        turns = self._scalar(scope, np.int64(self.pick((0, 1, 3))))
        last, scanned = self.name(), self.name()
        inside = [turns, self._scalar(scope, np.bool_(True)), self.any_float(scope)]
        name = str(self.pick(_NODE_NAMES))
        scope.nodes.append(helper.make_node("Loop", inside, [last, scanned], name, body=body))
        self._took(scope, last)
        total = self.name()
        scope.nodes.append(helper.make_node("ReduceSum", [scanned], [total], keepdims=0))
        self.add(scope, "Add", [last, total], [FLOAT])

    def _scan(self, scope: _Scope, depth: int) -> None:
        """Over the rows of a value: what a body sees of the outside has another shape."""
        state, row = self.name(), self.name()
        inner = self._body(scope, depth, [state], 1)
        added = self.name()
        inner.nodes.append(helper.make_node("Add", [state, row], [added]))
        inner.values[added] = FLOAT
        shown = helper.make_tensor_value_info(row, FLOAT, [SHAPE[1]])
        # The CPU provider leaves a state that a body only hands on in memory that nobody wrote.
        inner.own.remove(state)
        if not self._results(inner, []):
            self._unary(inner, depth)
        result = self._give(inner, [], 1)[0]
        body = self._graph(inner, [_info(state), shown], [_info(result), _info(added)])
        last, scanned = self.name(), self.name()
        inside = [self.any_float(scope), self.of(scope)]
        node = helper.make_node("Scan", inside, [last, scanned], body=body, num_scan_inputs=1)
        scope.nodes.append(node)
        self._took(scope, last)

    def _took(self, scope: _Scope, name: str) -> None:
        scope.values[name] = FLOAT
        scope.own.append(name)


def _info(name: str, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, SHAPE)


def _scalar(name: str, kind: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [])


@st.composite
def models(draw: Draw) -> onnx.ModelProto:
    """A model of opset 18 with up to a dozen steps, bodies up to three deep."""
    build = _Builder(draw)
    inputs = ["x", build.name()][: draw(st.integers(1, 2))]
    build._used.add("x")
    scope = _Scope(dict.fromkeys(inputs, FLOAT), own=list(inputs))
    kinds = [_info(name) for name in inputs]
    if build.chance(4):  # a weight that a caller may replace
        weight = build.weight(scope)
        if any(w.name == weight for w in scope.weights):
            kinds.append(_info(weight))
    for _ in range(draw(st.integers(1, 8))):
        build.step(scope, 0)
    shown = [n for n in dict.fromkeys(scope.own) if scope.values[n] != BRAIN]
    outputs = [n for n in shown if build.chance(3)] or [shown[-1]]
    infos = [_info(name, scope.values[name]) for name in outputs]
    graph = helper.make_graph(scope.nodes, "random", kinds, infos, scope.weights)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def examples(sample: int, full: int) -> settings:
    """So many models, always the same; ``full`` of them with ``TOPSIDEAS_FULL=1``."""
    return settings(
        max_examples=full if os.environ.get("TOPSIDEAS_FULL") == "1" else sample,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


def runs(proto: onnx.ModelProto) -> bool:
    """Whether ONNX and its runtime take and run the model, but for names of nodes it repeats."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    _unname(copy.graph)
    try:
        onnx.checker.check_model(copy, full_check=True)
        Runtime()(copy, feeds_of(load_model(copy)))
    except Exception:  # of onnx's and onnxruntime's many kinds
        return False
    return True


def _unname(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        node.name = ""
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _unname(attribute.g)


def plans_of(source: Model) -> st.SearchStrategy[PrecisionPlan]:
    """Random plans of a model."""
    ids = sorted(source.candidates)
    return (
        st.sets(st.sampled_from(ids)).map(PrecisionPlan.of)
        if ids
        else st.just(PrecisionPlan.of([]))
    )


def feeds_of(source: Model) -> dict[str, np.ndarray]:
    """Inputs, without the weights that a caller may replace."""
    rng = np.random.default_rng(0)
    return {
        str(value.name): (2 * rng.standard_normal(SHAPE)).astype(np.float32)
        for value in source.inputs()
    }
