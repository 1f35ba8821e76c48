"""Bodies, captured values and functions: every way to run a plan gives the same bits."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain, combinations
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from emulator_reference import Walk, check_step, goes_low, same
from onnx.inliner import inline_local_functions

from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import BF16, FP16, Accumulation, Numerics, Overflow, Subnormals
from topsideas.stats.criteria import Tolerance, margin
from topsideas.testing.planted import parse, planted_models, ramp

# fp32 kernels that are fused or split differently differ in the last bits only.
NOISE = Tolerance(1e-5, 1e-6)
TINY = 1  # bytes: every intermediate tensor but the latest must be recomputed

MODELS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "loop in a branch in a loop": (
        """g (float[3] x, int64 n) => (float[3] y, float[n,3] seen)
        <float c = {1.1}, bool go = {1}, int64 two = {2}> {
            big = Mul (x, c)
            y, seen = Loop (n, go, x) <body = outer (int64 i, bool a, float[3] v)
                => (bool b, float[3] w, float[3] kept) {
                    b = Identity (a)
                    odd = Mod (i, two)
                    is_odd = Cast <to = 9> (odd)
                    w = If (is_odd) <
                        then_branch = t () => (float[3] r) {
                            r = Loop (two, , v) <body = inner (int64 j, bool p, float[3] u)
                                => (bool q, float[3] s) {
                                    q = Identity (p)
                                    k = Mul (u, big)
                                    s = Sigmoid (k)
                                }>
                        },
                        else_branch = e () => (float[3] z) { z = Sub (v, big) }
                    >
                    kept = Exp (w)
                }>
        }""",
        [{"x": ramp(-1, 1, 3), "n": np.array(n)} for n in (0, 1, 4)],
    ),
    "a loop that stops itself": (
        """g (float x) => (float y, float[m] seen)
        <float one = {1.0}, float limit = {6.3}, int64 most = {20}> {
            y, seen = Loop (most, , x) <body = b (int64 i, bool a, float v)
                => (bool go, float w, float each) {
                    w = Add (v, one)
                    go = Less (w, limit)
                    each = Sqrt (w)
                }>
        }""",
        [{"x": np.array(0.3, np.float32)}],
    ),
    "a loop that returns values from outside": (
        """g (float[2] x) => (float[2] y, float[m,2] outside, float[m,2] weights)
        <int64 three = {3}, bool go = {1}, float[2] w = {0.1, 70000}> {
            t = Tanh (x)
            y, outside, weights = Loop (three, go, x) <body = b (int64 i, bool a, float[2] v)
                => (bool a2, float[2] u, float[2] o, float[2] k) {
                    a2 = Identity (a)
                    u = Add (v, t)
                    o = Identity (t)
                    k = Identity (w)
                }>
        }""",
        [{"x": ramp(0.1, 1, 2)}],
    ),
    "a scan along other axes, backwards": (
        """g (float[2] s, float[2,3] x, float[3,4] z)
            => (float[2] last, float[2,3] p, float[4,3] q)
        <float c = {0.7}> {
            last, p, q = Scan <num_scan_inputs = 2, scan_input_axes = [-1, 0],
                scan_input_directions = [1, 0], scan_output_axes = [1, -1],
                scan_output_directions = [0, 1],
                body = b (float[2] state, float[2] row, float[4] other)
                    => (float[2] next, float[2] a, float[4] d) {
                        m = Mul (row, c)
                        next = Add (state, m)
                        a = Exp (next)
                        d = Tanh (other)
                    }> (s, x, z)
        }""",
        [{"s": ramp(0, 1, 2), "x": ramp(-1, 1, 2, 3), "z": ramp(-2, 2, 3, 4)}],
    ),
    "a scan over scalars, whose body declares no shapes": (
        """g (float s, float[5] x) => (float last, float[5] all) {
            last, all = Scan <num_scan_inputs = 1, body = b (s0, e) => (next, out) {
                next = Add (s0, e)
                out = Sin (next)
            }> (s, x)
        }""",
        [{"s": np.array(0.1, np.float32), "x": ramp(0, 3, 5)}],
    ),
    "branches that hand values on": (
        """g (float[3] x, bool c, bool d) => (float[3] y, float[3] z)
        <float[3] w = {0.1, 0.2, 70000}> {
            t = Exp (x)
            y, z = If (c) <
                then_branch = a () => (float[3] same, float[3] own)
                <float[3] own = {0.1, 1, 70000}> {
                    same = Identity (t)
                },
                else_branch = b () => (float[3] p, float[3] q) {
                    p = If (d) <
                        then_branch = i () => (float[3] m) { m = Mul (t, w) },
                        else_branch = j () => (float[3] n) { n = Div (t, w) }
                    >
                    q = Neg (p)
                }
            >
        }""",
        [
            {"x": ramp(-1, 1, 3), "c": np.array(c), "d": np.array(d)}
            for c, d in ((True, False), (False, True), (False, False))
        ],
    ),
    "functions in a loop, and a loop in a function": (
        """g (float[2] x) => (float[2] y)
        <int64 three = {3}, bool go = {1}> {
            a = local.twice (x)
            y = Loop (three, go, a) <body = b (int64 i, bool p, float[2] v)
                => (bool q, float[2] w) {
                    q = Identity (p)
                    w = local.half (v)
                }>
        }
        <opset_import: ["": 17], domain: "local">
        half (u) => (v) {
            c = Constant <value = float {0.55}> ()
            m = Mul (u, c)
            v = Tanh (m)
        }
        <opset_import: ["": 17], domain: "local">
        twice (u) => (v) {
            n = Constant <value = int64 {2}> ()
            t = Constant <value = bool {1}> ()
            v = Loop (n, t, u) <body = b (int64 i, bool p, float[2] k)
                => (bool q, float[2] l) {
                    q = Identity (p)
                    l = Exp (k)
                }>
        }""",
        [{"x": ramp(-1, 1, 2)}],
    ),
    "sequences": (
        """g (float[4] x) => (float[2] y, float[4] z)
        <int64[2] parts = {2, 2}, int64 one = {1}> {
            e = Exp (x)
            s = SplitToSequence <axis = 0> (e, parts)
            second = SequenceAt (s, one)
            y = Sqrt (second)
            z = ConcatFromSequence <axis = 0> (s)
        }""",
        [{"x": ramp(-1, 1, 4)}],
    ),
    "one tensor, low and kept readers": (
        """g (float[4] x) => (float[4] p, float[4] q, float[4] r, float[4] x)
        <float[4] w = {0.1, 0.2, 0.3, 70000}> {
            t = Mul (x, w)
            p = Exp (t)
            q = Add (t, w)
            r = Sub (t, x)
        }""",
        [{"x": ramp(-0.3, 0.3, 4)}],
    ),
    "half and double precision of the model's own": (
        """g (float[4] x, float16[4] h, double[4] d) => (float[4] y, double[4] z, float16[4] k) {
            a = Cast <to = 1> (h)
            b = Cast <to = 1> (d)
            s = Add (x, a)
            y = Mul (s, b)
            z = Mul (d, d)
            k = Cast <to = 10> (y)
        }""",
        [
            {
                "x": ramp(-1, 1, 4),
                "h": ramp(0, 2, 4).astype(np.float16),
                "d": ramp(1, 3, 4).astype(np.float64),
            }
        ],
    ),
}

NUMERICS = [
    Numerics(),
    Numerics(FP16, Overflow.SATURATE, Subnormals.FLUSH),
    Numerics(BF16),
]


def _model(name: str) -> tuple[onnx.ModelProto, Model]:
    text, _ = MODELS[name]
    functions = ', "local": 1' if "local." in text else ""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17{functions}]>\n{text}')
    return proto, load_model(proto)


def _plans(model: Model) -> Iterator[PrecisionPlan]:
    """Every plan of up to five candidates; of more, both ends and eight in between."""
    ids = sorted(model.candidates)
    if len(ids) <= 4:
        subsets = chain.from_iterable(combinations(ids, k) for k in range(len(ids) + 1))
        yield from map(PrecisionPlan.of, subsets)
        return
    rng = random.Random(0)
    yield PrecisionPlan.of([])
    yield PrecisionPlan.of(ids)
    for _ in range(8):
        yield PrecisionPlan.of(i for i in ids if rng.random() < 0.5)


def _assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert same(found[name], array), name


def _different(numerics: Numerics) -> str:
    return "-".join(numerics.to_json().values())


@pytest.mark.parametrize("numerics", NUMERICS, ids=_different)
@pytest.mark.parametrize("name", MODELS)
def test_every_way_to_run_a_plan_gives_the_same_bits(name: str, numerics: Numerics) -> None:
    _, model = _model(name)
    engine = EmulatorEngine(model, numerics)
    forgetful = EmulatorEngine(model, numerics, memory_limit=TINY)
    for plan in _plans(model):
        executable, whole = engine.compile(plan), engine.compile(plan).freeze()
        for feeds in MODELS[name][1]:
            outputs = executable.run(feeds)
            trace = executable.trace(feeds)
            assert sum(1 for _ in trace) > 0
            _assert_same(trace.outputs, outputs)
            _assert_same(forgetful.compile(plan).run(feeds), outputs)
            _assert_same(whole.run(feeds), outputs)


@pytest.mark.parametrize("name", MODELS)
def test_a_second_opinion_differs_by_fp32_noise_only(name: str) -> None:
    _, model = _model(name)
    engine = EmulatorEngine(model, Numerics())
    for plan in (PrecisionPlan.of([]), PrecisionPlan(model.candidates)):
        executable = engine.compile(plan)
        second = executable.second_opinion()
        for feeds in MODELS[name][1]:
            outputs = executable.run(feeds)
            for output, found in second.run(feeds).items():
                assert margin(found, outputs[output], NOISE) <= 1


@pytest.mark.filterwarnings("ignore")  # ONNX's reference evaluator
@pytest.mark.parametrize("numerics", NUMERICS, ids=_different)
@pytest.mark.parametrize("name", MODELS)
def test_each_op_follows_the_definition(name: str, numerics: Numerics) -> None:
    proto, model = _model(name)
    flat = inline_local_functions(proto) if proto.functions else proto
    engine = EmulatorEngine(model, numerics)
    compared = set()
    for plan in _plans(model):
        low = plan.low(model.candidates)
        for feeds in MODELS[name][1]:
            walk = Walk(flat, iter(engine.compile(plan).trace(feeds)), feeds)
            for step, record in walk:
                assert goes_low(walk, step, record) == (step.id in model.candidates)
                check_step(walk, step, record, step.id in low, numerics)
                compared.add(step.id)
    assert model.candidates <= compared, "no sample runs some of the ops"


@pytest.mark.parametrize("planted", planted_models(), ids=lambda p: p.name)
def test_planted_models_run_the_same_with_no_memory(planted: Any) -> None:
    model = load_model(planted.model)
    roomy = EmulatorEngine(model, planted.numerics)
    forgetful = EmulatorEngine(model, planted.numerics, memory_limit=TINY)
    for plan in _plans(model):
        for feeds in planted.samples:
            _assert_same(forgetful.compile(plan).run(feeds), roomy.compile(plan).run(feeds))


def _cases() -> Iterator[tuple[str, onnx.ModelProto, list[dict[str, Any]]]]:
    yield from ((name, _model(name)[0], feeds) for name, (_, feeds) in MODELS.items())
    yield from ((p.name, p.model, list(p.samples)) for p in planted_models())


CASES = {name: (proto, samples) for name, proto, samples in _cases()}


@pytest.mark.parametrize("name", CASES)
def test_with_every_op_kept_nothing_differs_from_plain_fp32(name: str) -> None:
    proto, samples = CASES[name]
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    blob = proto.SerializeToString()
    plain = ort.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
    model = load_model(proto)
    kept = PrecisionPlan(model.candidates)
    engines = [EmulatorEngine(model, n) for n in (Numerics(), Numerics(BF16, Overflow.SATURATE))]
    for feeds in samples:
        names = [output.name for output in plain.get_outputs()]
        expected = dict(zip(names, plain.run(None, feeds), strict=True))
        for engine in engines:
            _assert_same(engine.compile(kept).run(feeds), expected)
            _assert_same(engine.compile(kept).freeze().run(feeds), expected)


def test_a_mean_under_low_accumulation_rounds_the_sum() -> None:
    """sum → round → divide: what a device with 16-bit accumulators stores."""
    proto = parse("""g (float[2,64] x) => (float[2,1] m, float[2,64,1] p) <int64[1] a = {2}> {
        m = ReduceMean <axes = [1]> (x)
        u = Unsqueeze (x, a)
        p = GlobalAveragePool (u)
    }""")
    model = load_model(proto)
    x = np.stack([ramp(0, 3000, 64), ramp(-1, 1, 64)])
    low = Numerics(accumulation=Accumulation.LOW)
    outputs = EmulatorEngine(model, low).compile(PrecisionPlan.of([])).run({"x": x})
    with np.errstate(over="ignore"):
        rounded = x.astype(np.float16).astype(np.float32)
        total = rounded.sum(1, keepdims=True).astype(np.float16).astype(np.float32)
    mean = (total / 64).astype(np.float16).astype(np.float32)
    assert outputs["m"][0] == np.inf
    np.testing.assert_allclose(outputs["m"], mean, rtol=2e-3, atol=1e-4)
    plain = EmulatorEngine(model, Numerics()).compile(PrecisionPlan.of([])).run({"x": x})
    assert np.isfinite(plain["m"]).all()
    kept = EmulatorEngine(model, low).compile(PrecisionPlan(model.candidates)).run({"x": x})
    fp32 = EmulatorEngine(model, Numerics()).compile(PrecisionPlan(model.candidates))
    _assert_same(kept, fp32.run({"x": x}))
