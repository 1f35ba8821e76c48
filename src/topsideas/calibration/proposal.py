"""What proposing on the emulator and verifying on an engine found on its way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from topsideas.calibration.room import GROSS
from topsideas.engines.base import Identity
from topsideas.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Round:
    """One plan that was proposed, built and judged.

    Attributes:
        why: What it was proposed for: ``emulated``, ``adapted``, ``marked``, ``tighter``,
            ``grown``, ``smaller`` or ``proof``
        bound: The margin that it had to keep on the emulator; None where it was not searched for.
        kept: The plan.
        emulated: The emulator's verdict on it, over all samples.
        verdict: The engine's.
    """

    why: str
    bound: float | None
    kept: frozenset[int]
    emulated: Verdict
    verdict: Verdict

    @property
    def ratio(self) -> float | None:
        """The engine's margin over the emulator's; None where one is not known or not finite."""
        return ratio(self.verdict.margin, self.emulated.margin)


@dataclass(frozen=True, slots=True)
class Proposal:
    """How an answer was found on one engine and verified on another.

    Attributes:
        proposer: The engine that was searched on.
        all_low: The proposer's verdict on the model with every candidate low.
        rounds: The plans that were built, in order, without the two controls.
        marked: Ops that behave differently on the engine, each with how.
        evaluations: How many plans the proposer judged.
        habit: What the proposer did otherwise than by its definition, to be like the engine.
        unlike: How far its outputs still were from the engine's, in multiples of their error.
        minimal: Whether the answer is 1-minimal on the proposer, by the last round's bound.
    """

    proposer: Identity
    all_low: Verdict
    rounds: tuple[Round, ...] = ()
    marked: Mapping[int, str] = field(default_factory=dict)
    evaluations: int = 0
    habit: str = ""
    unlike: float | None = None
    minimal: bool = False

    @property
    def builds(self) -> int:
        """How many plans were built besides all low and all fp32."""
        return len(self.rounds)


def ratio(real: float | None, emulated: float | None) -> float | None:
    """One margin over another, where both are numbers that tell something."""
    if real is None or emulated is None or not 0 < emulated < float("inf"):
        return None
    return real / emulated if real < float("inf") else None


def missed_most(rounds: Sequence[Round], kept: frozenset[int]) -> frozenset[int]:
    """Why a plan went grossly wrong, as far as others tell that did not.

    Args:
        rounds: The plans that were built.
        kept: The plan.

    Returns:
        The fewest ops that it lacks and such a plan keeps: at least one of them is needed.
    """
    fine = [r for r in rounds if r.ratio is not None and r.ratio <= GROSS]
    return min((r.kept - kept for r in fine), key=len, default=frozenset())
