"""What is asked of a worker, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

VERDICT, OUTPUTS, OVERFLOW = "verdict", "outputs", "overflow"
OWN, SECOND, FUSED = "own", "second_opinion", "fused"


class Job(NamedTuple):
    """One run of one plan on one sample: what is asked of a worker, and the key of its answer.

    Attributes:
        what: ``verdict``, ``outputs``, or ``overflow``: the ops that exceed the low format.
        kept: The plan.
        way: The execution: the engine's own, or the name of another one.
        sample: The sample's id.
        bound: The largest margin that passes; for ``overflow`` the largest magnitude.
        repeats: How often the sample is run for a verdict.
    """

    what: str
    kept: frozenset[int]
    way: str
    sample: int
    bound: float
    repeats: int = 1


Task = tuple[Sequence[Job], bool]


class Answer(NamedTuple):
    """What a job gave: its value, the seconds it took, and whether the plan was new here."""

    value: Any
    seconds: float
    first: bool
