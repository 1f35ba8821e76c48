"""The use case behind ``export``: a plan in the format of the tool that is to run it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from topsideas.calibration.export import Export, Feeds, export_model, refuse_sources
from topsideas.calibration.plans import PlanFile
from topsideas.errors import UsageError
from topsideas.formats.base import Order
from topsideas.formats.registry import FORMATS, ONNX, write
from topsideas.graph.conversion_files import folder_beside


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
    plan: PlanFile,
    name: str,
    path: Path,
    *,
    low_io: bool = False,
    fixed_weights: bool = False,
    inputs: Iterable[Feeds] = (),
) -> Delivery:
    """Write a plan.

    Args:
        plan: The plan.
        name: A format of :mod:`topsideas.formats.registry`, or ``onnx``.
        path: The file to write.
        low_io: Give inputs and outputs the low type.
        fixed_weights: Take weights off the model's inputs.
        inputs: What to compare the mixed-precision model and the emulator on.

    Raises:
        UsageError: ``path`` would replace the user's files, or inputs were to be changed in a
            format that says nothing of them.
        EngineError: What the format needs is missing, or refuses the plan.
        ModelError: The mixed-precision model does not pass its proofs.
    """
    refuse_sources(plan.model, path)
    path.parent.mkdir(parents=True, exist_ok=True)

    def export_to(file: Path) -> Export:
        return export_model(
            plan.model,
            plan.plan,
            plan.numerics,
            file,
            low_io=low_io,
            fixed_weights=fixed_weights,
            inputs=inputs,
        )

    if name == ONNX:
        export = export_to(path)
        return Delivery(export.files, (), export)
    if not FORMATS[name].from_mixed:
        if low_io or fixed_weights:
            flag = "--io_precision low" if low_io else "--fixed_weights"
            raise UsageError(f"{flag}: format {name} says nothing of inputs")
        written = write(name, Order(plan.model, plan.plan, plan.numerics, path))
        return Delivery(written.files, written.notes, None)
    with folder_beside(path) as folder:
        mixed = Path(folder) / "mixed.onnx"
        export = export_to(mixed)
        written = write(name, Order(plan.model, plan.plan, plan.numerics, path, mixed))
    return Delivery(written.files, written.notes, export)
