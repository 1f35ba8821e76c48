"""One-node sessions: each node in each precision it is asked for, opened once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from topsideas.engines.emulator import runtime
from topsideas.engines.emulator.steps import Step
from topsideas.graph.schemas import Slots
from topsideas.graph.single import Cutter, SingleNode
from topsideas.precision import Numerics

# A loop gets a session per plan of its body, so only the latest are kept open. One session with
# the precisions as inputs was measured instead: its weights are no longer constants, so they are
# not packed, and a run took three times as long as building anew.
_MAX_LOOP_SESSIONS = 64


@dataclass(frozen=True)
class NodeRunner:
    """An open session for one step.

    Attributes:
        session: The session.
        what: How error messages call the step.
        reads: Names of the inputs for the values of ``step.reads``.
        weights: Kept alive because the session refers to them.
    """

    session: ort.InferenceSession
    what: str
    reads: tuple[str, ...]
    weights: dict[str, np.ndarray]

    def run(self, arrays: Sequence[object]) -> list[np.ndarray]:
        """Run on the values of ``step.reads``; returns those of ``step.writes`` [, then raw]."""
        return runtime.run(self.session, dict(zip(self.reads, arrays, strict=True)), self.what)


class Sessions:
    """Opens and remembers the sessions of one model under one numerics."""

    def __init__(self, model: ir.Model, slots: Mapping[int, Slots], numerics: Numerics) -> None:
        self._cutter = Cutter(model, slots, numerics)
        self._nodes: dict[object, NodeRunner] = {}
        self._loops: OrderedDict[object, NodeRunner] = OrderedDict()
        self._shared: dict[object, NodeRunner] = {}

    def get(
        self,
        step: Step,
        low: frozenset[int],
        stored: frozenset[ir.Value] = frozenset(),
        *,
        raw: bool = False,
    ) -> NodeRunner:
        """The runner of ``step`` when the ops in ``low`` (ids inside the step) run low.

        Args:
            step: The step.
            low: Ids, a subset of ``step.inside``.
            stored: Values it reads that are already representable, so need no rounding.
            raw: Also return what the outputs were before they were rounded.
        """
        key = (step.id, low, stored, raw)
        cache = self._loops if step.blocks else self._nodes
        runner = cache.get(key)
        if runner is None:
            # ONNX Runtime needs the ranks inside a Scan, which it infers from those outside.
            ranks = bool(step.blocks)
            single = self._cutter.cut(step.node, low, stored=stored, raw=raw, ranks=ranks)
            runner = self._open(step, single)
            cache[key] = runner
        if len(self._loops) > _MAX_LOOP_SESSIONS:
            self._loops.popitem(last=False)
        return runner

    def _open(self, step: Step, single: SingleNode) -> NodeRunner:
        # Weights are compared by identity: the shared runners hold them, so ids stay unique.
        key = (single.proto, tuple((n, id(w)) for n, w in single.weights.items()))
        shared = self._shared.get(key)
        name = f" {step.node.name!r}" if step.node.name else ""
        runner = NodeRunner(
            session=shared.session if shared else runtime.session(single.proto, single.weights),
            what=f"op {step.id} ({step.node.op_type}{name})",
            reads=tuple(f"i{i}" for i in range(len(single.reads))),
            weights=single.weights,
        )
        if not step.blocks:
            self._shared.setdefault(key, runner)
        return runner
