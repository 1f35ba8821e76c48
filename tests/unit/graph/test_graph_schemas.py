"""Which ops may run low, and which of their inputs and outputs round."""

from __future__ import annotations

import onnx
import pytest

from topsideas.graph.loading import Model, load_model
from topsideas.graph.ops import Op
from topsideas.testing.planted import parse


def _model(text: str, opset: int = 17, **domains: int) -> Model:
    more = "".join(f', "{d.replace("_", ".")}": {v}' for d, v in domains.items())
    header = f'<ir_version: 8, opset_import: ["": {opset}{more}]>\n'
    return load_model(onnx.parser.parse_model(header + text))


def _op(text: str, opset: int = 17, **domains: int) -> Op:
    return _model(text, opset, **domains).ops[-1]


@pytest.mark.parametrize(
    ("text", "inputs", "outputs"),
    [
        ("g (float[4] x) => (float[4] y) { y = Exp (x) }", {0}, {0}),
        ("g (float[4] x, int64[2] i) => (float[2] y) { y = Gather (x, i) }", {0}, {0}),
        ("g (float[4] x) => (bool[4] y) { y = Greater (x, x) }", {0, 1}, set()),
        ("g (float[4] x) => (int64[4] y) { y = Cast <to = 7> (x) }", {0}, set()),
        ("g (int64[4] x) => (float[4] y) { y = Cast <to = 1> (x) }", set(), {0}),
        ("g (float[4] a, float[4] b, float[4] c) => (float[4] y) { y = Sum (a, b, c) }",
         {0, 1, 2}, {0}),
        ("g (float[4] x) => (float[4] y) <float lo = {0.0}> { y = Clip (x, lo) }", {0, 1}, {0}),
        ("g (float[4] x) => (float[4] y) <float hi = {1.0}> { y = Clip (x, , hi) }",
         {0, 2}, {0}),
        ("g (bool[4] c, float[4] x) => (float[4] y) { y = Where (c, x, x) }", {1, 2}, {0}),
        ("g (float[2,2] x) => (float[4,4] y) <float[2] s = {2, 2}> { y = Resize (x, , s) }",
         {0}, {0}),
        ("g (float[4] x) => (float[2] a, float[2] b) { a, b = Split <axis = 0> (x) }",
         {0}, {0, 1}),
        ("g (float[4] x, int64[1] k) => (float[k] v, int64[k] i) { v, i = TopK (x, k) }",
         {0}, {0}),
    ],
)  # fmt: skip
def test_float_slots_are_those_the_schema_lets_go_low(
    text: str, inputs: set[int], outputs: set[int]
) -> None:
    op = _op(text)
    assert op.candidate
    assert (op.slots.inputs, op.slots.outputs) == (inputs, outputs)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("g (float[4] x) => (int64[1] y) { y = Shape (x) }", "reads only the shape"),
        ("g (int64[4] x) => (int64[4] y) { y = Add (x, x) }", "no float32 input or output"),
        ("g (double[4] x) => (double[4] y) { y = Add (x, x) }", "no float32 input or output"),
        ("g (float16[4] x) => (float16[4] y) { y = Add (x, x) }", "no float32 input or output"),
        ("g (float[1,4,4] b, float[1,1,4] s) => (int64[n,3] y) { y = NonMaxSuppression (b, s) }",
         "has no fp16 variant"),
        ("g (float[4] x) => (uint8[4] y, float s, uint8 z) {y, s, z = DynamicQuantizeLinear (x)}",
         "has no fp16 variant"),
        ("g (float[4] x) => (seq(float[4]) y) { y = SequenceConstruct (x) }", "a sequence"),
        ("g (float[2,4] x) => (float[2,4] y) { y = MeanVarianceNormalization <axes = [1]> (x) }",
         "float32 constants"),
        ("g () => (float y) { y = Constant <value = float {1.0}> () }", "its readers round it"),
    ],
)  # fmt: skip
def test_pinned_ops_say_why(text: str, reason: str) -> None:
    op = _op(text)
    assert not op.candidate
    assert reason in op.reason
    assert not op.slots.inputs | op.slots.outputs


def test_containers_are_pinned_and_their_bodies_are_not() -> None:
    model = load_model(
        parse("""g (float[2] x, bool c) => (float[2] y) {
            y = If (c) <
                then_branch = t () => (float[2] a) { a = Exp (x) },
                else_branch = e () => (float[2] b) { b = Tanh (x) }
            >
        }""")
    )
    assert model.candidates == {1, 2}
    assert "control flow" in model.ops[0].reason


def test_an_op_may_gain_fp16_with_its_opset() -> None:
    """CumSum takes float16 from opset 14 on."""
    text = "g (float[4] x, int64 a) => (float[4] y) { y = CumSum (x, a) }"
    assert not _op(text, opset=13).candidate
    assert _op(text, opset=14).candidate


def test_ops_of_unknown_domains_are_pinned() -> None:
    op = _op("g (float[4] x) => (float[4] y) { y = acme.Wonder (x) }", acme=3)
    assert not op.candidate
    assert "'acme' at version 3" in op.reason
    assert op.type == "acme:Wonder"


def test_ops_of_the_runtimes_own_domain_have_schemas() -> None:
    op = _op(
        "g (float[4,4] x) => (float[4,4] y) { y = com.microsoft.FusedMatMul (x, x) }",
        com_microsoft=1,
    )
    assert op.candidate
    assert op.slots.inputs == {0, 1}


def test_an_unknown_type_pins_only_what_it_touches() -> None:
    model = _model(
        """g (float[4] x) => (float[4] z) {
            y = acme.Wonder (x)
            s = Exp (y)
            z = Exp (x)
        }""",
        acme=1,
    )
    assert [op.candidate for op in model.ops] == [False, False, True]
    assert model.ops[1].reason
