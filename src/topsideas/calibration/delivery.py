"""The use case behind ``export``: a plan in the format of the tool that is to run it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from topsideas.calibration.export import Export, Feeds, export_model
from topsideas.calibration.plans import PlanFile
from topsideas.errors import UsageError
from topsideas.formats.base import Order
from topsideas.formats.registry import FORMATS, ONNX, write


@dataclass(frozen=True)
class Delivery:
    """What was written.

    Attributes:
        files: The files, the one asked for first.
        notes: What the reader must know, and how to use the files.
        export: The mixed-precision model that was made and checked on the way, if any.
    """

    files: tuple[Path, ...]
    notes: tuple[str, ...]
    export: Export | None


def deliver(
    plan: PlanFile, name: str, path: Path, *, low_io: bool = False, inputs: Iterable[Feeds] = ()
) -> Delivery:
    """Write a plan.

    Args:
        plan: The plan.
        name: A format of :mod:`topsideas.formats.registry`, or ``onnx``.
        path: The file to write.
        low_io: Give inputs and outputs the low type.
        inputs: What to compare the mixed-precision model and the emulator on.

    Raises:
        UsageError: The format says nothing of inputs and outputs, and they were to be low.
        EngineError: What the format needs is missing, or refuses the plan.
        ModelError: The mixed-precision model does not pass its proofs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if name == ONNX:
        export = _export(plan, path, low_io, inputs)
        return Delivery(export.files, (), export)
    if not FORMATS[name].from_mixed:
        if low_io:
            raise UsageError(f"--io_precision low: format {name} says nothing of inputs")
        written = write(name, Order(plan.model, plan.plan, plan.numerics, path))
        return Delivery(written.files, written.notes, None)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        mixed = Path(folder) / "mixed.onnx"
        export = _export(plan, mixed, low_io, inputs)
        written = write(name, Order(plan.model, plan.plan, plan.numerics, path, mixed))
    return Delivery(written.files, written.notes, export)


def _export(plan: PlanFile, path: Path, low_io: bool, inputs: Iterable[Feeds]) -> Export:
    return export_model(plan.model, plan.plan, plan.numerics, path, low_io=low_io, inputs=inputs)
