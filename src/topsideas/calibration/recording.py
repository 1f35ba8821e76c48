"""A traced run written down, and read back as if it ran again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from topsideas.engines.base import OpRecord, Trace

# A run with more tensors than this is cheaper to repeat than to keep.
_MAX_BYTES = 512 << 20


class Recorder:
    """Passes a trace on and, if it is small enough, hands its tensors over when it has ended.

    Args:
        trace: The run.
        keep: Called once with arrays by ``index/op/output``, and ``=name`` for model outputs.
    """

    def __init__(self, trace: Trace, keep: Callable[[dict[str, np.ndarray]], None]) -> None:
        self._trace = trace
        self._keep = keep
        self.outputs: dict[str, Any] = {}

    def __iter__(self) -> Iterator[OpRecord]:
        """The records of the run."""
        kept: dict[str, np.ndarray] | None = {}
        size = 0
        for index, record in enumerate(self._trace):
            if kept is not None:
                added = {f"{index}/{record.id}/{i}": o for i, o in enumerate(record.outputs)}
                # Sequences have no size of their own and cannot be kept.
                size += sum(getattr(o, "nbytes", _MAX_BYTES + 1) for o in added.values())
                kept.update(added)
                kept = kept if size <= _MAX_BYTES else None
            yield record
        self.outputs = self._trace.outputs
        if kept is not None and all(isinstance(o, np.ndarray) for o in self.outputs.values()):
            self._keep(kept | {f"={name}": o for name, o in self.outputs.items()})


class RecordedTrace:
    """A run read back. Only what ops wrote was kept.

    Args:
        arrays: What :class:`Recorder` handed over.
    """

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays = arrays
        self.outputs: dict[str, Any] = {n[1:]: a for n, a in arrays.items() if n[:1] == "="}

    def __iter__(self) -> Iterator[OpRecord]:
        """The records in the order of the run."""
        runs: dict[tuple[int, int], dict[int, np.ndarray]] = {}
        for name, array in self._arrays.items():
            if name[:1] != "=":
                index, op, output = map(int, name.split("/"))
                runs.setdefault((index, op), {})[output] = array
        for (_, op), outputs in sorted(runs.items()):
            yield OpRecord(op, outputs=tuple(outputs[i] for i in sorted(outputs)))
