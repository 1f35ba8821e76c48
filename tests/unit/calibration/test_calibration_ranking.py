from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from arithmetic import Engine, additive

from topsideas.calibration.journal import Journal, MemoryStore
from topsideas.calibration.ranking import felt_errors, overflowing, ranked
from topsideas.calibration.settings import Settings, Validator
from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.errors import UsageError
from topsideas.graph.loading import load_model
from topsideas.precision import BF16, FP16, Numerics
from topsideas.stats.criteria import Cosine, Tolerance
from topsideas.testing.planted import parse, ramp


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


def test_few_ops_are_measured_one_by_one() -> None:
    asked: list[frozenset[int]] = []
    steps: list[tuple[int, int]] = []

    def measure(low: frozenset[int]) -> float:
        asked.append(low)
        return float(sum(low))

    felt = felt_errors([3, 1, 2], measure, lambda done, total: steps.append((done, total)))
    assert felt == {3: 3.0, 1: 1.0, 2: 2.0}
    assert asked == [frozenset({3}), frozenset({1}), frozenset({2})]
    assert steps == [(1, 3), (2, 3), (3, 3)]


def test_of_many_ops_quiet_blocks_are_measured_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topsideas.calibration.ranking._MAX_SINGLES", 10)
    errors = dict.fromkeys(range(64), 1e-6) | {17: 3.0, 40: 2.0}
    asked: list[frozenset[int]] = []

    def measure(low: frozenset[int]) -> float:
        asked.append(low)
        return sum(errors[i] for i in low)

    felt = felt_errors(range(64), measure, lambda done, total: None)
    assert set(felt) == set(range(64))
    assert ranked(felt)[:2] == [17, 40]
    assert felt[17] == 3.0
    assert len(asked) == 4 + 2 * 2 * 4


def test_ranking_is_by_size_then_by_place() -> None:
    assert ranked({5: 1.0, 2: 3.0, 9: 1.0, 1: 0.0}) == [2, 5, 9, 1]


def _journal(store: MemoryStore, settings: Settings, model: str = "m") -> Journal:
    return Journal(store, {"model": model}, settings.judging())


def test_verdicts_are_kept_by_problem_and_rule_and_traces_by_problem() -> None:
    store = MemoryStore()
    one = Settings(criterion=Tolerance(0.1, 0.1))
    _journal(store, one).record("verdict", [1], {"v": 1})
    _journal(store, one).record("overflow", [0], [4])
    same = _journal(store, Settings(criterion=Tolerance(0.1, 0.1)))
    assert same.recall("verdict", [1]) == {"v": 1}
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
