"""Verdicts by another tolerance: never another one than judging again would give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from arithmetic import Engine, additive, search
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from topsideas.calibration.journal import Journal, MemoryStore
from topsideas.calibration.settings import Settings
from topsideas.calibration.translation import translated
from topsideas.stats.criteria import Cosine, Tolerance, margin
from topsideas.verdict import Verdict

quick = hypothesis_settings(deadline=None, max_examples=200)
_SIZES = st.sampled_from([0.0, 1e-3, 1e-2, 5e-324, 2.0**-1022, 2.0**-126, 1e-37])
TOLERANCES = st.tuples(*[st.floats(0, 1) | _SIZES] * 2)
BOUNDS = st.sampled_from([1.0, 0.8])


def _rule(tolerance: tuple[float, float], bound: float = 1.0, ntol: float = 0.0) -> dict[str, Any]:
    return Settings(criterion=Tolerance(*tolerance, ntol), bound=bound).judging()


def _judged(seed: int, tolerance: tuple[float, float], bound: float, ntol: float) -> Verdict:
    rng = np.random.default_rng(seed)
    reference = rng.normal(0, 1, 40) * (rng.random(40) > 0.2)
    out = reference + rng.normal(0, 10.0 ** rng.uniform(-5, 0), 40) * (rng.random(40) > 0.5)
    found = margin(out, reference, Tolerance(*tolerance, ntol))
    return Verdict(passed=found <= bound, margin=found, sample=3)


@quick
@example(0, (1.0, 5e-324), (1.0, 0.0625), 1.0, 0.0, "full")  # whose quotient is infinite
@given(
    st.integers(0, 1 << 20),
    TOLERANCES,
    TOLERANCES | st.floats(0.05, 20),
    BOUNDS,
    st.sampled_from([0.0, 0.1]),
    st.sampled_from(["verdict", "confirm", "full"]),
)
def test_what_is_said_is_what_judging_again_says(
    seed: int,
    old: tuple[float, float],
    new: tuple[float, float] | float,
    bound: float,
    ntol: float,
    kind: str,
) -> None:
    if isinstance(new, float):
        new = (old[0] * new, old[1] * new)
    before, now = (_judged(seed, t, bound, ntol) for t in (old, new))
    value: Any = [before.to_json()] if kind == "full" else before.to_json()
    rules = (_rule(t, bound, ntol) for t in (old, new))
    found = translated(kind, value, *rules)
    if found is None:
        return
    verdict = Verdict.from_json(found[0] if kind == "full" else found)
    assert verdict.passed == now.passed
    assert verdict.margin is not None
    assert now.margin is not None
    if verdict.passed or kind == "full":
        assert verdict.margin == pytest.approx(now.margin, rel=1e-9)
    else:  # at least
        assert verdict.margin <= now.margin * (1 + 1e-9)


PASSED, FAILED = Verdict(True, 0.6, 1).to_json(), Verdict(False, 3.0, 1).to_json()
ONE = _rule((1e-2, 1e-2))


@pytest.mark.parametrize(
    ("kind", "value", "new", "passed"),
    [
        ("verdict", PASSED, (2e-2, 2e-2), True),
        ("verdict", PASSED, (7e-3, 7e-3), True),
        ("verdict", PASSED, (5e-3, 5e-3), False),
        ("verdict", PASSED, (6e-3, 6e-3), None),  # at the bound division rounds
        ("verdict", PASSED, (2e-2, 1e-2), None),  # its margin would not be known
        ("verdict", FAILED, (2e-2, 2e-2), False),
        ("verdict", FAILED, (2e-2, 1e-2), False),
        ("verdict", FAILED, (4e-2, 4e-2), None),  # other samples were not judged
        ("verdict", FAILED, (0.0, 1e-2), None),
        ("strict", PASSED, (2e-2, 2e-2), True),
        ("strict", PASSED, (7e-3, 7e-3), None),  # the other execution's margin is not known
        ("strict", PASSED, (5e-3, 5e-3), False),
        ("confirm", PASSED, (7e-3, 7e-3), True),
        ("full", [FAILED, PASSED], (5e-3, 5e-3), False),
        ("full", [FAILED, PASSED], (2e-2, 1e-2), None),
    ],
)
def test_where_nothing_follows_nothing_is_said(
    kind: str, value: Any, new: tuple[float, float], passed: bool | None
) -> None:
    found = translated(kind, value, ONE, _rule(new))
    verdicts = [] if found is None else found if kind == "full" else [found]
    assert {v["passed"] for v in verdicts} == (set() if passed is None else {passed})


def test_other_rules_say_nothing() -> None:
    others: list[dict[str, Any]] = [
        _rule((2e-2, 2e-2), bound=0.8),
        _rule((2e-2, 2e-2), ntol=0.1),
        Settings(criterion=Cosine(0.99)).judging(),
        {**_rule((2e-2, 2e-2)), "validator": {"file": "rule.py"}},
    ]
    assert [translated("verdict", FAILED, ONE, other) for other in others] == [None] * 4
    assert [translated("verdict", FAILED, other, ONE) for other in others] == [None] * 4


def test_infinite_margins_stay_and_those_that_are_missing_say_nothing() -> None:
    infinite = Verdict(False, math.inf, 2, note="crashed").to_json()
    found = translated("verdict", infinite, ONE, _rule((1.0, 1.0)))
    assert found is None or not found["passed"]
    yes = Verdict(True, None, 2).to_json()
    assert translated("verdict", yes, ONE, _rule((1.0, 1.0))) is None


def test_below_the_bound_a_pass_holds_only_by_looser_tolerances() -> None:
    """A target that fuses must also pass, and by how much it did is not on record."""
    old, passed = _rule((1e-2, 1e-2), bound=0.8), Verdict(True, 0.4, 1).to_json()
    looser = translated("verdict", passed, old, _rule((2e-2, 2e-2), bound=0.8))
    assert looser is not None
    assert looser["passed"]
    assert translated("verdict", passed, old, _rule((8e-3, 8e-3), bound=0.8)) is None


def test_a_journal_looks_at_the_rules_that_plans_were_judged_by() -> None:
    store = MemoryStore()
    first, second, third = (Journal(store, {"m": 1}, _rule((t, t))) for t in (1e-2, 2e-2, 9e-2))
    first.record_verdict(frozenset({1}), Verdict(False, 3.0, 5))
    again = Journal(store, {"m": 1}, _rule((2e-2, 2e-2)))
    assert again.verdict(frozenset({1})) == Verdict(False, 1.5, 5)
    assert Journal(store, {"m": 2}, _rule((2e-2, 2e-2))).verdict(frozenset({1})) is None
    second.record_verdict(frozenset({2}), Verdict(True, 0.9, 5))
    assert third.verdict(frozenset({1})) is None
    late = Journal(store, {"m": 1}, _rule((9e-2, 9e-2))).verdict(frozenset({2}))
    assert late is not None
    assert late.passed
    assert late.margin == pytest.approx(0.2)


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.1, 2.0])
def test_a_search_by_another_tolerance_asks_little_and_is_as_right(factor: float) -> None:
    errors = [0.9 if i % 9 == 4 else 0.01 for i in range(60)]
    store = MemoryStore()

    def found(tolerance: float, where: MemoryStore) -> Any:
        chosen = Settings(criterion=Tolerance(0.0, tolerance))
        return search(Engine(additive(errors)), 60, settings=chosen, store=where).run()

    found(1.0, store)
    again, fresh = found(factor, store), found(factor, MemoryStore())
    assert again.after.passed
    assert again.one_minimal
    assert len(again.plan.ids) == len(fresh.plan.ids)
    assert again.evaluations < fresh.evaluations
    assert all(not v.passed and v.margin > 1 for v in again.witnesses.values())
