"""One-node sessions: each node in each precision it is asked for, opened once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from topsideas.engines.emulator import runtime
from topsideas.engines.emulator.steps import Step
from topsideas.graph.schemas import Slots
from topsideas.graph.single import Cutter
from topsideas.precision import Numerics

# Loop and Scan bodies get a session per plan, so only the latest are kept open.
_MAX_BODY_SESSIONS = 64


@dataclass(frozen=True)
class NodeRunner:
    """An open session for one step in one precision."""

    session: ort.InferenceSession
    what: str
    feed_names: tuple[str, ...]
    weights: dict[str, np.ndarray]

    def run(self, arrays: Collection[object]) -> list[np.ndarray]:
        """Run on the values of ``step.reads``; returns those of ``step.writes`` [, then raw]."""
        return runtime.run(
            self.session, dict(zip(self.feed_names, arrays, strict=True)), self.what
        )


class Sessions:
    """Opens and remembers the sessions of one model under one numerics."""

    def __init__(self, model: ir.Model, slots: Mapping[int, Slots], numerics: Numerics) -> None:
        self._cutter = Cutter(model, slots, numerics)
        self._nodes: dict[object, NodeRunner] = {}
        self._bodies: OrderedDict[object, NodeRunner] = OrderedDict()
        self._shared: dict[object, ort.InferenceSession] = {}

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
        cache = self._bodies if step.blocks else self._nodes
        if key not in cache:
            cache[key] = self._open(step, low, stored, raw)
            if len(self._bodies) > _MAX_BODY_SESSIONS:
                self._bodies.popitem(last=False)
        if step.blocks:
            self._bodies.move_to_end(key)
        return cache[key]

    def _open(
        self, step: Step, low: frozenset[int], stored: frozenset[ir.Value], raw: bool
    ) -> NodeRunner:
        single = self._cutter.cut(step.node, low, stored=stored, raw=raw)
        # Weights are compared by identity: the runners that hold them keep the ids unique.
        key = (single.proto, tuple((n, id(w)) for n, w in single.weights.items()))
        opened = None if step.blocks else self._shared.get(key)
        if opened is None:
            opened = runtime.session(single.proto, 1, single.weights)
            if not step.blocks:
                self._shared[key] = opened
        names = tuple(f"i{i}" for i in range(len(single.reads)))
        what = f"op {step.id} ({step.node.op_type} {step.node.name or ''})".replace(" )", ")")
        return NodeRunner(opened, what, names, single.weights)
