"""Which opsets a model can be lifted to without any op changing its meaning."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from topsideas.graph.lifting import NEWEST, lift, liftable_to


def model_of(text: str, opset: int) -> ir.Model:
    header = f'<ir_version: 8, opset_import: ["": {opset}]> g '
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(header + text)))


def nodes(model: ir.Model) -> list[ir.Node]:
    return [node for graph in model.graphs() for node in graph]


@pytest.mark.parametrize(
    ("expression", "opset", "newest"),
    [
        ("Exp (x)", 13, NEWEST),
        ("Exp (x)", 7, NEWEST),
        ("Exp (x)", 6, 6),
        ("Clip (x)", 10, 10),  # its limits became inputs of a type of their own
        ("Softmax (x)", 12, NEWEST),  # over the last axis of two either way
        ("Softmax <axis = 0> (x)", 12, 12),
        ("Pad <pads = [0, 0, 1, 1]> (x)", 10, NEWEST),
        ("Pad <pads = [0, 0, 1, 1], value = 1.0> (x)", 10, 10),
        ('Upsample <mode = "nearest"> (x, x)', 9, 9),
        ("Exp (x)", 23, 23),
        ("Softmax (x)", 13, NEWEST),
        ("ReduceMean <axes = [1]> (x)", 13, NEWEST),
        ("GridSample (x, x)", 17, 19),  # another default mode from 20 on
        ("GroupNormalization <num_groups = 1> (x, x, x)", 18, 20),  # per channel from 21 on
        ("RoiAlign (x, x, x)", 13, 15),  # half a pixel off from 16 on
        ("NoSuchOp (x)", 17, 17),
    ],
)
def test_newest(expression: str, opset: int, newest: int) -> None:
    model = model_of(f"(float[2, 4] x) => (float[R, S] y) {{ y = {expression} }}", opset)
    assert liftable_to(nodes(model), opset) == newest


def test_normalisation_in_training_does_not_lift() -> None:
    """Opset 14 gave its further outputs another meaning."""
    text = """(float[1, 2, 3] x, float[2] s) => (float[1, 2, 3] y) {
        y = BatchNormalization (x, s, s, s, s)
    }"""
    assert liftable_to(nodes(model_of(text, 13)), 13) == NEWEST
    training = text.replace("y = Batch", "y, a, b, c, d = Batch")
    assert liftable_to(nodes(model_of(training, 13)), 13) == 13


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize(
    ("shape", "axis", "lifts"),
    [
        ("2, 3, 4", 2, True),
        ("2, 3, 4", -1, True),
        ("2, 5, 1, 1", 1, True),  # the head of a classifier
        ("2, 1, 1, 4", 1, True),
        ("1, 3, 1", 0, True),
        ("2, 1, 1", 1, True),
        ("1, 1", 0, True),
        ("2, 3, 4", 1, False),
        ("2, 3, 4", -2, False),
        ("2, 3, 1, 4", 0, False),
    ],
)
def test_a_softmax_over_one_axis_lifts(op: str, shape: str, axis: int, lifts: bool) -> None:
    model = model_of(
        f"(float[{shape}] x) => (float[{shape}] y) {{ y = {op} <axis={axis}> (x) }}", 11
    )
    assert liftable_to(nodes(model), 11) == (NEWEST if lifts else 12)
    if lifts:
        feeds = {
            "x": np.random.default_rng(0)
            .standard_normal([int(d) for d in shape.split(",")])
            .astype(np.float32)
        }
        before = _run(model, feeds)
        lift(model, NEWEST)
        np.testing.assert_array_equal(_run(model, feeds), before)


@pytest.mark.parametrize(("declared", "newest"), [("N, M, 2", NEWEST), ("N, 2, M", 12)])
def test_a_softmax_of_what_is_not_known_lifts_by_what_it_gives(declared: str, newest: int) -> None:
    """Detectors reshape by sizes that they compute, so that inference knows no rank."""
    axis = declared.split(", ").index("2")
    model = model_of(
        f"""(float[2, 3, 2] x, int64[R] s) => (float[{declared}] y) {{
            a = Reshape (x, s)
            y = Softmax <axis = {axis}> (a)
        }}""",
        11,
    )
    assert nodes(model)[1].inputs[0].shape is None
    assert liftable_to(nodes(model), 11) == newest


LIFTED = """(float[2, 3, 4] x, bool c) => (float[2, 3] y, float[2, 3, 2] z) {
    m = ReduceMax <axes = [2], keepdims = 0> (x)
    n = ReduceMin <keepdims = 1> (x)
    y = If (c) <
        then_branch = t () => (float[2, 3] p) {
            l = ReduceL2 <axes = [-1], keepdims = 0> (x)
            p = Sub (l, m)
        },
        else_branch = e () => (float[2, 3] p) { p = Identity (m) }>
    z, rest = Split <axis = 2> (x)
    s = Add (rest, n)
}"""


OLD = """(float[2, 3, 1] x, bool c) => (float[R, S] y, float[N, M] z, float[T, U, V] p) {
    a = Squeeze <axes = [2]> (x)
    b = Unsqueeze <axes = [0]> (a)
    d = ReduceSum <axes = [0], keepdims = 0> (b)
    y, rest = Split <axis = 1, split = [1, 2]> (d)
    e = Slice <starts = [0], ends = [1], axes = [1]> (rest)
    f = Softmax <axis = 1> (rest)
    g, i = TopK <k = 1, axis = 0> (f)
    z = Dropout <ratio = 0.3> (g)
    h = Pad <pads = [0, 1, 0, 0, 0, 2]> (x)
    p = If (c) <
        then_branch = t () => (float[2, 4, 3] q) { q = Neg (h) },
        else_branch = u () => (float[2, 4, 3] q) {
            s = Squeeze <axes = [2]> (x)
            v = Unsqueeze <axes = [2]> (s)
            w = Pad <pads = [0, 1, 0, 0, 0, 2]> (v)
            q = Identity (w)
        }>
    n = Abs (e)
}"""


@pytest.mark.parametrize("branch", [True, False])
def test_an_old_model_lifted_computes_the_same(branch: bool) -> None:
    model = model_of(OLD, 9)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 1)).astype(np.float32)}
    feeds["c"] = np.array(branch)
    before = _run(model, feeds)
    kinds = [node.op_type for node in nodes(model)]
    assert liftable_to(nodes(model), 9) == NEWEST
    for opset in (13, NEWEST):
        lift(model, opset)
        onnx.checker.check_model(ir.to_proto(model), full_check=True)
        assert [node.op_type for node in nodes(model)] == kinds
        for old, new in zip(before, _run(model, feeds), strict=True):
            np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("branch", [True, False])
def test_a_lifted_model_computes_the_same(opset: int, branch: bool) -> None:
    model = model_of(LIFTED, opset)
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)}
    feeds["c"] = np.array(branch)
    before = _run(model, feeds)
    assert liftable_to(nodes(model), opset) == NEWEST
    lift(model, NEWEST)
    assert model.opset_imports[""] == NEWEST
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    for old, new in zip(before, _run(model, feeds), strict=True):
        np.testing.assert_array_equal(old, new)


def _run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    blob = ir.to_proto(model).SerializeToString()
    found: list[np.ndarray] = ort.InferenceSession(blob).run(None, feeds)
    return found
