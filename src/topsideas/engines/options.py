"""What a user may ask of an engine, whichever it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from topsideas.errors import EngineError
from topsideas.precision import Accumulation, Numerics, Overflow, Subnormals

_UNITS = {unit: 1 << 10 * power for power, unit in enumerate(("", "K", "M", "G", "T"))}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([KMGT]?)(?:I?B)?", re.ASCII | re.IGNORECASE)
_LEAST = 1 << 20


def memory_size(size: int | str) -> int:
    """Bytes from a number of them, or from a text like ``512M`` or ``8G``.

    Raises:
        ValueError: It is neither, or less than a megabyte.
    """
    found = _SIZE.fullmatch(str(size).strip())
    number = float(found[1]) * _UNITS[found[2].upper()] if found else 0.0
    if number < _LEAST:
        raise ValueError(
            f"{size!r}: expected bytes, or a number with K, M, G or T like 512M or 8G, of at "
            "least 1M; leave it out for a third of the memory"
        )
    return int(number)


@dataclass(frozen=True, slots=True)
class Isolation:
    """Limits of an engine in a child process; None for no limit.

    Attributes:
        build_seconds: Longest build.
        run_seconds: Longest run of one sample.
        memory: Most bytes that the child may hold.
        folder: Where its log is written; a temporary folder if None.
        python: The Python that runs it, in which this version of the package is installed too;
            this one if None.
    """

    build_seconds: float | None = None
    run_seconds: float | None = None
    memory: int | None = None
    folder: str | None = None
    python: str | None = None


PATIENT = Isolation(build_seconds=3600.0, run_seconds=600.0)
"""For engines that are always isolated: vendors' compilers take long, but not for ever."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of a run.

    Attributes:
        numerics: The low format and its overflow.
        compile_options: The engine's own options by name.
        resource_mode: Overrides that key of ``compile_options``.
        device: Card id.
        cluster: Cluster ids; ``(-1,)`` means all.
        threads: How many samples may run side by side; None for one per processor.
        memory_limit: Bytes to hold; None for a third of the memory. Changes no result.
        isolation: Run the engine in a child process with these limits; None for this process,
            unless the engine is one that is always isolated.
        min_shapes: Smallest input shapes by name, for engines that compile a range of them.
        max_shapes: Largest input shapes by name.
    """

    numerics: Numerics = field(default_factory=Numerics)
    compile_options: Mapping[str, Any] = field(default_factory=dict)
    resource_mode: str | None = None
    device: int = 0
    cluster: Sequence[int] = (-1,)
    threads: int | None = None
    memory_limit: int | None = None
    isolation: Isolation | None = None
    min_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    max_shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def merged(self) -> dict[str, Any]:
        """``compile_options`` with ``resource_mode`` applied."""
        mode = {} if self.resource_mode is None else {"resource_mode": self.resource_mode}
        return {**self.compile_options, **mode}


def refuse_emulated(options: EngineOptions, who: str, overflow: Overflow) -> None:
    """Refuse numerics that only an emulation can choose.

    Args:
        options: What is asked for.
        who: Whose kernels compute, for messages.
        overflow: What a value that does not fit becomes there.

    Raises:
        EngineError: Overflow, subnormals or accumulation differ from what the kernels do.
    """
    numerics = options.numerics
    if numerics.overflow is not overflow:
        fate = "saturates" if overflow is Overflow.SATURATE else "becomes infinite"
        raise EngineError(
            f"on {who} a value that does not fit {fate}; --overflow {numerics.overflow.value} can "
            f"only be emulated. Remedy: --overflow {overflow.value}"
        )
    if (numerics.subnormals, numerics.accumulation) != (Subnormals.KEEP, Accumulation.FP32):
        raise EngineError(
            f"{who} decides about subnormals and accumulation; only the emulator can be told"
        )
