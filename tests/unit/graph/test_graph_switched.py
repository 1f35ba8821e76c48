"""One graph with switches computes what the graphs with fixed precisions do."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.graph.loading import load_model
from topsideas.graph.switched import is_switch, switched
from topsideas.plan import PrecisionPlan
from topsideas.precision import FP16, Accumulation, Numerics, Overflow, Subnormals
from topsideas.testing.planted import parse, ramp

MODELS = {
    "shared weights": """g (float[6] x) => (float[6] y, float[6] z)
        <float[6] w = {0.1, 0.2, 0.3, 0.4, 1000.1, 2000.3}> {
        a = Mul (x, w)
        b = Add (a, w)
        y = Div (b, x)
        z = Sub (a, b)
    }""",
    "an output that is read on": """g (float[6] x) => (float[6] a, float[1] y) {
        a = Exp (x)
        y = ReduceMean <keepdims = 1> (a)
    }""",
    "optional inputs and outputs": """g (float[6] x) => (float[6] y) <float h = {0.75}> {
        a = Clip (x, , h)
        y, m = Dropout (a)
    }""",
    "branches": """g (float[6] x) => (float[6] y) <float c = {3.3}> {
        s = ReduceSum <keepdims = 0> (x)
        t = Greater (s, c)
        y = If (t) <
            then_branch = th () => (float[6] p) { p = Exp (x) },
            else_branch = el () => (float[6] q) { q1 = Mul (x, c)  q = Tanh (q1) }
        >
    }""",
    "a loop": """g (float[6] x) => (float[6] y) <int64 n = {3}, bool go = {1}, float c = {1.1}> {
        a = Sqrt (x)
        y = Loop (n, go, a) <body = b (int64 i, bool p, float[6] v) => (bool q, float[6] w) {
            q = Identity (p)
            u = Mul (v, c)
            w = Add (u, x)
        }>
    }""",
    "a scan": """g (float[3, 2] x) => (float[2] y, float[3, 2] z) <float[2] s = {0.3, 7.7}> {
        a = Exp (x)
        y, z = Scan <num_scan_inputs = 1, body = b (float[2] v, float[2] r)
            => (float[2] w, float[2] o) {
            w = Add (v, r)
            o = Sigmoid (w)
        }> (s, a)
    }""",
}


def _feeds(model: Any) -> dict[str, np.ndarray]:
    shape = [int(d) for d in model.graph_model.graph.inputs[0].shape]
    return {"x": ramp(0.1, 300, int(np.prod(shape))).reshape(shape)}


def _equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(np.array_equal(one[n], other[n], equal_nan=True) for n in other)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    "numerics",
    [
        Numerics(),
        Numerics(overflow=Overflow.SATURATE, subnormals=Subnormals.FLUSH),
        Numerics(accumulation=Accumulation.LOW),
        Numerics(FP16, Overflow.SATURATE, Subnormals.FLUSH, Accumulation.TERMWISE),
    ],
    ids=["plain", "saturate, flush", "low accumulation", "termwise"],
)
def test_every_plan_gives_the_bits_of_its_own_graph(name: str, numerics: Numerics) -> None:
    model = load_model(parse(MODELS[name]))
    engine = EmulatorEngine(model, numerics)
    feeds = _feeds(model)
    rng = random.Random(name)
    for share in (0.0, 0.3, 0.7, 1.0):
        plan = PrecisionPlan.of(op for op in model.candidates if rng.random() < share)
        executable = engine.compile(plan)
        assert _equal(executable.run(feeds), executable.freeze().run(feeds))


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(sorted(MODELS)), st.integers(0, 1 << 30))
def test_any_plan_gives_the_bits_of_its_own_graph(name: str, seed: int) -> None:
    model = load_model(parse(MODELS[name]))
    rng = random.Random(seed)
    plan = PrecisionPlan.of(op for op in model.candidates if rng.random() < 0.5)
    executable = EmulatorEngine(model, Numerics()).compile(plan)
    feeds = _feeds(model)
    assert _equal(executable.run(feeds), executable.freeze().run(feeds))


@pytest.mark.parametrize("opset", [7, 11, 13, 18])
def test_old_and_new_opsets(opset: int) -> None:
    text = "g (float[6] x) => (float[6] y) { a = Exp (x)  b = Add (a, x)  y = Tanh (b) }"
    model = load_model(parse(text, opset=opset))
    numerics = Numerics(overflow=Overflow.SATURATE)
    engine = EmulatorEngine(model, numerics)
    for kept in ([], [1], [0, 1, 2]):
        executable = engine.compile(PrecisionPlan.of(kept))
        assert _equal(executable.run(_feeds(model)), executable.freeze().run(_feeds(model)))


def test_each_candidate_has_a_switch_and_nothing_else_has() -> None:
    model = load_model(parse(MODELS["a loop"]))
    slots = {op.id: op.slots for op in model.ops if op.candidate}
    found = switched(model.graph_model, slots, Numerics())
    nodes = [n for g in (found.graph, *found.graph.subgraphs()) for n in g]
    assert found.low.keys() == slots.keys()
    assert sum(map(is_switch, nodes)) == len(slots)
    assert found.fresh.keys() == found.producers.keys() <= slots.keys()
    assert isinstance(found.graph, ir.Graph)
