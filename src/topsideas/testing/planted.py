"""Tiny models with a known answer: each plants one way in which a low precision goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx

from topsideas.precision import Accumulation, Numerics

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Planted:
    """A model, inputs for it, and the ops that must stay fp32.

    Attributes:
        name: A name for messages.
        model: The model.
        samples: Inputs by name.
        answer: The smallest set of ops that makes every sample pass at the default tolerance
            (1e-2 relative and absolute). No other set of that size does.
        numerics: What the target rounds.
        by_infinity: Whether it goes wrong by infinity only, so that a saturating target has
            another answer.
        fusible: Whether a compiler may make one kernel of it, within which nothing is rounded.
    """

    name: str
    model: onnx.ModelProto
    samples: tuple[Feeds, ...]
    answer: frozenset[int]
    numerics: Numerics = field(default_factory=Numerics)
    by_infinity: bool = False
    fusible: bool = True


def planted_models() -> list[Planted]:
    """Every planted model."""
    return [make() for make in _MODELS]


def parse(text: str, opset: int = 17) -> onnx.ModelProto:
    """A model from a graph (and functions) in ONNX's text format."""
    functions = ', "local": 1' if "local." in text else ""
    header = f'<ir_version: 8, opset_import: ["": {opset}{functions}]>\n'
    model: onnx.ModelProto = onnx.parser.parse_model(header + text)
    onnx.checker.check_model(model, full_check=True)
    return model


def ramp(low: float, high: float, *shape: int) -> np.ndarray:
    """Evenly spaced float32 values, so that no sample needs a random generator."""
    return np.linspace(low, high, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def harmless() -> Planted:
    """Low everywhere is accurate enough."""
    text = """g (float[4] x) => (float[4] y) {
        a = Tanh (x)
        b = Exp (a)
        y = Add (b, x)
    }"""
    return Planted("harmless", parse(text), ({"x": ramp(-1, 1, 4)},), frozenset())


def overflow() -> Planted:
    """A product beyond 65504: its producer and its reader are needed, and needed together."""
    text = """g (float[4] x) => (float[4] y)
    <float c = {100.0}, float d = {0.01}> {
        a = Relu (x)
        b = Mul (a, c)
        s = Mul (b, d)
        y = Neg (s)
    }"""
    return Planted("overflow", parse(text), ({"x": ramp(-1, 1000, 4)},), frozenset({1, 2}))


def products() -> Planted:
    """A product of matrices beyond 65504; no compiler makes one kernel of two such products."""
    text = """g (float[16,16] x, float[16,16] a, float[16,16] b) => (float[16,16] y) {
        between = MatMul (x, a)
        y = MatMul (between, b)
    }"""
    x, a, b = (np.zeros((16, 16), np.float32) for _ in range(3))
    x[0, 0], a[0, 0], b[0, 0] = 1000, 100, 0.01
    sample = {"x": x, "a": a, "b": b}
    return Planted("products", parse(text), (sample,), frozenset({0, 1}), fusible=False)


def accumulation() -> Planted:
    """A mean whose input and output fit, but not the sum inside."""
    text = """g (float[1,2048] x) => (float[1,1] y) {
        a = Relu (x)
        m = ReduceMean <axes = [1]> (a)
        y = Sqrt (m)
    }"""
    return Planted(
        "accumulation",
        parse(text),
        ({"x": ramp(40, 80, 1, 2048)},),
        frozenset({1}),
        Numerics(accumulation=Accumulation.LOW),
    )


def epsilon() -> Planted:
    """A guard against the logarithm of zero that is itself zero in the low format."""
    text = """g (float[4] x) => (float[4] y)
    <float eps = {1e-12}> {
        a = Relu (x)
        m = Max (a, eps)
        l = Log (m)
        y = Tanh (l)
    }"""
    planted = parse(text)
    # Tanh of minus infinity is what Tanh of Log(eps) is, so the logarithm is an output too.
    planted.graph.output.append(onnx.helper.make_tensor_value_info("l", 1, [4]))
    return Planted("epsilon", planted, ({"x": ramp(-3, 3, 4)},), frozenset({1, 2}))


def mask() -> Planted:
    """The lowest float32 as a mask: minus infinity in the low format, and 0 * inf is NaN."""
    text = """g (float[1,4] scores, float[1,4] hidden) => (float[1,4] y)
    <float lowest = {-3.4028235e38}> {
        m = Mul (hidden, lowest)
        s = Add (scores, m)
        y = Softmax <axis = -1> (s)
    }"""
    sample = {"scores": ramp(-1, 1, 1, 4), "hidden": np.array([[0, 1, 0, 1]], np.float32)}
    return Planted("mask", parse(text), (sample,), frozenset({0}), by_infinity=True)


def constant() -> Planted:
    """A constant beyond 65504 between values that fit."""
    text = """g (float[4] x) => (float[4] y) {
        c = Constant <value = float {100000.0}> ()
        a = Relu (x)
        d = Div (a, c)
        y = Exp (d)
    }"""
    return Planted("constant", parse(text), ({"x": ramp(1e4, 5e4, 4)},), frozenset({2}))


def counts() -> Planted:
    """Whole numbers above 2048, of which fp16 holds every second only."""
    text = """g (float[1,2049] x) => (int64[1,1] n, bool[1,1] full)
    <float limit = {2048.5}> {
        a = Abs (x)
        s = ReduceL1 <axes = [1]> (a)
        n = Cast <to = 7> (s)
        full = Greater (s, limit)
    }"""
    sample = {"x": np.ones((1, 2049), np.float32)}
    return Planted("counts", parse(text), (sample,), frozenset({1, 2, 3}))


def many_readers() -> Planted:
    """A tensor that does not fit and has three readers, one of them a graph output's producer."""
    text = """g (float[4] x) => (float[4] y, float[4] z)
    <float c = {300.0}, float d = {0.001}, float e = {2.0}> {
        b = Mul (x, c)
        p = Mul (b, d)
        q = Div (b, c)
        r = Sub (b, b)
        s = Add (p, r)
        y = Mul (s, e)
        z = Add (q, r)
    }"""
    answer = frozenset({0, 1, 2, 3})
    sample = {"x": ramp(1, 900, 4)}
    return Planted("many_readers", parse(text), (sample,), answer, by_infinity=True)


def output_read_inside() -> Planted:
    """The tensor that does not fit is an output of the graph and is read inside too."""
    text = """g (float[4] x) => (float[4] b, float[4] y)
    <float c = {100.0}, float d = {0.01}> {
        b = Mul (x, c)
        s = Mul (b, d)
        y = Relu (s)
    }"""
    sample = {"x": ramp(-1, 1000, 4)}
    return Planted("output_read_inside", parse(text), (sample,), frozenset({0, 1}))


def initializer_output() -> Planted:
    """An initializer is an output of the graph; so is an input, unchanged."""
    text = """g (float[4] x) => (float[4] y, float[2] w, float[4] x)
    <float c = {100000.0}, float[2] w = {1e6, 3.0}> {
        d = Div (x, c)
        y = Exp (d)
    }"""
    planted = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
    sample = {"x": ramp(1e4, 5e4, 4)}
    return Planted("initializer_output", planted, (sample,), frozenset({0}))


def one_of_many_samples() -> Planted:
    """Only the third of five samples does not fit."""
    base = overflow()
    fits = tuple({"x": ramp(-1, high, 4)} for high in (10, 20, 40, 80))
    samples = (*fits[:2], *base.samples, *fits[2:])
    return Planted("one_of_many_samples", base.model, samples, base.answer)


def dynamic_batch() -> Planted:
    """Samples of different batch sizes; only the largest does not fit."""
    text = """g (float[N,4] x) => (float[N,4] y)
    <float c = {100000.0}> {
        t = Tanh (x)
        s = ReduceSum <keepdims = 1> (x)
        d = Div (s, c)
        y = Add (t, d)
    }"""
    samples = tuple({"x": ramp(0, 30000, n, 4)} for n in (1, 2, 3))
    return Planted("dynamic_batch", parse(text), samples, frozenset({1, 2}))


def in_branch() -> Planted:
    """The op is inside an If; each branch is taken by one sample."""
    text = """g (float[4] x, bool c) => (float[4] y) {
        y = If (c) <
            then_branch = t () => (float[4] u) {
                k = Constant <value = float {100000.0}> ()
                d = Div (x, k)
                u = Exp (d)
            },
            else_branch = e () => (float[4] v) {
                v = Sqrt (x)
            }
        >
    }"""
    samples = tuple({"x": ramp(1e4, 5e4, 4), "c": np.array(c)} for c in (True, False))
    return Planted("in_branch", parse(text), samples, frozenset({2}))


def in_loop() -> Planted:
    """Two ops inside a Loop, one of them reading a value from outside the loop."""
    text = """g (float[4] x, int64 n) => (float[4] y, float[T,4] all)
    <float c = {100.0}, float d = {0.0101}, bool go = {1}> {
        y, all = Loop (n, go, x) <
            body = b (int64 i, bool cond, float[4] v) => (bool more, float[4] w, float[4] each) {
                more = Identity (cond)
                p = Mul (v, c)
                w = Mul (p, d)
                each = Tanh (w)
            }
        >
    }"""
    sample = {"x": ramp(1, 900, 4), "n": np.array(3, np.int64)}
    return Planted("in_loop", parse(text), (sample,), frozenset({2, 3}))


def in_scan() -> Planted:
    """Two ops inside a Scan."""
    text = """g (float[2] start, float[3,2] x) => (float[2] last, float[3,2] all)
    <float c = {100.0}, float d = {0.01}> {
        last, all = Scan <num_scan_inputs = 1, body = b (float[2] s, float[2] row)
            => (float[2] next, float[2] out) {
                p = Mul (row, c)
                q = Mul (p, d)
                next = Add (s, q)
                out = Tanh (next)
            }
        > (start, x)
    }"""
    sample = {"start": ramp(0, 1, 2), "x": ramp(1, 900, 3, 2)}
    return Planted("in_scan", parse(text), (sample,), frozenset({1, 2}))


def in_function() -> Planted:
    """The op is inside a local function; ids index the model with the function inlined."""
    text = """g (float[4] x) => (float[4] a, float[4] y) {
        a = local.f (x)
        y = local.f (a)
    }
    <opset_import: ["": 17], domain: "local">
    f (u) => (v) {
        k = Constant <value = float {100000.0}> ()
        d = Div (u, k)
        v = Exp (d)
    }"""
    sample = {"x": ramp(1e4, 5e4, 4)}
    return Planted("in_function", parse(text), (sample,), frozenset({1}))


_MODELS: tuple[Callable[[], Planted], ...] = (
    harmless,
    overflow,
    products,
    accumulation,
    epsilon,
    mask,
    constant,
    counts,
    many_readers,
    output_read_inside,
    initializer_output,
    one_of_many_samples,
    dynamic_batch,
    in_branch,
    in_loop,
    in_scan,
    in_function,
)
