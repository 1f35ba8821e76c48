"""How accuracy trades against cost and size: plans around the answer, judged on all samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from topsideas.prices import Items
from topsideas.search.objective import Cost
from topsideas.search.oracle import BudgetSpent, Oracle
from topsideas.search.pareto import Point, in_order, undominated
from topsideas.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Curve:
    """Plans with their margins.

    Attributes:
        points: By size and cost.
        evaluations: How many plans were judged for it, beyond those of the search.
        stopped: Why it ended early: ``""``, ``budget: …`` or ``interrupted``.
    """

    points: tuple[Point, ...]
    evaluations: int
    stopped: str


def margin_curve(
    oracle: Oracle,
    full: Callable[[Items], Verdict],
    cost: Cost,
    known: Sequence[Items],
    wanted: Sequence[Items],
) -> Curve:
    """The plans in ``wanted``, and of all that were judged on every sample those worth a look.

    A plan that passes was judged on every sample; one that fails mostly was not.

    Args:
        oracle: Knows the plans of the search.
        full: Judges a plan on every sample.
        cost: What a plan costs.
        known: Plans that fail and were judged on every sample nevertheless.
        wanted: Plans to judge now.
    """
    before = oracle.evaluations
    oracle.phase = "curve"
    asked: dict[Items, Verdict] = {}
    stopped = ""
    try:
        for at, plan in enumerate(wanted):
            oracle.expected = len(wanted) - at
            asked[plan] = _on_all_samples(oracle, full, plan)
    except BudgetSpent as spent:
        stopped = f"budget: {spent}"
    except KeyboardInterrupt:
        stopped = "interrupted"
    verdicts = {plan: full(plan) for plan in known} | oracle.passing | asked
    points = [Point(plan, cost(plan), verdict) for plan, verdict in verdicts.items()]
    shown = {p.items for p in undominated(points)} | asked.keys()
    chosen = in_order(p for p in points if p.items in shown)
    return Curve(tuple(chosen), oracle.evaluations - before, stopped)


def _on_all_samples(oracle: Oracle, full: Callable[[Items], Verdict], plan: Items) -> Verdict:
    """The verdict on a plan, with its worst margin also where it fails."""
    verdict = oracle.ask(plan)
    worst = verdict if verdict.passed else full(plan)
    # A plan may pass here and fail in another execution, which is what counts.
    return verdict if worst.passed else worst
