"""The low precisions and the numeric behaviour of a target: the vocabulary of rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Precision:
    """A floating-point format that low ops store their values in.

    Attributes:
        name: The name on the command line.
        onnx_type: The ``onnx.TensorProto`` element type.
        max: The largest finite magnitude.
        smallest_normal: The smallest normal magnitude.
        digits: Binary digits of the significand, the hidden one included: whole numbers up to
            ``2**digits`` are all held.
    """

    name: str
    onnx_type: int
    max: float
    smallest_normal: float
    digits: int

    @property
    def smallest(self) -> float:
        """The smallest subnormal magnitude."""
        return self.smallest_normal * 2.0 ** (1 - self.digits)

    def __reduce__(self) -> tuple[Callable[[str], Precision], tuple[str]]:
        """Copies and what other processes send are the formats below, never look-alikes."""
        return _by_name, (self.name,)


def _by_name(name: str) -> Precision:
    return PRECISIONS[name]


FP16 = Precision("fp16", 10, 65504.0, 2.0**-14, 11)
BF16 = Precision("bf16", 16, 3.3895313892515355e38, 2.0**-126, 8)
PRECISIONS = {p.name: p for p in (FP16, BF16)}


class Overflow(str, Enum):
    """What a value beyond ``Precision.max`` becomes when it is stored in the low format."""

    INF = "inf"
    SATURATE = "saturate"


class Subnormals(str, Enum):
    """Whether values below ``Precision.smallest_normal`` survive being stored."""

    KEEP = "keep"
    FLUSH = "flush"


class Accumulation(str, Enum):
    """How ops hold their sums.

    ``LOW``: averaging reductions round theirs before they divide it. ``TERMWISE``: ``Conv``,
    ``Gemm`` and ``MatMul`` round theirs after each term.
    """

    FP32 = "fp32"
    LOW = "low"
    TERMWISE = "termwise"


@dataclass(frozen=True, slots=True)
class Numerics:
    """How low ops round: the definition the emulator implements.

    Attributes:
        precision: The low format.
        overflow: Infinity (IEEE) or saturation at ``precision.max``.
        subnormals: Kept, or flushed to zero.
        accumulation: ``LOW`` also rounds the sum inside averaging reductions, so that a mean
            can overflow although its inputs and its output fit; ``TERMWISE`` rounds the
            sum of a product after each term.
    """

    precision: Precision = FP16
    overflow: Overflow = Overflow.INF
    subnormals: Subnormals = Subnormals.KEEP
    accumulation: Accumulation = Accumulation.FP32

    def to_json(self) -> dict[str, str]:
        """The fields as plain strings, for reports and cache keys."""
        return {
            "precision": self.precision.name,
            "overflow": self.overflow.value,
            "subnormals": self.subnormals.value,
            "accumulation": self.accumulation.value,
        }
