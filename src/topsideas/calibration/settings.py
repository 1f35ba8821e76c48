"""What a search is asked for: the one place where its defaults live."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from topsideas.errors import UsageError
from topsideas.search.objective import Objective
from topsideas.search.oracle import Budget
from topsideas.stats.criteria import Cosine, Criterion, Tolerance

SAMPLE_BYTES = 1 << 30
"""Samples that are held, and as much of golden outputs that were computed."""

_SHARE_OF_LIMIT = 8

VALIDATOR_SECONDS = 600.0
"""The longest that the user's rule may take by default: it then hangs, most likely."""


@dataclass(frozen=True, slots=True)
class Validator:
    """The user's own rule.

    Attributes:
        function: ``function(reference, outputs) -> bool``; with scope ``sample`` both are lists of
            arrays in the model's output order, with scope ``dataset`` lists of such lists.
        scope: ``sample`` or ``dataset``.
        identity: What the function is, for cache keys. By default nothing is known of it, so
            that its verdicts are recalled by nobody else.
        seconds: The longest that one call may take; None for ever.
    """

    function: Callable[[Any, Any], bool]
    scope: str = "sample"
    identity: Mapping[str, str] = field(default_factory=lambda: {"unique": uuid4().hex})
    seconds: float | None = VALIDATOR_SECONDS

    def __post_init__(self) -> None:
        if self.scope not in ("sample", "dataset"):
            raise UsageError(f"val_scope={self.scope!r}: expected 'sample' or 'dataset'")
        if not callable(self.function):
            raise UsageError(f"val_func={self.function!r}: expected a function of two arguments")

    @property
    def name(self) -> str:
        """How messages call the function."""
        return getattr(self.function, "__name__", "val_func")


@dataclass(frozen=True, slots=True)
class Settings:
    """How a plan is judged and how long a search may take.

    Attributes:
        criterion: Element-wise tolerance or cosine similarity.
        validator: Replaces the criterion.
        bound: The worst margin an answer may have; 0.8 leaves a fifth of the allowance.
        must_keep: Ids that are in every plan.
        budget: What the search may use.
        threads: How many samples are judged side by side.
        objective: What the answer should have little of.
        pareto: Also judge a few plans smaller and larger than the answer.
        max_builds: Where plans are proposed by the emulator, how many may be built on the engine
            besides the two controls.
        sample_bytes: How much of the samples is held in memory, and of computed golden outputs.
    """

    criterion: Criterion = field(default_factory=Tolerance)
    validator: Validator | None = None
    bound: float = 1.0
    must_keep: frozenset[int] = frozenset()
    budget: Budget = field(default_factory=Budget)
    threads: int = 1
    objective: Objective = Objective.OPS
    pareto: bool = False
    max_builds: int = 4
    sample_bytes: int = SAMPLE_BYTES

    def __post_init__(self) -> None:
        if not (math.isfinite(self.bound) and 0 < self.bound <= 1):
            raise UsageError(f"margin={self.bound!r}: expected a number above 0 and up to 1")
        if self.validator is not None and self.bound != 1.0:
            raise UsageError("margin needs a tolerance or cos_sim; a val_func only says yes or no")

    def judging(self) -> dict[str, Any]:
        """Everything that can change a verdict, for cache keys."""
        rule = self.criterion
        named = {"cos_sim": rule.threshold} if isinstance(rule, Cosine) else _tolerance(rule)
        own = self.validator and {"scope": self.validator.scope, **self.validator.identity}
        return {**named, "margin": self.bound, "validator": own}


def sample_bytes(memory_limit: int | None) -> int:
    """What is held of samples where a limit is set for weights and tensors: a share of it."""
    if memory_limit is None:
        return SAMPLE_BYTES
    return min(SAMPLE_BYTES, memory_limit // _SHARE_OF_LIMIT)


def _tolerance(rule: Tolerance) -> dict[str, float]:
    return {"rtol": rule.rtol, "atol": rule.atol, "ntol": rule.ntol}
