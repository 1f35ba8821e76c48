"""Plans that are said to compute the same do, and those next to them are not said to."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.graph.equivalence import Equivalence
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Accumulation, Numerics, Overflow, Subnormals
from topsideas.testing.planted import parse

SHAPE = (2, 6)


def _equivalence(model: Model, numerics: Numerics | None = None) -> Equivalence:
    slots = {op.id: op.slots for op in model.ops if op.candidate}
    return Equivalence(model.graph_model, slots, numerics or Numerics())


BRANCHES = """g (float[6] x) => (float[6] y) <bool t = {1}> {
    a = Exp (x)
    y = If (t) <
        then_branch = th () => (float[6] p) { p = Identity (a) },
        else_branch = el () => (float[6] q) { r = Neg (x)  q = Abs (r) }
    >
}"""

# A model, what runs low, and what may run low besides.
CASES = {
    "what selects from what is stored": (
        """g (float[6] x) => (float[6] y) {
            a = Exp (x)  b = Relu (a)  c = Neg (b)  y = Exp (c)
        }""",
        {0},
        {1, 2},
    ),
    "what moves to where it is rounded": (
        """g (float[2, 3] x) => (float[3, 2] y) {
            a = Exp (x)  b = Transpose (a)  c = Identity (b)  y = Exp (c)
        }""",
        {3},
        {1, 2},
    ),
    "anything between what is stored and what is rounded": (
        """g (float[6] x) => (float[6] y) <float c = {0.75}> {
            a = Exp (x)  b = Mul (a, c)  y = Exp (b)
        }""",
        {0, 2},
        {1},
    ),
    "not if a weight is rounded": (
        """g (float[6] x) => (float[6] y) <float c = {0.1}> {
            a = Exp (x)  b = Mul (a, c)  y = Exp (b)
        }""",
        {0, 2},
        set(),
    ),
    "not if another reader keeps what is not rounded": (
        """g (float[6] x) => (float[6] y, float[6] z) {
            a = Exp (x)  b = Identity (a)  y = Exp (b)  z = Sqrt (b)
        }""",
        {2},
        set(),
    ),
    "not if the outside sees it": (
        """g (float[6] x) => (float[6] b, float[6] y) {
            a = Exp (x)  b = Identity (a)  y = Exp (b)
        }""",
        {2},
        set(),
    ),
    "not if the outside gives it": (
        "g (float[6] x) => (float[6] y) { y = Relu (x) }",
        set(),
        set(),
    ),
    "not a largest one, whose zeros have signs that a division shows": (
        """g (float[6] x) => (float[6] y) {
            a = Exp (x)  b = Relu (a)  c = Exp (b)  y = Div (x, c)
        }""",
        {2},
        set(),
    ),
    "a largest one where nothing divides": (
        """g (float[6] x) => (float[6] y) {
            a = Exp (x)  b = Relu (a)  c = Exp (b)  y = Mul (x, c)
        }""",
        {2},
        {1},
    ),
    "not a largest one that also tells which it was": (
        """g (float[1, 1, 6] x) => (float[1, 1, 6] y, int64[1, 1, 6] n) {
            a = Exp (x)  b, n = MaxPool <kernel_shape = [3], pads = [1, 1]> (a)  y = Exp (b)
        }""",
        {2},
        set(),
    ),
    "not a largest one that may see nothing": (
        """g (float[1, 1, 6] x) => (float[1, 1, m] b) {
            a = Exp (x)  b = MaxPool <kernel_shape = [2], strides = [2], ceil_mode = 1> (a)
        }""",
        {0},
        set(),
    ),
    "not a body's, whose results nobody rounds": (
        BRANCHES,
        set(),
        set(),
    ),
    "a body's that reads what is stored": (
        BRANCHES,
        {0, 3},
        {2, 4},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_makes_no_difference(case: str) -> None:
    text, low, besides = CASES[case]
    found = _equivalence(load_model(parse(text))).largest(frozenset(low))
    assert found - low == besides


def test_a_mean_that_is_rounded_inside_makes_a_difference() -> None:
    model = load_model(
        parse("""g (float[6] x) => (float[1] y) {
            a = Exp (x)  b = ReduceMean <keepdims = 1> (a)  y = Exp (b)
        }""")
    )
    low = frozenset({0, 2})
    assert _equivalence(model).largest(low) == {0, 1, 2}
    assert _equivalence(model, Numerics(accumulation=Accumulation.LOW)).largest(low) == low


_UNARY = ("Relu", "Neg", "Abs", "Identity", "Exp", "Sigmoid", "Sqrt", "Softmax")
_BINARY = ("Add", "Mul", "Max", "Min", "Sub", "Div")
# What needs more than its name: attributes, constants, or more outputs, of which the last is read.
_OTHER = ("Transpose", "Slice", "Split", "MaxPool", "TopK", "Where", "ReduceMean", "Concat", "If")


class _Chain:
    """Nodes that read what came before; every value has the shape of the input."""

    def __init__(self, data: st.DataObject, kinds: tuple[str, ...]) -> None:
        self._data, self._kinds = data, kinds
        self.values, self.nodes = ["x", "half", "tenth"], list[onnx.NodeProto]()
        self._count = 0

    def node(self, kind: str, inputs: list[str], outputs: int = 1, **attributes: object) -> str:
        names = [self._name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[-1]

    def _name(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def _value(self) -> str:
        # Mostly the latest, so that chains become long.
        return str(self._data.draw(st.sampled_from([*self.values, *self.values[-2:] * 3])))

    def step(self) -> None:
        kind = self._data.draw(st.sampled_from(self._kinds))
        x = self._value()
        if kind in _UNARY:
            found = self.node(kind, [x])
        elif kind in _BINARY:
            found = self.node(kind, [x, self._value()])
        else:
            found = getattr(self, f"_{kind.lower()}")(x)
        self.values.append(found)

    def _transpose(self, x: str) -> str:
        return self.node("Transpose", [self.node("Transpose", [x])])

    def _slice(self, x: str) -> str:
        return self.node("Slice", [x, "zero", "six", "axis"])

    def _split(self, x: str) -> str:
        first, last = self._name(), self._name()
        self.nodes.append(helper.make_node("Split", [x], [first, last], axis=1, num_outputs=2))
        return self.node("Concat", [last, first], axis=1)

    def _maxpool(self, x: str) -> str:
        lifted = self.node("Unsqueeze", [x, "zero"])
        pooled = self.node("MaxPool", [lifted], kernel_shape=[3], pads=[1, 1])
        return self.node("Squeeze", [pooled, "zero"])

    def _topk(self, x: str) -> str:
        values, indices = self._name(), self._name()
        self.nodes.append(helper.make_node("TopK", [x, "six"], [values, indices], axis=1))
        self.values.append(values)
        return self.node("Cast", [indices], to=TensorProto.FLOAT)

    def _where(self, x: str) -> str:
        return self.node("Where", [self.node("Less", [x, self._value()]), x, self._value()])

    def _reducemean(self, x: str) -> str:
        return self.node("Expand", [self.node("ReduceMean", [x, "axis"]), "shape"])

    def _concat(self, x: str) -> str:
        both = self.node("Concat", [x, self._value()], axis=1)
        return self.node("Slice", [both, "three", "nine", "axis"])

    def _if(self, x: str) -> str:
        y = self._value()
        bodies = [
            helper.make_graph(
                [helper.make_node(kind, [value], [self._name()])],
                "branch",
                [],
                [helper.make_tensor_value_info(f"v{self._count}", TensorProto.FLOAT, SHAPE)],
            )
            for kind, value in (("Relu", x), ("Identity", y))
        ]
        return self.node("If", ["yes"], then_branch=bodies[0], else_branch=bodies[1])

    def model(self) -> onnx.ModelProto:
        read = {name for node in self.nodes for name in node.input}
        outputs = [v for v in self.values[3:] if v not in read or self._data.draw(st.booleans())]
        constants = {
            "half": np.full(SHAPE, 0.5, np.float32),
            "tenth": np.full(SHAPE, 0.1, np.float32),
            "yes": np.array(True),
            "shape": np.array(SHAPE),
            **{n: np.array([v]) for n, v in (("zero", 0), ("six", 6), ("three", 3), ("nine", 9))},
            "axis": np.array([1]),
        }
        graph = helper.make_graph(
            self.nodes,
            "chain",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
            [helper.make_tensor_value_info(o, TensorProto.FLOAT, SHAPE) for o in outputs],
            [numpy_helper.from_array(a, name) for name, a in constants.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(Overflow), st.sampled_from(Subnormals), st.integers(0, 99))
def test_what_is_said_to_compute_the_same_does(
    data: st.DataObject, overflow: Overflow, subnormals: Subnormals, seed: int
) -> None:
    kinds = st.lists(st.sampled_from((*_UNARY, *_BINARY, *_OTHER)), min_size=2, max_size=5)
    chain = _Chain(data, tuple(data.draw(kinds)))
    for _ in range(data.draw(st.integers(3, 10))):
        chain.step()
    proto = chain.model()
    note(onnx.printer.to_text(proto))
    model = load_model(proto)
    accumulation = data.draw(st.sampled_from(Accumulation))
    numerics = Numerics(overflow=overflow, subnormals=subnormals, accumulation=accumulation)
    engine, rng = EmulatorEngine(model, numerics), np.random.default_rng(seed)
    # Of all sizes that matter: lost, subnormal, usual, and beyond the largest.
    x = rng.normal(0, 1, SHAPE) * 10.0 ** rng.choice([-9, -6, -2, 0, 0, 0, 1, 6], SHAPE)
    feeds, candidates = {"x": x.astype(np.float32)}, np.array(sorted(model.candidates))
    for _ in range(4):
        plan = PrecisionPlan.of(map(int, candidates[rng.random(len(candidates)) < rng.random()]))
        one, other = (engine.compile(p).run(feeds) for p in (plan, engine.canonical(plan)))
        for name, value in one.items():
            # Nothing but signs of zeros may differ, and not even these where something divides.
            assert np.array_equal(value, other[name], equal_nan=True), (plan.ids, name)
