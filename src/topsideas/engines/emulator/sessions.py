"""Sessions of pieces: each in each precision it is asked for, as many as their weights allow."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from topsideas.engines.base import OpRecord
from topsideas.engines.emulator import runtime
from topsideas.engines.emulator.memory import Room
from topsideas.engines.emulator.pieces import Piece, Pieces
from topsideas.engines.emulator.steps import Step
from topsideas.engines.emulator.store import Tensor
from topsideas.graph.excerpt import Cutter, Excerpt
from topsideas.graph.mapped import is_mapped
from topsideas.graph.schemas import Slots
from topsideas.precision import Numerics

# Bytes that open sessions may refer to. A session holds its weights packed beside them.
MAX_BYTES = 512 << 20
# What a session without weights was measured to take.
_SESSION_BYTES = 64 << 10

_Key = tuple[Piece, frozenset[int], frozenset[ir.Value]]


@dataclass(frozen=True, slots=True)
class Shown:
    """Where the record of one op is found among the tensors of a run.

    Attributes:
        id: The op's id.
        outputs: Positions of its outputs.
        raw: Positions of the same before they were rounded; None where one is not rounded.
        slot_inputs: Positions of what it reads and would round.
    """

    id: int
    outputs: tuple[int, ...]
    raw: tuple[int | None, ...]
    slot_inputs: tuple[int, ...]

    def record(self, tensors: list[Tensor]) -> OpRecord:
        """The record."""
        return OpRecord(
            self.id,
            tuple([tensors[i] for i in self.outputs]),
            tuple([None if i is None else tensors[i] for i in self.raw]),  # type: ignore[misc]
            tuple([tensors[i] for i in self.slot_inputs]),
        )


@dataclass(frozen=True)
class Runner:
    """An open session for one piece.

    Attributes:
        session: The session.
        names: Names of its inputs.
        what: How error messages call the piece.
        weights: Kept alive if the session refers to them.
        constants: What the ops read and would round, as far as it is known before the run.
        mapped: Those of them whose pages can be given back once they were looked at.
        shown: Where the record of each op is, among inputs, results and constants laid end to end.
        kept: Values that are needed after the piece, and where they are.
        rounded: The values that are rounded.
    """

    session: ort.InferenceSession
    names: tuple[str, ...]
    what: str
    weights: dict[str, np.ndarray]
    constants: tuple[np.ndarray, ...]
    mapped: tuple[np.ndarray, ...]
    shown: tuple[Shown, ...]
    kept: tuple[tuple[ir.Value, int], ...]
    rounded: tuple[ir.Value, ...]

    def run(self, inputs: list[Tensor]) -> list[np.ndarray]:
        """The results. Raises EngineError."""
        return runtime.run(self.session, dict(zip(self.names, inputs, strict=True)), self.what)


class Sessions:
    """Opens and remembers the sessions of one model under one numerics.

    Args:
        model: The model.
        slots: Rounding slots of every candidate op.
        numerics: The rounding.
        limit: Bytes of weights in sessions that stay open.
        room: The memory it shares with others; its own if None.
    """

    def __init__(
        self,
        model: ir.Model,
        slots: Mapping[int, Slots],
        numerics: Numerics,
        limit: int = MAX_BYTES,
        room: Room | None = None,
    ) -> None:
        self.pieces = Pieces()
        self._cutter = Cutter(model, slots, numerics)
        self._limit = limit
        self._room = room or Room(tight=False)
        self._open: OrderedDict[_Key, Future[Runner]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, piece: Piece, low: frozenset[int], stored: frozenset[ir.Value]) -> Runner:
        """The runner of ``piece``; several threads that ask at once open it once.

        Args:
            piece: The piece.
            low: Ids of the ops that run low, a subset of ``piece.inside``.
            stored: Values it reads that are representable in the low format already.

        Raises:
            EngineError: The runtime refuses the piece.
        """
        self._room.enter(self)
        key = (piece, low, stored if low else frozenset())
        with self._lock:
            future = self._open.get(key)
            if future is not None:
                self._open.move_to_end(key)
        if future is None:
            future = self._start(key)
        return future.result()

    def close(self) -> None:
        """Close all sessions; they are opened again when they are needed."""
        with self._lock:
            self._open.clear()
            self._bytes = 0

    def _start(self, key: _Key) -> Future[Runner]:
        with self._lock:
            if key in self._open:
                return self._open[key]
            future = self._open[key] = Future()
            self._bytes += _size(key)
            while self._bytes > self._limit and len(self._open) > 1:
                self._bytes -= _size(self._open.popitem(last=False)[0])
        try:
            future.set_result(self._opened(*key))
        except BaseException as error:  # whoever waits for it must hear of it
            future.set_exception(error)
            self._forget(key)
        return future

    def _forget(self, key: _Key) -> None:
        with self._lock:
            if self._open.pop(key, None) is not None:
                self._bytes -= _size(key)

    def _opened(self, piece: Piece, low: frozenset[int], stored: frozenset[ir.Value]) -> Runner:
        # ONNX Runtime needs the ranks inside a Scan, which it infers from those outside.
        ranks = bool(piece.steps[0].blocks)
        nodes = [step.node for step in piece.steps]
        excerpt = self._cutter.cut(nodes, low, stored=stored, raw=True, ranks=ranks)
        constants = _arrays(piece, excerpt)
        known = [*excerpt.reads, *excerpt.writes]
        at = {v: i for i, v in enumerate(known)}
        raw = {v: len(known) + i for i, v in enumerate(excerpt.raw)}
        at |= {v: len(known) + len(raw) + i for i, v in enumerate(constants)}
        return Runner(
            session=runtime.session(excerpt.proto, excerpt.weights),
            names=tuple(f"i{i}" for i in range(len(excerpt.reads))),
            what=_what(piece),
            weights={} if runtime.copies_weights() else excerpt.weights,
            constants=tuple(constants.values()),
            mapped=tuple(filter(is_mapped, constants.values())),
            shown=tuple(_shown(step, at, raw, low) for step in piece.steps),
            kept=tuple((v, at[v]) for v in piece.kept),
            rounded=excerpt.raw,
        )


def _size(key: _Key) -> int:
    return _SESSION_BYTES + key[0].weight_bytes


def _arrays(piece: Piece, excerpt: Excerpt) -> dict[ir.Value, np.ndarray]:
    """The constants that a record shows."""
    values = dict.fromkeys(v for step in piece.steps for v in _slot_inputs(step))
    return {v: excerpt.constants[v].numpy() for v in values if v in excerpt.constants}


def _slot_inputs(step: Step) -> list[ir.Value]:
    inputs = [step.node.inputs[i] for i in sorted(step.slots.inputs)] if step.slots else []
    return [v for v in inputs if v is not None]


def _shown(
    step: Step, at: Mapping[ir.Value, int], raw: Mapping[ir.Value, int], low: frozenset[int]
) -> Shown:
    rounds = step.slots is not None and step.id in low
    return Shown(
        step.id,
        outputs=tuple(at[v] for v in step.writes),
        raw=tuple(raw.get(v) for v in step.writes) if rounds else (),
        slot_inputs=tuple(at[v] for v in _slot_inputs(step)),
    )


def _what(piece: Piece) -> str:
    first, last = piece.steps[0], piece.steps[-1]
    if first is not last:
        return f"ops {first.id} to {last.id}"
    name = f" {first.node.name!r}" if first.node.name else ""
    return f"op {first.id} ({first.node.op_type}{name})"
