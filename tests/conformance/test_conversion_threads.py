"""What other converters got wrong, by the number of the thread that tells it.

Each model is the smallest that shows the fault. It is converted under every plan (a random dozen
where there are many), and each conversion must be valid, load, be tidy and mean what is emulated.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
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
from topsideas.graph.ops import op_id
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics

_MOST_PLANS = 32


@dataclass(frozen=True)
class Thread:
    """A fault that was reported.

    Attributes:
        numbers: The threads, as ``repository#number``; commas between several.
        lesson: What went wrong there.
        text: A model, in ONNX's text format.
        opset: The version of the default domain.
    """

    numbers: str
    lesson: str
    text: str
    opset: int = 17


THREADS = [
    Thread(
        "onnxruntime#14827, onnxruntime#8327, onnxconverter-common#272, onnxconverter-common#266",
        "scales of Resize, computed from shapes here, became fp16",
        """(float[1, 1, 2, 3] x) => (float[A, B, C, D] y) <float[4] size = {1, 1, 4, 6}> {
            a = Relu (x)
            s = Shape (a)
            f = Cast <to = 1> (s)
            scales = Div (size, f)
            r = Resize <mode = "linear"> (a, , scales)
            y = Exp (r)
        }""",
    ),
    Thread(
        "onnxconverter-common#207, onnxconverter-common#208",
        "roi of Resize became fp16",
        """(float[1, 1, 4, 4] x) => (float[A, B, C, D] y)
        <float[8] roi = {0, 0, 0.1, 0.2, 1, 1, 0.8, 0.9}, float[4] s = {1, 1, 2, 2}> {
            a = Relu (x)
            r = Resize <mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize">
                (a, roi, s)
            y = Neg (r)
        }""",
    ),
    Thread(
        "onnxconverter-common#256",
        "a value without type information got none of the casts it needs",
        """(float[2, 2] x, float[2, 2] z) => (float[A, B] y) {
            a = com.microsoft.FusedMatMul (x, z)
            b = com.microsoft.Gelu (a)
            y = MatMul (b, a)
        }""",
    ),
    Thread(
        "onnxconverter-common#240",
        "nodes came out in no topological order",
        """(float[4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}> {
            a = Mul (x, w)
            b = Exp (a)
            c = Sub (b, a)
            d = Tanh (c)
            y = Add (d, x)
        }""",
    ),
    Thread(
        "onnxconverter-common#320, onnxconverter-common#326",
        "casts of the user's to float kept their target while their readers became fp16",
        """(float[4] x, int64[4] n) => (float[4] y, float[4] z) {
            f = Cast <to = 1> (n)
            a = Mul (x, f)
            h = Cast <to = 10> (a)
            w = Cast <to = 1> (h)
            y = Add (w, f)
            z = Cast <to = 1> (a)
        }""",
    ),
    Thread(
        "onnxconverter-common#276, onnxconverter-common#310",
        "casts without a reader, casts of themselves, and names that were taken",
        """(float[4] x, float[4] x_fp16) => (float[4] y, float[4] y_fp16, float[4] y_fp16_cast) {
            [x_fp16_cast] y = Mul (x, x_fp16)
            [x_fp16_cast] y_fp16 = Add (y, x)
            [y] y_fp16_cast = Sub (y, y_fp16)
        }""",
    ),
    Thread(
        "onnxruntime#27469",
        "unnamed nodes collided with each other",
        """(float[4] x) => (float[4] y) { a = Exp (x)  b = Neg (a)  c = Abs (b)  y = Sqrt (c) }""",
    ),
    Thread(
        "onnxconverter-common#329, onnxconverter-common#304",
        "a weight shared by a blocked and an unblocked node got one type",
        """(float[2, 2] x) => (float[2, 2] y) <float[2, 2] w = {0.1, 70000, 1e-9, 4}> {
            a = MatMul (x, w)
            b = MatMul (a, w)
            y = Mul (b, w)
        }""",
    ),
    Thread(
        "geti#6554",
        "between fp32 nodes a value with several readers was still squeezed through fp16",
        """(float[4] x) => (float[4] y, float[4] z) {
            a = Exp (x)
            b = Neg (a)
            c = Abs (a)
            d = Sqrt (a)
            y = Sum (b, c, d)
            z = Identity (a)
        }""",
    ),
    Thread(
        "onnxruntime#11245",
        "Add was bound to two types",
        """(float[4] x, float16[4] h) => (float[4] y, float16[4] k) <float[4] w = {1, 2, 3, 4}> {
            a = Exp (x)
            y = Add (a, w)
            k = Add (h, h)
        }""",
    ),
    Thread(
        "transformer-deploy#89",
        "an output that is read inside made the graph cyclic",
        """(float[4] x) => (float[4] y, float[4] z) {
            y = Exp (x)
            a = Neg (y)
            z = Add (a, y)
        }""",
    ),
    Thread(
        "tether#271",
        "types of inputs and outputs changed although they were to be kept",
        """(float[4] x, double[4] d, int32[4] i)
            => (float[4] y, double[4] e, int32[4] j, float[4] x) {
            y = Mul (x, x)
            e = Neg (d)
            j = Abs (i)
        }""",
    ),
    Thread(
        "winml-cli#1280",
        "an output that is a weight lost its type",
        """(float[4] x) => (float[4] y, float[4] w, float k) <float[4] w = {1, 2, 3, 4}> {
            k = Constant <value_float = 0.1> ()
            a = Mul (x, w)
            y = Mul (a, k)
        }""",
    ),
    Thread(
        "winml-cli#1353",
        "exclusion by name hit nodes whose name begins alike",
        """(float[4] x) => (float[4] y) {
            [Mul_1] a = Mul (x, x)
            [Mul_10] b = Mul (a, x)
            [Mul_1] y = Mul (b, a)
        }""",
    ),
    Thread(
        "Model-Optimizer#659, Model-Optimizer#1628",
        "branches of an If returned different types",
        """(float[4] x, bool c) => (float[4] y) <float[4] w = {1, 2, 3, 4}> {
            a = Exp (x)
            r = If (c) <
                then_branch = t () => (float[4] p) { p = Mul (a, w) },
                else_branch = e () => (float[4] q) { q = Identity (w) }>
            y = Neg (r)
        }""",
    ),
    Thread(
        "onnxruntime#20189",
        "a decoder merged by an If did not load: what branches capture had changed its type",
        """(float[2, 2] h, bool first) => (float[2, 2] logits, float[2, 2] cache)
        <float[2, 2] w = {0.1, 0.2, 0.3, 0.4}> {
            e = Tanh (h)
            o, k = If (first) <
                then_branch = t () => (float[2, 2] p, float[2, 2] q) {
                    p = MatMul (e, w)
                    q = Identity (e)
                },
                else_branch = f () => (float[2, 2] p, float[2, 2] q) {
                    m = MatMul (h, w)
                    p = Add (m, e)
                    q = Sub (e, m)
                }>
            logits = Softmax (o)
            cache = Identity (k)
        }""",
    ),
    Thread(
        "onnxruntime#17447",
        "a Resize in a Loop did not load",
        """(float[1, 1, 2, 2] x) => (float[A, B, C, D] y)
        <int64 n = {2}, bool t = {1}, float[4] s = {1, 1, 1, 1}> {
            a = Exp (x)
            y = Loop (n, t, a) <body = l (int64 i, bool ci, float[1, 1, 2, 2] v)
                => (bool co, float[1, 1, 2, 2] u) {
                co = Identity (ci)
                r = Resize <mode = "linear"> (v, , s)
                u = Mul (r, a)
            }>
        }""",
    ),
]


def _model(thread: Thread) -> onnx.ModelProto:
    opsets = f'"": {thread.opset}, "com.microsoft": 1'
    return onnx.parser.parse_model(f"<ir_version: 8, opset_import: [{opsets}]> g {thread.text}")


def _feeds(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng, feeds = np.random.default_rng(0), {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = [dim.dim_value for dim in kind.shape.dim]
        feeds[value.name] = np.asarray(2 * rng.standard_normal(shape)).astype(dtype)
    return feeds


def _plans(candidates: frozenset[int]) -> Iterator[PrecisionPlan]:
    ids = sorted(candidates)
    kept = list(chain.from_iterable(combinations(ids, n) for n in range(len(ids) + 1)))
    if len(kept) > _MOST_PLANS:
        kept = [kept[0], kept[-1], *random.Random(0).sample(kept[1:-1], _MOST_PLANS - 2)]
    return map(PrecisionPlan.of, kept)


@pytest.mark.parametrize("thread", THREADS, ids=lambda thread: thread.numbers.replace(" ", ""))
def test_thread(thread: Thread, tmp_path: Path) -> None:
    proto = _model(thread)
    source, feeds = load_model(proto), _feeds(proto)
    assert source.candidates, thread.lesson
    converter = Converter(source, Numerics())
    for plan in _plans(source.candidates):
        conversion = converter.convert(plan)
        assert_tidy(conversion, source)
        low = plan.low(source.candidates)
        assert_means_the_same(conversion, source, low, feeds, Numerics())
        path = write(conversion, tmp_path / "m.onnx")[0]
        check_export(path)
        session(conversion.model).run(None, feeds)
        _assert_kept_ops_are_float(conversion, low)


def _assert_kept_ops_are_float(conversion: Conversion, low: frozenset[int]) -> None:
    """No kept op reads or writes fp16, but for casts and what the user typed so."""
    for graph in conversion.model.graphs():
        for node in graph:
            if op_id(node) in low or op_id(node) < 0 or node.op_type in ("Cast", "Shape"):
                continue
            kinds = {v.dtype for v in (*node.inputs, *node.outputs) if v is not None}
            assert not {ir.DataType.FLOAT, ir.DataType.FLOAT16} <= kinds, node


@pytest.mark.parametrize(
    "numbers",
    [
        "onnx#3046, onnx#3588, onnxruntime#15063, onnxruntime#15349",
        "onnxconverter-common#215, onnxconverter-common#167",
    ],
)
def test_what_exceeds_a_protobuf_message(numbers: str, tmp_path: Path) -> None:
    """The limit of 2 GB, scaled down; ``benchmarks/large_model.py`` has the real size."""
    weight = np.arange(4096, dtype=np.float32)
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[4096] x) => (float[4096] y) {
            a = Mul (x, w)
            b = Add (a, v)
            y = Mul (b, w)
        }"""
    )
    for name in "wv":
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    source = tmp_path / "source" / "m.onnx"
    source.parent.mkdir()
    onnx.save(model, source, save_as_external_data=True, location="m.bin", size_threshold=0)
    conversion = Converter(load_model(source), Numerics()).convert(PrecisionPlan.of([2]))
    files = write(conversion, tmp_path / "mixed.onnx", inline_limit=1000)
    check_export(files[0])
    assert [file.name for file in files] == ["mixed.onnx", "mixed.onnx.data"]
    assert files[1].stat().st_size == 4096 * (4 + 2 + 2), numbers
