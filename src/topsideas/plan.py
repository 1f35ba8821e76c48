"""The answer's type: which ops compute in fp32."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrecisionPlan:
    """The set of op ids kept in fp32; every other candidate op runs low.

    Attributes:
        kept: The ids. Ids of pinned ops may be among them and change nothing.
    """

    kept: frozenset[int]

    @classmethod
    def of(cls, ids: Iterable[int]) -> PrecisionPlan:
        """A plan that keeps ``ids``."""
        return cls(frozenset(ids))

    def low(self, candidates: Collection[int]) -> frozenset[int]:
        """The ids that run low."""
        return frozenset(candidates) - self.kept

    @property
    def ids(self) -> list[int]:
        """The kept ids in ascending order."""
        return sorted(self.kept)

    @property
    def digest(self) -> str:
        """A name for the plan that fits into a file name."""
        return hashlib.sha256(",".join(map(str, self.ids)).encode()).hexdigest()[:16]
