from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from arithmetic import Engine, additive, search

from topsideas.calibration.felt import View
from topsideas.calibration.journal import Journal, MemoryStore
from topsideas.calibration.ranking import Ranking, overflowing, telling
from topsideas.calibration.settings import Settings, Validator
from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.errors import EngineError, UsageError
from topsideas.graph.loading import load_model
from topsideas.precision import BF16, FP16, Numerics
from topsideas.stats.criteria import Cosine, Tolerance
from topsideas.testing.planted import parse, ramp
from topsideas.verdict import Verdict


def _over(text: str, limit: float = FP16.max, **feeds: Any) -> frozenset[int]:
    model = load_model(parse(text))
    engine = EmulatorEngine(model, Numerics())
    return overflowing(engine, model.candidates, [feeds], limit)


def test_what_writes_or_reads_values_beyond_the_format_overflows() -> None:
    text = """g (float[4] x) => (float[4] y) <float c = {100.0}, float k = {200000.0}> {
        a = Relu (x)
        b = Mul (a, c)
        d = Sqrt (b)
        e = Tanh (a)
        f = Div (e, k)
        y = Add (d, f)
    }"""
    assert _over(text, x=ramp(0, 1000, 4)) == {1, 2, 4}
    assert _over(text, x=ramp(0, 1, 4)) == {4}
    assert _over(text, limit=BF16.max, x=ramp(0, 80, 4)) == frozenset()


def test_infinities_of_the_models_own_do_not_overflow() -> None:
    text = "g (float[2] x, float[2] m) => (float[2] y) { y = Add (x, m) }"
    assert _over(text, x=ramp(0, 1, 2), m=np.array([0, -np.inf], np.float32)) == frozenset()


def test_integers_and_doubles_do_not_overflow() -> None:
    text = """g (float[2] x, double[2] d) => (float[2] y, double[2] e) {
        y = Neg (x)
        e = Mul (d, d)
    }"""
    assert _over(text, x=ramp(0, 1, 2), d=np.array([1e9, 1e9])) == frozenset()


def test_ops_in_bodies_overflow_too() -> None:
    text = """g (float[2] x) => (float[2] y) <int64 n = {4}, bool go = {1}, float c = {30.0}> {
        y = Loop (n, go, x) <body = b (int64 i, bool p, float[2] v) => (bool q, float[2] w) {
            q = Identity (p)
            w = Mul (v, c)
        }>
    }"""
    assert _over(text, x=np.array([0.01, 1.0], np.float32)) == {2}
    assert _over(text, x=np.array([0.01, 0.02], np.float32)) == frozenset()


def test_every_sample_is_looked_at() -> None:
    engine = Engine(additive([0, 0, 0]), large={1: 5.0})
    feeds = [{"x": np.array([v], np.float32)} for v in (1.0, 7.0, 2.0)]
    assert overflowing(engine, frozenset({0, 1, 2}), feeds, FP16.max) == {1}
    assert overflowing(engine, frozenset({0, 1, 2}), feeds[:1], FP16.max) == frozenset()


def _ranking(engine: Engine, count: int, factors: tuple[float, ...] = (1.0,)) -> Ranking:
    auto = search(engine, count, values=factors)
    samples = telling(auto.judge.verdicts(frozenset()), lambda sample: 1)
    views = [View(sample, frozenset()) for sample in samples]
    for view in views:
        auto._felt.watch(view)
    engine.runs.clear()
    return Ranking(engine, auto._felt, range(count), views, 2.0, 1.0, len(factors), _unwatched)


def _unwatched(done: int, total: int) -> None:
    assert 0 <= done <= total


def _low(engine: Engine, count: int) -> list[frozenset[int]]:
    return [frozenset(range(count)) - kept for kept, _ in engine.runs]


def test_few_ops_are_measured_one_by_one() -> None:
    engine = Engine(additive([0.1, 0.9, 0.3]))
    ranking = _ranking(engine, 3)
    assert ranking.order() == [1, 2, 0]
    assert _low(engine, 3) == [{0}, {1}, {2}]
    assert ranking.felt.margins == pytest.approx({0: 0.1, 1: 0.9, 2: 0.3})


def test_of_many_ops_groups_are_measured_and_those_that_matter_are_split() -> None:
    errors = [1e-6] * 256
    errors[17], errors[130] = 3.0, 2.0
    engine = Engine(additive(errors))
    ranking = _ranking(engine, 256)
    order = ranking.order()
    assert sorted(order) == list(range(256))
    assert order[:2] == [17, 130]
    assert ranking.felt.margins[17] == 3.0
    assert len(engine.runs) == len(set(engine.runs)) <= 48


def test_in_a_hurry_what_was_not_measured_is_taken_for_average() -> None:
    errors = [1e-3] * 256
    errors[17], errors[130] = 3.0, 2.0
    ranking = _ranking(Engine(additive(errors)), 256)
    known: list[int] = []
    ranking.watch = lambda done, _: known.append(done)
    ranking.hurry = lambda: len(known) >= 5
    order = ranking.order()
    assert sorted(order) == list(range(256))
    # Of groups of 16 five were measured, of which the second is loud.
    assert set(order[:16]) == set(range(16, 32))
    assert known == [1, 2, 3, 4, 5]


def test_an_op_hidden_by_a_louder_neighbour_is_found() -> None:
    """What a loud half leaves of its group is a guess; the neighbour is measured then."""
    errors = [1e-6] * 256
    errors[32], errors[33] = 3.0, 1.0
    ranking = _ranking(Engine(additive(errors)), 256)
    assert ranking.order()[:2] == [32, 33]
    assert ranking.felt.margins[33] == 1.0


def test_ops_are_measured_on_the_two_worst_samples() -> None:
    def error(kept: frozenset[int], x: float) -> float:
        low = {0, 1, 2} - kept
        return x * len(low) + (5 if x == 2 and 1 in low else 0) + (9 if x == 3 and 2 in low else 0)

    engine = Engine(error)
    ranking = _ranking(engine, 3, (1.0, 2.0, 3.0))
    assert ranking.order()[:2] == [2, 1]
    assert {x for _, x in engine.runs} == {2.0, 3.0}


def _failed(sample: int, margin: float | None) -> Verdict:
    return Verdict(passed=False, margin=margin, sample=sample)


def test_the_worst_sample_tells_and_a_small_one_that_is_nearly_as_bad() -> None:
    verdicts = [_failed(3, 4.0), _failed(0, 3.9), _failed(2, 2.0), _failed(1, 1.9)]
    assert telling(verdicts, {0: 100, 1: 1, 2: 10, 3: 100}.__getitem__) == [3, 2]


def test_samples_far_from_the_worst_or_that_pass_tell_nothing() -> None:
    passing = Verdict(passed=True, margin=0.9, sample=1)
    assert telling([_failed(2, 4.0), _failed(0, 1.5), passing], lambda _: 1) == [2]
    assert telling([_failed(2, math.inf), _failed(0, 50.0)], lambda _: 1) == [2]
    assert telling([passing], lambda _: 1) == []


def test_without_margins_all_that_fail_tell() -> None:
    assert telling([_failed(5, None), _failed(4, None)], lambda _: 1) == [5, 4]


def test_a_plan_that_cannot_run_is_felt_most() -> None:
    def error(kept: frozenset[int], x: float) -> float:
        if 2 not in kept:
            raise EngineError("gone")
        return additive([0.1, 0.9, 0.0])(kept, x)

    ranking = _ranking(Engine(error), 3)
    assert ranking.order() == [2, 1, 0]
    assert ranking.felt.margins[2] == np.inf


def test_effects_are_measured_once_for_every_tolerance() -> None:
    store = MemoryStore()
    engine = Engine(additive([0.4, 0.9, 0.3]))
    search(engine, 3, store=store).run()
    engine.runs.clear()
    wide = Settings(criterion=Tolerance(rtol=0.0, atol=0.5))
    found = search(engine, 3, settings=wide, store=store).run()
    assert found.plan.ids == [0, 1]
    singles = {frozenset({0, 1, 2}) - {op} for op in range(3)}
    asked = {question.items for question in found.ledger}
    assert {kept for kept, _ in engine.runs} & singles <= asked


def _journal(store: MemoryStore, settings: Settings, model: str = "m") -> Journal:
    return Journal(store, {"model": model}, settings.judging())


def test_verdicts_are_kept_by_problem_and_rule_and_traces_by_problem() -> None:
    store = MemoryStore()
    one = Settings(criterion=Tolerance(0.1, 0.1))
    verdict = Verdict(True, 0.5, 0).to_json()  # which says nothing of a tolerance of other shape
    _journal(store, one).record("verdict", [1], verdict)
    _journal(store, one).record("overflow", [0], [4])
    same = _journal(store, Settings(criterion=Tolerance(0.1, 0.1)))
    assert same.recall("verdict", [1]) == verdict
    for other in (
        Settings(criterion=Tolerance(0.1, 0.2)),
        Settings(criterion=Tolerance(0.1, 0.1, 0.01)),
        Settings(criterion=Cosine(0.9)),
        Settings(criterion=Tolerance(0.1, 0.1), bound=0.8),
        Settings(validator=Validator(max)),
    ):
        assert _journal(store, other).recall("verdict", [1]) is None
        assert _journal(store, other).recall("overflow", [0]) == [4]
    assert _journal(store, one, "other model").recall("overflow", [0]) is None


def test_a_validator_of_unknown_identity_shares_nothing() -> None:
    store = MemoryStore()
    _journal(store, Settings(validator=Validator(max))).record("verdict", [1], {"v": 1})
    assert _journal(store, Settings(validator=Validator(max))).recall("verdict", [1]) is None
    named = [Settings(validator=Validator(max, identity={"file": "a"})) for _ in range(2)]
    _journal(store, named[0]).record("verdict", [1], {"v": 2})
    assert _journal(store, named[1]).recall("verdict", [1]) == {"v": 2}


@pytest.mark.parametrize("bound", [0.0, -1.0, 1.5, float("nan"), float("inf")])
def test_margins_that_make_no_sense_are_refused(bound: float) -> None:
    with pytest.raises(UsageError, match="margin="):
        Settings(bound=bound)


def test_a_validator_has_no_margin() -> None:
    with pytest.raises(UsageError, match="val_func only says yes or no"):
        Settings(validator=Validator(max), bound=0.5)
    with pytest.raises(UsageError, match="val_scope='set'"):
        Validator(max, "set")
    with pytest.raises(UsageError, match="val_func=3"):
        Validator(3)  # type: ignore[arg-type]
