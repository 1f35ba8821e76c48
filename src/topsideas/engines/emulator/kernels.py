"""Single ops on inputs that are given, and what an error at an op does to the outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from topsideas.engines.base import Arrays
from topsideas.engines.emulator import runtime
from topsideas.engines.emulator.whole import Rooms, StagedModel, WholeModel, open_plan
from topsideas.graph.disturbed import disturbed
from topsideas.graph.excerpt import Cutter
from topsideas.graph.ops import op_id
from topsideas.graph.schemas import Slots
from topsideas.precision import Numerics


class SingleOps:
    """The top-level ops of a model, one at a time.

    Args:
        model: The model.
        slots: Rounding slots of every candidate op.
        numerics: The rounding.
        rooms: Gives large models the compiler for their parts.
    """

    def __init__(
        self, model: ir.Model, slots: Mapping[int, Slots], numerics: Numerics, rooms: Rooms
    ) -> None:
        self._model, self._cutter, self._rooms = model, Cutter(model, slots, numerics), rooms
        self._nodes = {op_id(node): node for node in model.graph}
        self._whole: tuple[WholeModel | StagedModel, dict[str, str]] | None = None

    def run(self, op: int, values: Arrays) -> list[np.ndarray] | None:
        """What an op that runs low gives.

        Args:
            op: Its id.
            values: What each value holds that it may read, by name.

        Returns:
            Its outputs, without the empty ones; None if it is in a body or reads something else.

        Raises:
            EngineError: The runtime refuses the op.
        """
        node = self._nodes.get(op)
        if node is None:
            return None
        excerpt = self._cutter.cut([node], {op})
        names = [str(value.name) for value in excerpt.reads]
        if not values.keys() >= set(names):
            return None
        session = runtime.session(excerpt.proto, excerpt.weights)
        feeds = {f"i{at}": values[name] for at, name in enumerate(names)}
        return runtime.run(session, feeds, f"op {op} ({node.op_type})")

    def disturbed(self, feeds: Arrays, errors: Arrays) -> dict[str, Any]:
        """The model's outputs in fp32 with errors added to some values.

        Args:
            feeds: The inputs.
            errors: What is added, by the name of a float32 value that a top-level op writes.

        Raises:
            EngineError: The runtime refuses the model.
        """
        if self._whole is None:
            written = (v for node in self._nodes.values() for v in node.outputs)
            floats = {str(v.name) for v in written if v.name and v.dtype == ir.DataType.FLOAT}
            model, inputs = disturbed(self._model, floats)
            self._whole = open_plan(model, self._rooms, fused=False), inputs
        whole, inputs = self._whole
        none = np.zeros((), np.float32)
        own = {given: np.asarray(errors.get(name, none)) for name, given in inputs.items()}
        return whole.run({**feeds, **own})
