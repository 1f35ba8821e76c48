"""Where the emulated graph rounds, and what it leaves alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from topsideas.engines.emulator import runtime
from topsideas.errors import EngineError
from topsideas.graph.constants import LowConstants, constant
from topsideas.graph.emulation import check_expressible, emulated
from topsideas.graph.loading import Model, load_model
from topsideas.graph.ops import op_id
from topsideas.precision import BF16, Numerics, Overflow, Subnormals
from topsideas.testing.planted import parse, planted_models

TEXT = """g (float[4] x) => (float[4] y, float[4] z)
<float[4] w = {1, 2, 3, 100000}> {
    a = Mul (x, w)
    y = Exp (a)
    z = Add (a, w)
}"""


def _model(text: str = TEXT, opset: int = 17) -> Model:
    return load_model(parse(text, opset))


def _emulated(model: Model, low: set[int], numerics: Numerics | None = None) -> ir.Model:
    slots = {op.id: op.slots for op in model.ops if op.candidate}
    return emulated(model.graph_model, low, slots, numerics or Numerics())


def _inserted(graph: ir.Graph) -> Counter[str]:
    return Counter(n.op_type for n in graph if op_id(n) == -1)


def test_no_low_op_no_rounding() -> None:
    model = _model()
    copy = _emulated(model, set())
    assert [n.op_type for n in copy.graph] == [n.op_type for n in model.graph]


def test_a_value_is_rounded_once_for_all_its_readers() -> None:
    """x and the outputs of three ops: four roundings of two casts; the weight is stored low."""
    copy = _emulated(_model(), {0, 1, 2})
    assert _inserted(copy.graph) == {"Cast": 8}
    kept_producer = _emulated(_model(), {1, 2})
    assert _inserted(kept_producer.graph) == {"Cast": 6}


def test_what_a_low_op_stored_is_not_rounded_again() -> None:
    lone_reader = _emulated(_model(), {0})
    assert _inserted(lone_reader.graph) == {"Cast": 4}


def test_weights_of_low_ops_are_rounded_copies_and_the_original_goes_if_unread() -> None:
    both = {
        n: v.const_value.numpy() for n, v in _emulated(_model(), {0}).graph.initializers.items()
    }
    assert sorted(both) == ["w", "w/low"]
    assert both["w"][3] == 100000
    assert np.isinf(both["w/low"][3])
    alone = _emulated(_model(), {0, 2}).graph.initializers
    assert sorted(alone) == ["w/low"]


def test_the_model_is_left_alone() -> None:
    model = _model()
    before = ir.to_proto(model.graph_model).SerializeToString(deterministic=True)
    _emulated(model, set(model.candidates), Numerics(BF16, Overflow.SATURATE, Subnormals.FLUSH))
    assert ir.to_proto(model.graph_model).SerializeToString(deterministic=True) == before


def test_names_of_outputs_survive_and_all_names_are_unique() -> None:
    for planted in planted_models():
        model = load_model(planted.model)
        copy = _emulated(model, set(model.candidates))
        assert [o.name for o in copy.graph.outputs] == [o.name for o in model.graph.outputs]
        _assert_opens(copy)


def test_names_that_are_taken_are_avoided() -> None:
    model = _model("""g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
        a = Neg (x)
        b = Mul (a, w)
        y = Exp (b)
    }""")
    for node, name in zip(model.graph, ("x/low", "y/raw", "y"), strict=True):
        node.outputs[0].name = name
    _assert_opens(_emulated(model, set(model.candidates)))


def _assert_opens(model: ir.Model) -> None:
    """The runtime takes it, and no two values or nodes share a name."""
    for graph in [model.graph, *model.graph.subgraphs()]:
        names = [v.name for n in graph for v in n.outputs if v.name]
        assert len(set(names)) == len(names)
    assert runtime.session(ir.to_proto(model).SerializeToString()).get_outputs()


def test_a_captured_value_is_rounded_outside_the_loop() -> None:
    text = """g (float[2] x) => (float[2] y) <int64 n = {2}, bool go = {1}> {
        t = Exp (x)
        y = Loop (n, go, x) <body = b (int64 i, bool p, float[2] v) => (bool q, float[2] w) {
            q = Identity (p)
            w = Add (v, t)
        }>
    }"""
    model = _model(text)
    copy = _emulated(model, {3})
    assert _inserted(copy.graph) == {"Cast": 2}
    (loop,) = (n for n in copy.graph if n.op_type == "Loop")
    assert _inserted(loop.attributes["body"].as_graph()) == {"Cast": 4}


@pytest.mark.parametrize(
    ("opset", "numerics", "text"),
    [(12, Numerics(BF16), "bf16 needs opset 13"), (5, Numerics(), "opset")],
)
def test_old_opsets_cannot_express_everything(opset: int, numerics: Numerics, text: str) -> None:
    with pytest.raises(EngineError, match=text):
        check_expressible(opset, numerics)


def test_constants_are_initializers_and_constant_nodes() -> None:
    model = _model("""g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
        c = Constant <value = float[2] {3, 4}> ()
        d = Constant <value_float = 2.5> ()
        a = Mul (x, w)
        b = Mul (a, c)
        y = Mul (b, d)
    }""")
    known = {
        v.name: None if (t := constant(v)) is None else t.numpy().tolist()
        for node in model.graph
        for v in node.inputs
        if v is not None
    }
    assert known == {"x": None, "w": [1, 2], "a": None, "c": [3, 4], "b": None, "d": 2.5}


def test_a_rounded_constant_is_made_once() -> None:
    constants = LowConstants(Numerics())
    tensor = ir.tensor(np.array([0.1, 1e6], np.float32))
    low = constants.of(tensor)
    assert constants.of(tensor) is low
    assert low.numpy()[0] == np.float32(np.float16(0.1))
    assert np.isinf(low.numpy()[1])
