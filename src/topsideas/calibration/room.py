"""How much room the emulator must leave below the bound, so that its plans hold on an engine."""

from __future__ import annotations

import math

from topsideas.verdict import Verdict

# A plan that fails is followed by one with this much more room at least, and more each time.
_TIGHTER = (1.15, 1.3, 1.6)
# The last two builds have so much more each. If the last one fails, all ops stay; where the one
# before it passes, the last one tries something smaller.
_GENEROUS = 1.25
GROSS = 4.0
"""Beyond this the engine computes something else, not the same with other roundings: by how much
is no measure of the room that is needed."""


def first_room(apart: float | None, selected: float) -> float:
    """The room of the first plan.

    That the emulator errs by more than the engine with all ops low promises nothing of the plans
    in between: measured, a first plan that may miss the bound by that costs a build.

    Args:
        apart: The engine's margin with all low over the emulator's; None if it tells nothing.
        selected: Room for the emulator's luck.
    """
    return selected * min(max(apart or 1.0, 1.0), GROSS)


def wider_room(
    room: float,
    needed: float | None,
    selected: float,
    failures: int,
    left: int,
    *,
    new: bool,
) -> float | None:
    """The room after a plan has failed; None where its margins tell nothing to go by.

    Args:
        room: What the plan had.
        needed: The engine's margin over the emulator's; None if it tells nothing.
        selected: Room for the emulator's luck.
        failures: How many plans failed before.
        left: How many builds are left.
        new: Whether a habit or ops were found that explain some of it.
    """
    if not new and (needed is None or needed > GROSS):
        return None
    if needed is not None and needed <= GROSS:
        more = 1.0 if new else _TIGHTER[min(failures, 2)]
        room = max(room * more, needed * selected)
    return room * _GENEROUS if left <= 2 else room


def contradicted(real: Verdict | None, emulated: Verdict) -> bool:
    """Whether an engine goes grossly wrong where the emulator says that all is well.

    A habit that rounds next to nothing is never far off, in multiples of a gross error.
    """
    if real is None or real.passed or emulated.margin is None or math.isinf(emulated.margin):
        return False
    return real.margin is None or real.margin > GROSS * max(emulated.margin, 1e-6)
