"""For every plan of small models: the typed model is valid, tidy, and means what is emulated.

Of models with more than 64 plans an even choice is taken; all with ``TOPSIDEAS_FULL=1``.
"""

from __future__ import annotations

import math
import os
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from conversion_reference import assert_means_the_same, assert_tidy, session

from topsideas.graph.conversion import Conversion, Converter, write
from topsideas.graph.gates import check_export
from topsideas.graph.loading import load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import BF16, FP16, Accumulation, Numerics, Overflow, Subnormals
from topsideas.rounding import round_to

MODELS = {
    "branches": """<ir_version: 8, opset_import: ["": 17]>
        g (float[4] x) => (float[4] y, float[4] z)
        <float[4] w = {0.1, 1000.3, 70000, 1e-9}, float[4] w_fp16 = {3, 2, 1, 0.7}> {
            a = Mul (x, w)
            b = Add (a, w_fp16)
            y = Tanh (b)
            c = Sub (b, a)
            z = Div (c, w)
        }""",
    "output_read_inside": """<ir_version: 8, opset_import: ["": 17]>
        g (float[4] x) => (float[4] y, float[4] z, float[4] x_fp16) {
            y = Exp (x)
            z = Sqrt (y)
            x_fp16 = Mul (y, z)
        }""",
    "users_casts": """<ir_version: 8, opset_import: ["": 17]>
        g (float[4] x) => (float[4] y, float16[4] h) {
            a = Exp (x)
            h = Cast <to = 10> (a)
            n = Identity (h)
            b = Cast <to = 1> (n)
            y = Mul (b, x)
        }""",
    "cast_of_an_integer": """<ir_version: 8, opset_import: ["": 17]>
        g (float[4] x) => (float[4] y, double[4] d, int64[1] n) {
            i = Cast <to = 7> (x)
            f = Cast <to = 1> (i)
            y = Div (f, x)
            n = Shape (y)
            d = Cast <to = 11> (f)
        }""",
    "chain_of_casts": """<ir_version: 8, opset_import: ["": 17]>
        g (float[4] x, float16[4] u) => (float[4] y, float[4] z) {
            a = Cast <to = 1> (u)
            b = Cast <to = 1> (a)
            c = Cast <to = 10> (b)
            z = Cast <to = 1> (c)
            y = Add (b, x)
        }""",
    "casts_of_an_input": """<ir_version: 8, opset_import: ["": 17]>
        g (float[4] x, float[4] u) => (float[4] y, float[4] z, float16[4] h) {
            y = Cast <to = 1> (x)
            z = Cast <to = 1> (y)
            h = Cast <to = 10> (u)
        }""",
    "casts_that_nobody_reads": """<ir_version: 8, opset_import: ["": 17]>
        g (float[4] x) => (float[4] y) {
            a = Cast <to = 10> (x)
            b = Cast <to = 1> (x)
            c = Cast <to = 1> (b)
            y = Exp (x)
        }""",
    "constants": """<ir_version: 10, opset_import: ["": 21]>
        g (float[4] x) => (float[4] y, float k) {
            k = Constant <value_float = 0.1> ()
            l = Constant <value_floats = [0.1, 0.2, 0.3, 0.4]> ()
            a = Mul (x, k)
            b = Add (a, l)
            s = Shape (b)
            f = ConstantOfShape <value = float[1] {0.1}> (s)
            m = Max (b, f, k)
            y = Clip (m, , k)
        }""",
    "if_captures": """<ir_version: 8, opset_import: ["": 17]>
        g (float[4] x) => (float[4] y) <float[4] w = {0.1, 0.2, 0.3, 0.4}> {
            a = Mul (x, w)
            s = ReduceSum <keepdims = 0> (a)
            o = Constant <value_float = 1.0> ()
            c = Less (s, o)
            y = If (c) <
                then_branch = t () => (float[4] p) { q = Add (a, w)  p = Exp (q) },
                else_branch = e () => (float[4] p) <float[4] v = {1, 2, 3, 4.1}> {
                    r = Sub (x, v)
                    p = Neg (r)
                }>
        }""",
    "nested_three_deep": """<ir_version: 8, opset_import: ["": 17]>
        g (float[4] x) => (float[4] y) <int64 n = {3}, bool t = {1}> {
            a = Exp (x)
            y = Loop (n, t, a) <body = l (int64 i, bool ci, float[4] s) => (bool co, float[4] r) {
                co = Identity (ci)
                r = If (ci) <
                    then_branch = th () => (float[4] p) {
                        k = Constant <value_float = 0.3> ()
                        d = Mul (s, k)
                        p = If (ci) <
                            then_branch = tt () => (float[4] u) { u = Add (d, a) },
                            else_branch = ee () => (float[4] u) { u = Identity (d) }>
                    },
                    else_branch = el () => (float[4] p) { p = Neg (s) }>
            }>
        }""",
    "scan": """<ir_version: 8, opset_import: ["": 17]>
        g (float[2] h, float[3, 2] x) => (float[2] hn, float[3, 2] y)
        <float[2, 2] w = {0.1, 0.2, 0.3, 0.4}> {
            e = Sigmoid (x)
            hn, y = Scan <num_scan_inputs = 1, body = b (float[2] s, float[2] i)
                => (float[2] sn, float[2] o) {
                m = MatMul (s, w)
                sn = Add (m, i)
                o = Tanh (sn)
            }> (h, e)
        }""",
    "loop_in_a_scan": """<ir_version: 8, opset_import: ["": 17]>
        g (float[2] h, float[3, 2] x) => (float[2] hn) <int64 n = {2}, bool t = {1}> {
            hn = Scan <num_scan_inputs = 1, body = b (float[2] s, float[2] i) => (float[2] sn) {
                l = Loop (n, t, s) <body = c (int64 k, bool ci, float[2] v)
                    => (bool co, float[2] r) {
                    co = Identity (ci)
                    r = Mul (v, i)
                }>
                sn = Add (l, i)
            }> (h, x)
        }""",
    "fixed_slots": """<ir_version: 8, opset_import: ["": 17]>
        g (float[1, 1, 2, 2] x) => (float[N, C, H, W] y)
        <float[4] scales = {1, 1, 2, 2}, float[4] w = {0.1, 0.2, 0.3, 0.4}> {
            a = Relu (x)
            s = Mul (scales, scales)
            r = Resize <mode = "linear"> (a, , s)
            y = Exp (r)
        }""",
    "normalisation": """<ir_version: 8, opset_import: ["": 17]>
        g (float[2, 4] x) => (float[2, 4] y, float[2, 1] m)
        <float[4] s = {0.1, 0.2, 0.3, 0.4}> {
            a = Exp (x)
            y, m, d = LayerNormalization (a, s)
        }""",
    "zero_size": """<ir_version: 8, opset_import: ["": 17]>
        g (float[0, 4] x, float[2, 4] z) => (float[2, 4] y, float[N] m)
        <float[0] w = {}> {
            a = Exp (x)
            c = Concat <axis = 0> (a, z)
            y = Mul (c, c)
            m = Add (w, w)
        }""",
    "strings_and_integers": """<ir_version: 8, opset_import: ["": 17]>
        g (string[2] s, int64[4] i, float[4] x) => (string[2] t, int64[4] j, float[4] y) {
            t = Identity (s)
            j = Abs (i)
            f = Cast <to = 1> (j)
            y = Mul (f, x)
        }""",
    "sequences": """<ir_version: 8, opset_import: ["": 17]>
        g (float[4] x) => (float[4] y, seq(float[4]) s) <int64 i = {1}> {
            a = Exp (x)
            b = Neg (x)
            s = SequenceConstruct (a, b)
            c = SequenceAt (s, i)
            y = Mul (c, a)
        }""",
    "optionals": """<ir_version: 8, opset_import: ["": 18]>
        g (float[4] x) => (float[4] y, bool h) {
            a = Exp (x)
            o = Optional (a)
            h = OptionalHasElement (o)
            g = OptionalGetElement (o)
            y = Neg (g)
        }""",
    "replaceable_weight": """<ir_version: 8, opset_import: ["": 17]>
        g (float[4] x, float[4] w) => (float[4] y) <float[4] w = {1, 2, 3, 4}> {
            a = Mul (x, w)
            y = Sub (a, w)
        }""",
    "quantised": """<ir_version: 10, opset_import: ["": 21]>
        g (float[2, 4] x) => (float[2, 2] y)
        <float s = {0.01}, int8 z = {0}, float t = {0.1},
         int8[4, 2] q = {1, 2, 3, 4, 5, 6, 7, 8}> {
            a = Tanh (x)
            b = QuantizeLinear (a, s, z)
            c = DequantizeLinear (b, s, z)
            w = DequantizeLinear (q, t)
            m = MatMul (c, w)
            n = Exp (m)
            v = DequantizeLinear (q, t)
            y = MatMul (x, v)
            u = Add (n, y)
        }""",
    "types_of_the_users": """<ir_version: 10, opset_import: ["": 21]>
        g (float[4] x, double[4] d) => (float[4] y, double[4] e, float16[4] h) {
            a = Exp (x)
            h16 = Cast <to = 10> (a)
            h = Mul (h16, h16)
            b16 = Cast <to = 16> (a)
            b = Cast <to = 1> (b16)
            f8 = Cast <to = 17> (b)
            f = Cast <to = 1> (f8)
            w = Cast <to = 11> (f)
            e = Add (w, d)
            g = Cast <to = 1> (e)
            y = Mul (g, a)
        }""",
    "local_function": """<ir_version: 8, opset_import: ["": 17, "local": 1]>
        g (float[4] x) => (float[4] y) {
            a = local.half (x)
            y = local.half (a)
        }
        <domain: "local", opset_import: ["": 17]>
        half (v) => (r) {
            h = Constant <value = float {0.5}> ()
            m = Mul (v, h)
            r = Tanh (m)
        }""",
    "nothing_but_an_input": """<ir_version: 8, opset_import: ["": 17]>
        g (float[4] x) => (float[4] y, float[4] x, float[2] w) <float[2] w = {0.1, 0.2}> {
            y = Identity (x)
            d = Mul (w, w)
        }""",
}


_PLANS = 64


def _plans(ids: frozenset[int]) -> list[PrecisionPlan]:
    ordered = sorted(ids)
    kept = list(chain.from_iterable(combinations(ordered, n) for n in range(len(ordered) + 1)))
    step = 1 if os.environ.get("TOPSIDEAS_FULL") == "1" else math.ceil(len(kept) / _PLANS)
    return [PrecisionPlan.of(ids) for ids in [*kept[::step], kept[-1]]]


def _feeds(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Inputs, without the weights that a caller may replace: the emulator takes the defaults."""
    rng = np.random.default_rng(0)
    feeds, weights = {}, {weight.name for weight in model.graph.initializer}
    for value in model.graph.input:
        if value.name in weights:
            continue
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if dtype.kind == "O":
            feeds[value.name] = np.array(["a", "b"], dtype)
            continue
        shape = [d.dim_value for d in tensor.shape.dim]
        feeds[value.name] = (3 * rng.standard_normal(shape)).astype(dtype)
    return feeds


NUMERICS = {
    "saturate": Numerics(overflow=Overflow.SATURATE),
    "flush": Numerics(subnormals=Subnormals.FLUSH),
    "low sums": Numerics(accumulation=Accumulation.LOW),
    "bf16": Numerics(precision=BF16),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_plan(name: str, tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(MODELS[name])
    source, feeds = load_model(proto), _feeds(proto)
    converter = Converter(source, Numerics())
    for plan in _plans(source.candidates):
        conversion = converter.convert(plan)
        assert_tidy(conversion, source)
        assert_means_the_same(conversion, source, plan.low(source.candidates), feeds, Numerics())
        _assert_exports(conversion, tmp_path / "m.onnx", feeds)


def _assert_exports(conversion: Conversion, path: Path, feeds: dict[str, np.ndarray]) -> None:
    write(conversion, path)
    check_export(path)
    session(conversion.model).run(None, feeds)


@pytest.mark.parametrize("kind", NUMERICS)
@pytest.mark.parametrize("name", MODELS)
def test_other_numerics(name: str, kind: str) -> None:
    numerics = NUMERICS[kind]
    proto = onnx.parser.parse_model(MODELS[name])
    source, feeds = load_model(proto, numerics.precision), _feeds(proto)
    conversion = Converter(source, numerics).convert(PrecisionPlan.of([]))
    onnx.checker.check_model(ir.to_proto(conversion.model), full_check=True)
    assert_means_the_same(conversion, source, source.candidates, feeds, numerics)


@pytest.mark.parametrize("kept", ["none", "all", "some"])
@pytest.mark.parametrize("name", MODELS)
def test_low_inputs_and_outputs(name: str, kept: str, tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(MODELS[name])
    source, numerics = load_model(proto), Numerics()
    share = {"none": 0, "all": 1, "some": 2}[kept]
    plan = PrecisionPlan.of(sorted(source.candidates)[:: share or 1] if share else [])
    conversion = Converter(source, numerics, low_io=True).convert(plan)
    graph, before = conversion.model.graph, source.graph
    for side in ("inputs", "outputs"):
        for new, old in zip(getattr(graph, side), getattr(before, side), strict=True):
            is_float = old.type == ir.TensorType(ir.DataType.FLOAT)
            assert new.name == old.name
            assert new.dtype == (ir.DataType.FLOAT16 if is_float else old.dtype)
    check_export(write(conversion, tmp_path / "m.onnx")[0])
    floats = {k: v for k, v in _feeds(proto).items() if v.dtype == np.float32}
    feeds = _feeds(proto) | {k: round_to(v, numerics) for k, v in floats.items()}
    low = plan.low(source.candidates)
    assert_means_the_same(conversion, source, low, feeds, numerics, low_io=True)


def test_plans_differ_in_meaning() -> None:
    """The comparison would notice a plan that was not applied."""
    proto = onnx.parser.parse_model(MODELS["branches"])
    source, feeds = load_model(proto), _feeds(proto)
    converter = Converter(source, Numerics(precision=FP16))
    conversion = converter.convert(PrecisionPlan.of(source.candidates))
    with pytest.raises(AssertionError):
        assert_means_the_same(conversion, source, source.candidates, feeds, Numerics())
