"""Emulated models of plans: each is run, checked, saved and listed, but built only once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import onnx
import onnx_ir as ir

from topsideas.engines.emulator import runtime
from topsideas.engines.emulator.whole import Rooms, StagedModel, WholeModel, open_plan
from topsideas.graph.conversion_files import write_model, write_serialised
from topsideas.graph.portable import placeholder, portable

# Models with this many bytes of weights and less are remembered, so many of them: all low, all
# kept, and one plan in between are asked for again and again.
_SMALL, _REMEMBERED = 1 << 26, 3
# Larger weights are not even read for a listing.
_LISTED_BYTES = 1024
# A file takes three times its weights while it is written; beyond this they get their own.
_INLINE_BYTES = 1 << 28


@dataclass
class EmulatedPlans:
    """Opens, writes and lists the emulated models of plans.

    Args:
        emulate: Builds the emulated model when the given ops run low; nobody else holds it.
        rooms: Gives large models the compiler for their parts.
    """

    emulate: Callable[[frozenset[int]], ir.Model]
    rooms: Rooms
    _serialised: OrderedDict[frozenset[int], bytes] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def open(self, low: frozenset[int], *, fused: bool) -> WholeModel | StagedModel:
        """The plan ready to run, fused by the runtime if asked for. Raises EngineError."""
        found = self._find(low)
        if isinstance(found, bytes):
            return WholeModel(runtime.session(found, fused=fused))
        return open_plan(found, self.rooms, fused=fused)

    def freeze(self, low: frozenset[int]) -> WholeModel:
        """The plan as one session, however large. Raises EngineError."""
        found = self._find(low)
        if isinstance(found, bytes):
            return WholeModel(runtime.session(found))
        return WholeModel.open(found)

    def save(self, low: frozenset[int], path: Path) -> None:
        """Write the emulated model of a plan."""
        found = self._find(low)
        if isinstance(found, bytes):
            write_serialised(found, path)
        else:
            write_model(found, path, inline_limit=_INLINE_BYTES)

    def listing(self, low: frozenset[int]) -> str:
        """The emulated graph as ONNX text, weights elided."""
        found = self._find(low)
        return _listing(onnx.load_from_string(found) if isinstance(found, bytes) else _bare(found))

    def _find(self, low: frozenset[int]) -> bytes | ir.Model:
        """The model of a plan, serialised if it is small."""
        with self._lock:
            known = self._serialised.get(low)
            if known is not None:
                self._serialised.move_to_end(low)
                return known
        model = self.emulate(low)
        if _weight_bytes(model) > _SMALL:
            return model
        serialised, _ = portable(model)
        with self._lock:
            self._serialised[low] = serialised
            while len(self._serialised) > _REMEMBERED:
                self._serialised.popitem(last=False)
        return serialised


def _weight_bytes(model: ir.Model) -> int:
    tensors = (v.const_value for v in model.graph.initializers.values())
    return sum(t.nbytes for t in tensors if t is not None)


def _bare(model: ir.Model) -> onnx.ModelProto:
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes > _LISTED_BYTES:  # never evaluated, nor read
            value.const_value = placeholder(tensor, name)
    return ir.to_proto(model)


def _listing(proto: onnx.ModelProto) -> str:
    for initializer in proto.graph.initializer:
        for name in ("raw_data", "external_data", "data_location"):
            initializer.ClearField(name)
    return str(onnx.printer.to_text(proto))
