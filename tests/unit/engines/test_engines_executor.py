"""The executor runs what is new and nothing else, and forgets without changing answers."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.errors import EngineError
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics
from topsideas.testing.planted import parse, ramp

UNARY = ("Exp", "Tanh", "Sqrt", "Neg", "Sigmoid", "Relu")
BINARY = ("Add", "Mul", "Sub", "Max")
X = {"x": ramp(0.1, 1, 6)}


def _chain(length: int) -> Model:
    """x → v0 → v1 → …, a different op each time."""
    lines = [f"v{i} = {UNARY[i % 6]} ({'x' if i == 0 else f'v{i - 1}'})" for i in range(length)]
    text = "\n".join(lines)
    return load_model(parse(f"g (float[6] x) => (float[6] v{length - 1}) {{ {text} }}"))


def _random_graph(seed: int, length: int) -> Model:
    """Ops that read any earlier values; what nothing reads is an output."""
    rng = random.Random(seed)
    names, unread, lines = ["x"], set(), []
    for i in range(length):
        op = rng.choice(UNARY + BINARY)
        reads = [rng.choice(names[-4:]) for _ in range(1 if op in UNARY else 2)]
        unread -= set(reads)
        names.append(f"v{i}")
        unread.add(f"v{i}")
        lines.append(f"v{i} = {op} ({', '.join(reads)})")
    outputs = ", ".join(f"float[6] {n}" for n in sorted(unread))
    return load_model(parse(f"g (float[6] x) => ({outputs}) {{ {chr(10).join(lines)} }}"))


def _same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return list(found) == list(expected) and all(
        np.array_equal(found[n], expected[n], equal_nan=True) for n in expected
    )


def _runs(engine: EmulatorEngine, plan: PrecisionPlan, feeds: dict[str, Any]) -> int:
    """How many nodes it took."""
    before = engine._executor.node_runs
    engine.compile(plan).run(feeds)
    return engine._executor.node_runs - before


def test_what_nobody_reads_is_not_run() -> None:
    """Segments of such ops give nothing, which the runtime refuses to compute."""
    lines = [f"u{i} = {UNARY[i % 6]} (x)" for i in range(40)]
    text = "\n".join([*lines, "y = Exp (x)"])
    model = load_model(parse(f"g (float[6] x) => (float[6] y) {{ {text} }}"))
    engine = EmulatorEngine(model, Numerics())
    found = engine.compile(PrecisionPlan.of([40])).run(X)
    np.testing.assert_allclose(found["y"], np.exp(X["x"]), rtol=1e-6)


def test_a_known_plan_runs_nothing() -> None:
    engine = EmulatorEngine(_chain(8), Numerics())
    assert _runs(engine, PrecisionPlan.of([]), X) == 8
    assert _runs(engine, PrecisionPlan.of([]), X) == 0
    assert engine.work == 1.0


def test_a_plan_runs_only_what_lies_downstream_of_its_difference() -> None:
    """Down to a segment, which runs as a whole: about the square root of all ops."""
    engine = EmulatorEngine(_chain(100), Numerics())
    engine.compile(PrecisionPlan.of([])).run(X)
    assert 7 <= _runs(engine, PrecisionPlan.of([93]), X) <= 7 + 12
    assert _runs(engine, PrecisionPlan.of([93, 99]), X) <= 12


def test_a_result_that_is_bit_equal_ends_the_difference() -> None:
    """Neg of rounded values is exact: keeping it changes nothing downstream of its segment."""
    engine = EmulatorEngine(_chain(100), Numerics())
    engine.compile(PrecisionPlan.of([])).run(X)
    assert UNARY[3] == "Neg"
    assert _runs(engine, PrecisionPlan.of([3]), X) <= 12


def test_samples_do_not_share_results_unless_their_values_are_equal() -> None:
    engine = EmulatorEngine(_chain(6), Numerics())
    assert _runs(engine, PrecisionPlan.of([]), X) == 6
    assert _runs(engine, PrecisionPlan.of([]), {"x": ramp(0.2, 2, 6)}) == 6
    assert _runs(engine, PrecisionPlan.of([]), {"x": X["x"].copy()}) == 0


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([1, 100, 1 << 20]))
def test_any_sequence_of_plans_gives_what_a_fresh_engine_gives(seed: int, memory: int) -> None:
    model = _random_graph(seed, 14)
    rng = random.Random(seed)
    engine = EmulatorEngine(model, Numerics(), memory_limit=memory)
    samples = [{"x": ramp(0.1, high, 6)} for high in (1, 300)]
    for _ in range(4):
        share = rng.random()
        plan = PrecisionPlan.of(i for i in range(14) if rng.random() < share)
        feeds = rng.choice(samples)
        fresh = EmulatorEngine(model, Numerics()).compile(plan)
        assert _same(engine.compile(plan).run(feeds), fresh.run(feeds))


def test_a_deep_graph_is_recomputed_without_recursion() -> None:
    engine = EmulatorEngine(_chain(1100), Numerics(), memory_limit=1)
    plans = (PrecisionPlan.of([]), PrecisionPlan.of([1099]))
    outputs = [engine.compile(plan).run(X)["v1099"] for plan in plans]
    fresh = EmulatorEngine(_chain(1100), Numerics())
    for plan, output in zip(plans, outputs, strict=True):
        assert np.array_equal(fresh.compile(plan).run(X)["v1099"], output)


def test_two_dropped_inputs_of_one_op_can_both_be_recomputed() -> None:
    """With room for one tensor only, recomputing one input would drop the other."""
    text = """g (float[6] x) => (float[6] y) {
        a = Exp (x)
        b = Tanh (x)
        c = Sigmoid (x)
        d = Sum (a, b, c)
        y = Sqrt (d)
    }"""
    model = load_model(parse(text))
    engine = EmulatorEngine(model, Numerics(), memory_limit=1)
    first = engine.compile(PrecisionPlan.of([])).run(X)
    engine.compile(PrecisionPlan.of([0, 1, 2])).run(X)
    for kept in ([3], [4], []):
        expected = EmulatorEngine(model, Numerics()).compile(PrecisionPlan.of(kept)).run(X)
        assert _same(engine.compile(PrecisionPlan.of(kept)).run(X), expected)
    assert _same(engine.compile(PrecisionPlan.of([])).run(X), first)


def test_a_random_op_draws_once_a_run_however_little_is_remembered() -> None:
    lines = "\n".join(f"v{i} = Identity ({'r' if i == 0 else f'v{i - 1}'})" for i in range(60))
    text = f"""g (float[6] x) => (float[6] y, float[6] z) {{
        r = RandomNormalLike (x)
        {lines}
        y = Add (x, v59)
        z = Neg (r)
    }}"""
    model = load_model(parse(text))
    engine = EmulatorEngine(model, Numerics(), memory_limit=1)
    found = engine.compile(PrecisionPlan(model.candidates)).run(X)
    assert np.allclose(found["y"] - X["x"], -found["z"], atol=1e-6)


def test_samples_side_by_side_give_what_they_give_alone() -> None:
    model = _random_graph(3, 12)
    samples = [{"x": ramp(0.1, high, 6)} for high in range(1, 6)]
    plans = [PrecisionPlan.of(range(k)) for k in range(0, 12, 3)]
    alone = [
        EmulatorEngine(model, Numerics()).compile(plan).run(feeds)
        for plan in plans
        for feeds in samples
    ]
    shared = EmulatorEngine(model, Numerics(), memory_limit=400)
    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(
                lambda pair: shared.compile(pair[0]).run(pair[1]),
                [(plan, feeds) for plan in plans for feeds in samples],
            )
        )
    assert len(together) == len(alone)
    assert all(_same(left, right) for left, right in zip(together, alone, strict=True))


def test_what_two_threads_need_at_once_is_run_by_one_of_them() -> None:
    """Plans that are run side by side begin alike: the second thread waits instead."""
    engine = EmulatorEngine(_chain(30), Numerics())
    compiler = engine._executor._compiler
    opened = compiler.get

    def slowly(*piece: Any) -> Any:
        time.sleep(0.01)  # the other comes by meanwhile
        return opened(*piece)

    compiler.get = slowly  # type: ignore[method-assign]
    plans = [PrecisionPlan(frozenset({0, 29})), PrecisionPlan(frozenset({0, 28, 29}))]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda plan: engine.compile(plan).run(X), plans))
    alone = EmulatorEngine(_chain(30), Numerics())
    assert _same(found[0], alone.compile(plans[0]).run(X))
    assert _same(found[1], alone.compile(plans[1]).run(X))
    assert engine._executor.node_runs == alone._executor.node_runs


def test_a_thread_whose_run_fails_leaves_nobody_waiting() -> None:
    engine = EmulatorEngine(_chain(3), Numerics())
    compiler = engine._executor._compiler
    opened, fails = compiler.get, [True, False]

    def failing(*piece: Any) -> Any:
        time.sleep(0.05)
        if fails and fails.pop(0):
            raise EngineError("it was to fail")
        return opened(*piece)

    compiler.get = failing  # type: ignore[method-assign]
    plan = PrecisionPlan(frozenset({0}))
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(engine.compile(plan).run, X) for _ in range(2)]
    errors = [run.exception() for run in runs]
    assert sorted(type(e).__name__ for e in errors) == ["EngineError", "NoneType"]


def test_optional_inputs_fall_back_to_their_initializers() -> None:
    proto = parse("g (float[6] x, float[6] w) => (float[6] y) { y = Mul (x, w) }")
    proto.graph.initializer.append(numpy_helper.from_array(ramp(1, 2, 6), "w"))
    engine = EmulatorEngine(load_model(proto), Numerics())
    kept = engine.compile(PrecisionPlan.of([0])).run(X)
    assert np.array_equal(kept["y"], X["x"] * ramp(1, 2, 6))


@pytest.mark.parametrize("given", [{}, {"y": ramp(0, 1, 6)}])
def test_a_missing_input_is_named(given: dict[str, Any]) -> None:
    executable = EmulatorEngine(_chain(2), Numerics()).compile(PrecisionPlan.of([]))
    with pytest.raises(EngineError, match="no array for input 'x'"):
        executable.run(given)
    with pytest.raises(EngineError, match="no array for input 'x'"):
        list(executable.trace(given))


def test_what_is_remembered_of_many_samples_and_plans_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("topsideas.engines.emulator.executor._LEAST", 40)
    model = _random_graph(3, 12)
    engine = EmulatorEngine(model, Numerics(), memory_limit=400)
    for high in range(1, 20):
        for kept in ([], [3], [3, 7]):
            feeds, plan = {"x": ramp(0.1, high, 6)}, PrecisionPlan.of(kept)
            expected = EmulatorEngine(model, Numerics()).compile(plan).run(feeds)
            assert _same(engine.compile(plan).run(feeds), expected)
    executor = engine._executor
    assert len(executor._memo) <= len(executor._older) == 41


def test_what_is_forgotten_runs_again_and_gives_the_same() -> None:
    engine = EmulatorEngine(_chain(20), Numerics())
    executable = engine.compile(PrecisionPlan.of([3]))
    first = executable.run(X)
    engine.forget()
    assert _runs(engine, PrecisionPlan.of([3]), X) == 20
    assert _same(executable.run(X), first)


def test_a_plan_that_runs_once_builds_nothing_for_others_and_gives_the_same() -> None:
    engine = EmulatorEngine(_random_graph(5, 14), Numerics())
    executable = engine.compile(PrecisionPlan.of([2, 3]))
    once = executable.once().run(X)
    assert engine._built is None
    assert engine.work == 1.0
    assert _same(once, executable.run(X))
