"""What plans that were built tell about one that went grossly wrong."""

from __future__ import annotations

import math

from topsideas.calibration.proposal import Round, missed_most
from topsideas.verdict import Verdict


def _round(kept: set[int], real: float, emulated: float = 1.0) -> Round:
    verdicts = [Verdict(margin <= 1, margin) for margin in (emulated, real)]
    return Round("emulated", 1.0, frozenset(kept), *verdicts)


def test_what_is_missed_is_what_a_plan_keeps_that_did_not_go_wrong() -> None:
    assert missed_most([_round({9, 58}, 2.9)], frozenset({0, 7, 9})) == {58}


def test_the_plan_that_differs_least_tells_most() -> None:
    rounds = [_round({1, 2, 3, 4}, 2.0), _round({2, 4}, 3.0), _round({5, 6, 7}, 0.9)]
    assert missed_most(rounds, frozenset({2})) == {4}


def test_plans_that_went_wrong_too_tell_nothing() -> None:
    assert missed_most([_round({1}, 80.0), _round({2}, math.inf)], frozenset()) == frozenset()
    assert missed_most([], frozenset({1})) == frozenset()
