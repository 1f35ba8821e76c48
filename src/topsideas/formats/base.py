"""What every writer is given and gives back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics


@dataclass(frozen=True)
class Order:
    """A plan to be written.

    Attributes:
        model: The user's model.
        plan: The ops to keep in fp32.
        numerics: The low format.
        path: The file to write; files beside it start with its name.
        mixed: The checked mixed-precision ONNX model of the plan, for writers that start from it.
    """

    model: Model
    plan: PrecisionPlan
    numerics: Numerics
    path: Path
    mixed: Path | None = None

    @property
    def fp32_ids(self) -> frozenset[int]:
        """Ids of all ops that must compute in fp32: the kept ones and those that are pinned."""
        low = self.plan.low(self.model.candidates)
        low -= self.model.inexpressible(self.numerics.precision)
        return frozenset(op.id for op in self.model.ops) - low


@dataclass(frozen=True)
class Written:
    """What a writer wrote.

    Attributes:
        files: The files, the one asked for first.
        notes: What the reader must know, and how to use the files.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()
