"""How one limit of memory is shared between open sessions and remembered tensors."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import onnx_ir as ir

from topsideas.engines.emulator.store import return_memory
from topsideas.graph.constants import constant
from topsideas.graph.excerpt import read_values

_UNKNOWN_RAM = 2 << 30
# What else a run takes: the session that is being opened, tensors inside a running one, and gaps
# between remembered ones, as they come in all sizes. Measured: 0.3 times what is remembered.
_OWN = 1 / 4
# Sessions leave this part to tensors.
_TENSORS = 1 / 3
# Weights that take more of the limit are held once, not by all who run the model.
_MUCH = 1 / 16
# These are asked for beyond what weights there are.
_FOR_PLANS, _SOME = 1 << 29, 1 << 20


@dataclass(frozen=True, slots=True)
class Shares:
    """Bytes.

    Attributes:
        sessions: Of weights in open sessions.
        tensors: Of remembered tensors.
        tight: Whether the sessions of all ways to run the model do not fit side by side.
    """

    sessions: int
    tensors: int
    tight: bool


class Closable(Protocol):
    """Holds sessions, and opens those again that it needs after it was closed."""

    def close(self) -> None:
        """Close all sessions."""
        ...


class Room:
    """Memory for weights in which several take turns: whoever enters closes what was there.

    Args:
        tight: Whether that is needed; otherwise all stay.
    """

    def __init__(self, *, tight: bool) -> None:
        self._tight = tight
        self._lock = Lock()
        # Not kept alive by having been here last.
        self._inside: weakref.ref[Closable] | None = None

    def enter(self, who: Closable) -> None:
        """Make room for ``who``."""
        if not self._tight or self._last() is who:
            return
        with self._lock:
            before, self._inside = self._last(), weakref.ref(who)
        if before is not None and before is not who:
            before.close()
            return_memory()

    def _last(self) -> Closable | None:
        return None if self._inside is None else self._inside()


def shares(limit: int, graph: ir.Graph) -> Shares:
    """Share a limit; weights that the model holds in memory come first.

    Args:
        limit: Bytes in all.
        graph: The main graph of the model.
    """
    tensors = list(_constants(graph))
    inside = sum(t.nbytes for t in tensors if not isinstance(t, ir.ExternalTensor))
    room = max(int(limit * (1 - _OWN)) - inside, limit // 8)
    weights = sum(t.nbytes for t in tensors)
    # All ops in both precisions, and again where sessions are made for certain plans. What many
    # ops read, as those of an unrolled loop do, each of their sessions holds.
    held = max(weights, _read(graph))
    asked = 3 * held + min(4 * held, _FOR_PLANS) + _SOME
    sessions = min(int(room * (1 - _TENSORS)), asked)
    return Shares(sessions, room - sessions, tight=weights > limit * _MUCH)


def _constants(graph: ir.Graph) -> Iterator[ir.TensorProtocol]:
    """Whatever a session would hold: initializers, and weights that are ``Constant`` nodes."""
    for inner in (graph, *graph.subgraphs()):
        values = (v for v in inner.initializers.values())
        outputs = (o for node in inner if node.op_type == "Constant" for o in node.outputs)
        for value in (*values, *outputs):
            tensor = constant(value)
            if tensor is not None:
                yield tensor


def _read(graph: ir.Graph) -> int:
    """Bytes of the weights that each node reads, added up."""
    constants = (constant(value) for node in graph for value in read_values(node))
    return sum(tensor.nbytes for tensor in constants if tensor is not None)


def default_limit() -> int:
    """A third of the machine's memory."""
    if not hasattr(os, "sysconf"):  # Windows does not tell
        return _UNKNOWN_RAM
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 3
