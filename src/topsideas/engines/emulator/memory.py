"""How one limit of memory is shared between open sessions and remembered tensors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from topsideas.graph.constants import constant

_UNKNOWN_RAM = 2 << 30
# What else a run takes: code, the session that is being opened, tensors inside a running one.
_OWN = 1 / 8
# Sessions leave this part to tensors.
_TENSORS = 1 / 3
# These are asked for beyond what weights there are.
_FOR_PLANS, _SOME = 1 << 29, 1 << 20


@dataclass(frozen=True, slots=True)
class Shares:
    """Bytes.

    Attributes:
        sessions: Of weights in open sessions.
        tensors: Of remembered tensors.
    """

    sessions: int
    tensors: int


def shares(limit: int, graph: ir.Graph) -> Shares:
    """Share a limit; weights that the model holds in memory come first.

    Args:
        limit: Bytes in all.
        graph: The main graph of the model.
    """
    tensors = list(_constants(graph))
    held = sum(t.nbytes for t in tensors if not isinstance(t, ir.ExternalTensor))
    room = max(int(limit * (1 - _OWN)) - held, limit // 8)
    weights = sum(t.nbytes for t in tensors)
    # All ops in both precisions, and again where sessions are made for certain plans.
    asked = 3 * weights + min(4 * weights, _FOR_PLANS) + _SOME
    sessions = min(int(room * (1 - _TENSORS)), asked)
    return Shares(sessions, room - sessions)


def _constants(graph: ir.Graph) -> Iterator[ir.TensorProtocol]:
    """Whatever a session would hold: initializers, and weights that are ``Constant`` nodes."""
    for inner in (graph, *graph.subgraphs()):
        values = (v for v in inner.initializers.values())
        outputs = (o for node in inner if node.op_type == "Constant" for o in node.outputs)
        for value in (*values, *outputs):
            tensor = constant(value)
            if tensor is not None:
                yield tensor


def default_limit() -> int:
    """A third of the machine's memory."""
    if not hasattr(os, "sysconf"):  # Windows does not tell
        return _UNKNOWN_RAM
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 3
