"""Whether an exported model means what the emulator computed: bit for bit, on given inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from topsideas.engines.emulator import runtime
from topsideas.engines.emulator.selftest import check_runtime
from topsideas.errors import EngineError, ModelError
from topsideas.graph.conversion_meaning import spelled_out
from topsideas.graph.emulation import emulated
from topsideas.graph.lifting import lift
from topsideas.graph.loading import Model
from topsideas.graph.numbering import carry_over
from topsideas.graph.portable import portable
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics
from topsideas.rounding import round_to

Feeds = Mapping[str, Any]


@dataclass(frozen=True)
class Agreement:
    """Two models that must give the same bits.

    Attributes:
        emulated: The emulator's model of the plan.
        exported: The meaning of the exported file.
        numerics: The rounding.
        low_io: Whether the export's inputs and outputs are low.
        weights: The values of weights that are inputs too, where these are low.
    """

    emulated: _Runner
    exported: _Runner
    numerics: Numerics
    low_io: bool
    weights: Feeds

    @classmethod
    def of(
        cls,
        model: Model,
        plan: PrecisionPlan,
        numerics: Numerics,
        converted: ir.Model,
        path: Path,
        *,
        low_io: bool = False,
    ) -> Agreement:
        """Prepare the comparison.

        Args:
            model: The user's model.
            plan: The plan that was exported.
            numerics: Its numerics.
            converted: The conversion, which knows which node is which op.
            path: The file that was written; this is what is compared.
            low_io: Whether its inputs and outputs are low.

        Raises:
            ModelError: The file does not hold the conversion.
            EngineError: ONNX Runtime refuses one of the two, or does not round as it should.
        """
        check_runtime(numerics)
        low = plan.low(model.candidates) - model.inexpressible(numerics.precision)
        written = ir.load(path)
        carry_over(converted, written)
        slots = {op.id: op.slots for op in model.ops if op.id in low}
        # Kernels of another opset may sum in another order.
        source = model.graph_model.clone()
        lift(source, written.opset_imports.get("", 1))
        return cls(
            _Runner(emulated(source, low, slots, numerics)),
            _Runner(spelled_out(written, model.graph_model, numerics)),
            numerics,
            low_io,
            _listed_weights(written, model) if low_io else {},
        )

    def check(self, feeds: Feeds) -> None:
        """Compare the two on one set of inputs.

        Raises:
            EngineError: The model cannot run on these inputs.
            ModelError: An output differs in any bit (NaN equals NaN).
        """
        if self.low_io:
            given = {**self.weights, **feeds}
            feeds = {name: self._stored(value) for name, value in given.items()}
        want, again = self.emulated.run(feeds), self.emulated.run(feeds)
        got = self.exported.run(feeds)
        for name, value in want.items():
            wanted = self._stored(value) if self.low_io else value
            if not equal(value, again[name]):
                raise EngineError(f"output {name!r} differs between two runs of one model")
            if not equal(wanted, got[name]):
                raise ModelError(
                    f"the export does not mean what was emulated: output {name!r} differs "
                    f"({_difference(wanted, got[name])}). Report this as a defect of the converter"
                )

    def _stored(self, value: Any) -> Any:
        is_float = isinstance(value, np.ndarray) and value.dtype == np.float32
        return round_to(value, self.numerics) if is_float else value


def _listed_weights(written: ir.Model, model: Model) -> Feeds:
    """The user's values of the weights that an export lists among its inputs."""
    listed = {v.name for v in written.graph.inputs} & set(written.graph.initializers)
    weights = model.graph.initializers.items()
    return {
        name: value.const_value.numpy()
        for name, value in weights
        if name in listed and value.const_value is not None
    }


class _Runner:
    def __init__(self, model: ir.Model) -> None:
        proto, self._weights = portable(model)
        self._session = runtime.session(proto, self._weights)
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, feeds: Feeds) -> dict[str, Any]:
        """The outputs by name. Raises EngineError."""
        values = runtime.run(self._session, feeds, "the comparison with the emulator")
        return dict(zip(self._names, values, strict=True))


def equal(left: Any, right: Any) -> bool:
    """Whether two outputs are the same bits; any NaN equals any NaN, and sequences their parts."""
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    if not isinstance(left, np.ndarray) or not isinstance(right, np.ndarray):
        return bool(left == right)
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.kind == "f":
        # Zeros of either sign are told apart, which == would not do.
        same = (left == right) & (np.signbit(left) == np.signbit(right))
        return bool(np.all(same | (np.isnan(left) & np.isnan(right))))
    return bool(np.array_equal(left, right))


def _difference(left: Any, right: Any) -> str:
    arrays = isinstance(left, np.ndarray) and isinstance(right, np.ndarray)
    if not arrays or left.shape != right.shape or left.dtype.kind != "f":
        return f"expected {_kind(left)}, got {_kind(right)}"
    with np.errstate(invalid="ignore"):
        return f"by up to {np.nanmax(np.abs(left - right)):.3g}"


def _kind(value: Any) -> str:
    array = isinstance(value, np.ndarray)
    return f"{value.dtype.name}{list(value.shape)}" if array else type(value).__name__
