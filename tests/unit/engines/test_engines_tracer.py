"""Pieces of a traced run: however a model is cut, every op shows the same."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topsideas.engines.base import OpRecord
from topsideas.engines.emulator import pieces, sessions, tracer
from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.engines.emulator.pieces import Piece, Pieces
from topsideas.engines.emulator.steps import Block, compile_block
from topsideas.errors import EngineError
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics
from topsideas.testing.planted import parse, planted_models, ramp

UNARY = ("Exp", "Tanh", "Neg", "Sigmoid", "Relu")
BINARY = ("Add", "Mul", "Sub", "Max")

LOOP = """g (float[2] x) => (float[2] z) <int64 n = {3}, bool go = {1}> {
    a = Exp (x)
    y = Loop (n, go, a) <body = b (int64 i, bool p, float[2] v) => (bool q, float[2] w) {
        q = Identity (p)
        s = Sigmoid (v)
        w = Add (s, a)
    }>
    t = Tanh (y)
    z = Neg (t)
}"""


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sets how long a piece is and how many bytes it may return."""

    def set_to(steps: int, tensors: int = 1 << 30) -> None:
        monkeypatch.setattr(pieces, "_MAX_STEPS", steps)
        monkeypatch.setattr(tracer, "_MAX_TENSORS", tensors)

    return set_to


def _graph(seed: int, length: int) -> Model:
    rng = random.Random(seed)
    names, lines = ["x"], []
    for i in range(length):
        op = rng.choice(UNARY + BINARY)
        reads = [rng.choice(names[-5:]) for _ in range(1 if op in UNARY else 2)]
        names.append(f"v{i}")
        lines.append(f"v{i} = {op} ({', '.join(reads)})")
    return load_model(
        parse(f"g (float[50] x) => (float[50] v{length - 1}) {{ {chr(10).join(lines)} }}")
    )


def _block(text: str) -> Block:
    model = load_model(parse(text))
    return compile_block(model.graph, {op.id: op.slots for op in model.ops if op.candidate})


def _spans(found: list[Piece]) -> list[tuple[int, int]]:
    return [(piece.start, piece.end) for piece in found]


def _records(model: Model, plan: PrecisionPlan, feeds: dict[str, Any], runs: int) -> Any:
    engine = EmulatorEngine(model, Numerics())
    for _ in range(runs):  # a piece that turns out to be large is split from the next run on
        trace = engine.compile(plan).trace(feeds)
        records = list(trace)
    return records, trace.outputs


def _assert_same(found: list[OpRecord], expected: list[OpRecord]) -> None:
    assert [r.id for r in found] == [r.id for r in expected]
    for left, right in zip(found, expected, strict=True):
        for name in ("outputs", "raw", "slot_inputs"):
            np.testing.assert_equal(getattr(left, name), getattr(right, name))


@pytest.mark.parametrize("planted", planted_models(), ids=lambda p: p.name)
def test_planted_models_show_the_same_in_pieces_as_op_by_op(planted: Any, limits: Any) -> None:
    model = load_model(planted.model)
    for plan in (PrecisionPlan.of([]), PrecisionPlan(model.candidates)):
        for feeds in planted.samples:
            limits(1)
            alone, outputs = _records(model, plan, feeds, 1)
            limits(16)
            together, same = _records(model, plan, feeds, 1)
            _assert_same(together, alone)
            np.testing.assert_equal(same, outputs)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 9), st.sampled_from([1, 300, 700, 1 << 20]))
def test_any_cut_shows_the_same(seed: int, steps: int, tensors: int) -> None:
    model = _graph(seed, 12)
    plan = PrecisionPlan.of(i for i in range(12) if random.Random(seed + i).random() < 0.5)
    feeds = {"x": ramp(-3, 12, 50)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "_MAX_STEPS", 1)
        expected, outputs = _records(model, plan, feeds, 1)
        patch.setattr(pieces, "_MAX_STEPS", steps)
        patch.setattr(tracer, "_MAX_TENSORS", tensors)
        found, same = _records(model, plan, feeds, 3)
    _assert_same(found, expected)
    np.testing.assert_equal(same, outputs)


def test_ops_with_bodies_are_alone(limits: Any) -> None:
    limits(16)
    assert _spans(Pieces().of(_block(LOOP))) == [(0, 1), (1, 2), (2, 4)]


def test_pieces_end_where_weights_come_to_much(
    limits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(16)
    monkeypatch.setattr(pieces, "_MAX_WEIGHTS", 20)
    block = _block("""g (float[2] x) => (float[2] e) <float[2] w = {1, 2}> {
        a = Mul (x, w)
        b = Mul (a, w)
        c = Exp (b)
        d = Mul (c, w)
        e = Mul (d, w)
    }""")
    found = Pieces().of(block)
    assert _spans(found) == [(0, 3), (3, 5)]
    assert [piece.weight_bytes for piece in found] == [16, 16]
    assert [[v.name for v in p.reads] for p in found] == [["x"], ["c"]]
    assert [sorted(str(v.name) for v in p.kept) for p in found] == [["c"], ["e"]]
    assert [[v.name for v in p.released] for p in found] == [["x"], ["c"]]


def test_a_piece_is_split_where_its_tensors_come_to_much() -> None:
    block = _block(
        "g (float[2] x) => (float[2] d) { a = Exp(x) b = Neg(a) c = Exp(b) d = Neg(c) }"
    )
    cut = Pieces()
    (piece,) = cut.of(block)
    assert cut.parts(piece) is None
    cut.split(piece, [8, 2, 1, 9], limit=10)
    parts = cut.parts(piece)
    assert parts is not None
    assert _spans(parts) == [(0, 2), (2, 4)]
    assert _spans(cut.halve(parts[0])) == [(0, 1), (1, 2)]


def test_large_tensors_run_in_smaller_pieces_from_then_on(limits: Any) -> None:
    limits(4, 500)
    model = _graph(1, 8)
    engine = EmulatorEngine(model, Numerics())
    plan = PrecisionPlan(model.candidates)
    for _ in range(2):
        list(engine.compile(plan).trace({"x": ramp(0, 1, 50)}))
    assert {len(p.steps) for p, _, _ in engine._sessions._open} <= {1, 2, 4}
    assert any(len(p.steps) == 2 for p, _, _ in engine._sessions._open)


def test_a_failing_op_is_named_although_it_ran_beside_others() -> None:
    model = load_model(
        parse("""g (float[N] x, float[M] y) => (float[K] d) {
            a = Exp (x)
            b = Neg (a)
            c = Add (b, y)
            d = Exp (c)
        }""")
    )
    executable = EmulatorEngine(model, Numerics()).compile(PrecisionPlan.of([]))
    seen = []
    with pytest.raises(EngineError, match=r"^op 2 \(Add\): onnxruntime .* failed"):
        seen.extend(r.id for r in executable.trace({"x": ramp(0, 1, 2), "y": ramp(0, 1, 3)}))
    fine = executable.trace({"x": ramp(0, 1, 2), "y": ramp(0, 1, 2)})
    assert [r.id for r in fine] == [0, 1, 2, 3]


def test_an_op_that_the_runtime_lacks_is_named_although_others_run() -> None:
    proto = parse("g (float[2] x) => (float[2] z) { y = Neg (x) z = Exp (y) }")
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "Wonder", "acme"
    proto.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    executable = EmulatorEngine(load_model(proto), Numerics()).compile(PrecisionPlan.of([]))
    with pytest.raises(EngineError, match=r"refuses the model: .*Wonder"):
        list(executable.trace({"x": ramp(0, 1, 2)}))


def test_sessions_are_bounded_by_their_weights(
    limits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits(1)
    monkeypatch.setattr(sessions, "_SESSION_BYTES", 100)
    model = _graph(2, 9)
    engine = EmulatorEngine(model, Numerics())
    engine._sessions._limit = 300
    first, second = (
        [*engine.compile(PrecisionPlan.of([])).trace({"x": ramp(0, 1, 50)})] for _ in "12"
    )
    assert len(engine._sessions._open) == 3
    assert engine._sessions._bytes == 300
    _assert_same(second, first)


def test_a_session_beyond_the_limit_is_used_and_dropped(limits: Any) -> None:
    limits(1)
    model = _graph(3, 4)
    engine = EmulatorEngine(model, Numerics())
    engine._sessions._limit = 0
    assert len(list(engine.compile(PrecisionPlan.of([])).trace({"x": ramp(0, 1, 50)}))) == 4
    assert len(engine._sessions._open) == 1


def test_threads_that_ask_at_once_open_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    session = sessions.runtime.session

    def counting(*args: Any, **kwargs: Any) -> Any:
        opened.append(args)
        return session(*args, **kwargs)

    model = _graph(4, 8)
    engine = EmulatorEngine(model, Numerics())
    executable = engine.compile(PrecisionPlan.of([]))
    monkeypatch.setattr(sessions.runtime, "session", counting)
    with ThreadPoolExecutor(6) as pool:
        traces = list(pool.map(lambda _: list(executable.trace({"x": ramp(0, 1, 50)})), range(6)))
    assert len(opened) == 1
    for trace in traces:
        _assert_same(trace, traces[0])
