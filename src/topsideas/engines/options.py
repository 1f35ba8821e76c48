"""What a user may ask of an engine, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from topsideas.precision import Numerics


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
    """

    numerics: Numerics = field(default_factory=Numerics)
    compile_options: Mapping[str, Any] = field(default_factory=dict)
    resource_mode: str | None = None
    device: int = 0
    cluster: Sequence[int] = (-1,)
    threads: int | None = None

    def merged(self) -> dict[str, Any]:
        """``compile_options`` with ``resource_mode`` applied."""
        mode = {} if self.resource_mode is None else {"resource_mode": self.resource_mode}
        return {**self.compile_options, **mode}
