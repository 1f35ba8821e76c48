"""Verdicts on plans that compute the same: taken over where they hold, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
from arithmetic import Engine, additive, search

from topsideas.calibration.same import SamePlans
from topsideas.plan import PrecisionPlan
from topsideas.verdict import Verdict

PASSED, FAILED = Verdict(True, 0.5, 0), Verdict(False, 2.0, 0)
IN_ANOTHER = Verdict(False, 2.0, 0, note="in a second execution")
ONE, ALIKE, OTHER = frozenset({1, 2}), frozenset({1}), frozenset({3})


class Halving(Engine):
    """Op 2 makes no difference while op 1 is kept."""

    def canonical(self, plan: PrecisionPlan) -> PrecisionPlan:
        return PrecisionPlan(plan.kept - {2}) if 1 in plan.kept else plan


@pytest.mark.parametrize(
    ("verdict", "strict", "fused", "taken"),
    [
        (PASSED, False, False, True),
        (FAILED, False, False, True),
        (FAILED, True, False, True),  # one failure is enough
        (FAILED, False, True, True),
        (PASSED, True, False, False),  # the second execution may differ
        (PASSED, False, True, False),  # what is fused is not the same
        (IN_ANOTHER, True, False, False),  # that one is about this plan alone
    ],
)
def test_what_is_taken_over(verdict: Verdict, strict: bool, fused: bool, taken: bool) -> None:
    same = SamePlans(Halving(additive([])), fused=fused)
    same.note(ONE, verdict)
    assert same.verdict(ALIKE, strict=strict) == (verdict if taken else None)
    assert same.verdict(OTHER, strict=strict) is None


def test_an_engine_that_does_not_tell_is_asked() -> None:
    same = SamePlans(Engine(additive([])), fused=False)
    same.note(ONE, PASSED)
    assert same.verdict(ONE, strict=False) is None


def test_a_search_asks_once_about_what_computes_the_same() -> None:
    errors = [0.0, 2.0, 0.0, 0.7, 0.4, 0.3, 0.1]

    def error(kept: frozenset[int], x: float) -> float:
        return additive(errors)(kept, x)

    found: dict[str, Any] = {}
    for engine in (Engine(error), Halving(error)):
        result = search(engine, 7).run()
        found[type(engine).__name__] = result
        assert result.evaluations == sum(not q.recalled for q in result.ledger)
    plain, halving = found["Engine"], found["Halving"]
    assert plain.plan == halving.plan
    assert [q.items for q in plain.ledger] == [q.items for q in halving.ledger]
    assert [q.verdict for q in plain.ledger] == [q.verdict for q in halving.ledger]
    asked = [PrecisionPlan(q.items) for q in halving.ledger if not q.recalled]
    canonical = [engine.canonical(plan) for plan in asked]
    assert len(set(canonical)) == len(canonical)
