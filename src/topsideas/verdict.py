"""What judging a plan says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """One plan judged.

    Attributes:
        passed: Whether every sample passes.
        margin: The worst share of the allowance used over the samples judged; above the bound it
            fails, infinite for NaN and the like, None where a validator only says yes or no.
            Judging may stop at the first failing sample, so a failing margin is a lower bound.
        sample: The id of the sample that decided: the first that failed, or the worst.
        output: The output that decided, where one did.
        note: Why there is no margin: an engine crash, a time-out.
    """

    passed: bool
    margin: float | None
    sample: int | None = None
    output: str | None = None
    note: str = ""

    @property
    def margin_or_worst(self) -> float:
        """The margin; infinite where there is none."""
        return math.inf if self.margin is None else self.margin

    def to_json(self) -> dict[str, Any]:
        """Strict JSON; an infinite margin is null with a note."""
        finite = self.margin is not None and math.isfinite(self.margin)
        unbounded = self.margin is not None and not finite
        return {
            "passed": self.passed,
            "margin": self.margin if finite else None,
            "sample": self.sample,
            "output": self.output,
            "note": self.note or ("not finite" if unbounded else ""),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Verdict:
        """The inverse of :meth:`to_json`."""
        unbounded = data["note"] == "not finite"
        return cls(
            passed=bool(data["passed"]),
            margin=math.inf if unbounded else data["margin"],
            sample=data["sample"],
            output=data["output"],
            note="" if unbounded else data["note"],
        )
