"""What auto mode found, with all its evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from topsideas.calibration.curve import Curve
from topsideas.calibration.pricing import PlanCost
from topsideas.calibration.proposal import Proposal
from topsideas.plan import PrecisionPlan
from topsideas.search.oracle import Question
from topsideas.verdict import Verdict


@dataclass(frozen=True)
class SearchResult:
    """What auto mode found.

    Attributes:
        plan: The ops to keep in fp32.
        before: The verdict on the model with every candidate low, but for those that must stay.
        after: The verdict on the plan, over all samples.
        one_minimal: Whether every kept op was shown to be needed or, by cost, to save some.
        stopped: Why the search ended early: ``""``, ``budget: …`` or ``interrupted``.
        witnesses: For each kept op, the verdict on the plan without it.
        overflowing: Ops whose fp32 values do not fit the low format.
        felt: The felt error of each op that was ranked.
        ledger: Every question asked.
        evaluations: How many plans were judged in this run.
        seconds: Wall time.
        holdout: The verdict on samples kept out of the search; None if there are none.
        refuted: Answers that a second execution did not confirm, so that others were sought.
        confirmed: Whether a second execution confirmed this one; a search that was stopped did
            not come to that.
        price: Tells what the plan costs; see :attr:`cost`.
        curve: Plans around the answer with their margins; None if they were not asked for.
        proposal: How the plans that were judged had been found on another engine; None if the
            engine itself was searched.
        noise: What must be known of an engine that is not deterministic; empty if it is.
    """

    plan: PrecisionPlan
    before: Verdict
    after: Verdict
    one_minimal: bool
    price: Callable[[], PlanCost] = field(repr=False, compare=False)
    stopped: str = ""
    witnesses: dict[int, Verdict] = field(default_factory=dict)
    overflowing: frozenset[int] = frozenset()
    felt: dict[int, float] = field(default_factory=dict)
    ledger: Sequence[Question] = ()
    evaluations: int = 0
    seconds: float = 0.0
    holdout: Verdict | None = None
    refuted: int = 0
    confirmed: bool = False
    curve: Curve | None = None
    proposal: Proposal | None = None
    noise: str = ""

    @cached_property
    def cost(self) -> PlanCost:
        """What the plan costs, estimated or measured when first asked for."""
        return self.price()

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the search, or the curve after it."""
        return "interrupted" in (self.stopped, self.curve.stopped if self.curve else "")
