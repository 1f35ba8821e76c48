"""Segments as sessions: opened when first needed, kept open as far as their weights fit."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import onnxruntime as ort

from topsideas.engines.emulator import runtime
from topsideas.engines.emulator.forms import Form
from topsideas.engines.emulator.memory import Room
from topsideas.engines.emulator.segments import Segment
from topsideas.engines.emulator.store import Tensor
from topsideas.errors import EngineError

_TRUE, _FALSE = np.array(True), np.array(False)

# After so many runs of a segment with the same ops low, a session without switches for them pays:
# it runs in about half the time where ops are small, and opening it takes as long as 10 runs.
_OFTEN = 10
# A segment has so many of them at most.
_FIXED = 8

_Key = tuple[int, frozenset[int], frozenset[int]]


@dataclass(frozen=True)
class Compiled:
    """A segment that can run.

    Attributes:
        form: What it is compiled for.
        session: Its session.
        weights: Kept alive if the session refers to them.
    """

    form: Form
    session: ort.InferenceSession
    weights: Mapping[str, np.ndarray]

    def run(self, low: frozenset[int], tensors: Sequence[Tensor]) -> list[np.ndarray]:
        """Run on the values of ``segment.reads``; returns those of ``segment.writes``."""
        form = self.form
        feeds = dict(zip(form.reads, tensors, strict=True))
        for name, op in form.switches:
            feeds[name] = _TRUE if op in low else _FALSE
        for name, ops in form.seconds:
            feeds[name] = _FALSE if ops <= low else _TRUE
        return runtime.run(self.session, feeds, form.what)


class Compiler:
    """Opens sessions of segments.

    Args:
        opsets: The opsets of the model.
        ir_version: The IR version of the model.
        limit: Bytes of weights in open sessions. A session beyond it is closed when the next one
            is opened: one that comes round again only after all others gains nothing from taking
            their place.
        fused: Let the runtime fuse what is inside a segment.
        room: The memory it shares with others; its own if None.
    """

    def __init__(
        self,
        opsets: Mapping[str, int],
        ir_version: int,
        limit: float = math.inf,
        *,
        fused: bool = False,
        room: Room | None = None,
    ) -> None:
        self._opsets = dict(opsets)
        self._ir_version = max(ir_version, 4)
        self._limit = limit
        self._fused = fused
        self._room = room or Room(tight=False)
        self._held = 0
        self._open: dict[_Key, Compiled] = {}
        self._spare: Compiled | None = None
        self._uses: Counter[tuple[int, frozenset[int]]] = Counter()
        self._fixed: Counter[int] = Counter()
        self._opening: defaultdict[int, Lock] = defaultdict(Lock)
        self._lock = Lock()

    def get(self, segment: Segment, low: frozenset[int]) -> Compiled:
        """The segment, ready to run with these ops low. Raises EngineError."""
        self._room.enter(self)
        if segment.fixable > segment.heavy:
            fixed = self._fixed_form(segment, low)
            if fixed is not None:
                return fixed
        return self._find_or_open(Form(segment, segment.heavy, low & segment.heavy))

    def close(self) -> None:
        """Close all sessions; they are opened again when they are needed."""
        with self._lock:
            self._open.clear()
            self._fixed.clear()
            self._spare, self._held = None, 0

    def _fixed_form(self, segment: Segment, low: frozenset[int]) -> Compiled | None:
        """A session without switches, if the segment has run often enough with the same ops."""
        form = Form(segment, segment.fixable, low & segment.fixable)
        found = self._open.get(form.key)
        if found is not None:
            return found
        uses = segment.index, form.low
        self._uses[uses] += 1
        often = self._uses[uses] > _OFTEN and self._fixed[segment.index] < _FIXED
        if not often or self._held + form.weight_bytes > self._limit:
            return None
        self._fixed[segment.index] += 1
        return self._find_or_open(form)

    def _find_or_open(self, form: Form) -> Compiled:
        found = self._open.get(form.key)
        if found is not None:
            return found
        with self._opening[form.segment.index]:
            return self._find(form.key) or self._opened(form)

    def _find(self, key: _Key) -> Compiled | None:
        with self._lock:
            if self._spare is not None and self._spare.form.key == key:
                return self._spare
            return self._open.get(key)

    def _opened(self, form: Form) -> Compiled:
        keep = self._make_room(form)
        try:
            compiled = self._compiled(form, ranks=False)
        except EngineError:
            # Some ops in branches need ranks, which the runtime infers from those outside. They
            # are not declared without need: models declare wrong ones.
            compiled = self._compiled(form, ranks=True)
        with self._lock:
            if keep:
                self._open[form.key] = compiled
            else:
                self._spare = compiled
        return compiled

    def _compiled(self, form: Form, *, ranks: bool) -> Compiled:
        proto, weights = form.to_proto(self._opsets, self._ir_version, ranks=ranks)
        text = proto.SerializeToString()
        session = runtime.session(text, weights, fused=self._fused)
        return Compiled(form, session, {} if runtime.copies_weights() else weights)

    def _make_room(self, form: Form) -> bool:
        """Whether a session may stay open; others of its segment make room for it."""
        with self._lock:
            self._spare = None
            for key in [k for k in self._open if k[0] == form.segment.index]:
                if self._held + form.weight_bytes > self._limit:
                    self._held -= self._open.pop(key).form.weight_bytes
            keep = self._held + form.weight_bytes <= self._limit
            self._held += form.weight_bytes if keep else 0
        return keep
