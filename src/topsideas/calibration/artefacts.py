"""What a run leaves behind for deployment and for inspection."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from topsideas.calibration.export import Feeds, export_model
from topsideas.engines.base import Engine, finalized
from topsideas.graph.conversion_files import folder_beside, write_model
from topsideas.graph.gates import is_fine
from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics


class Place(Protocol):
    """A folder that remembers which files are the tool's."""

    def path(self, name: str) -> Path:
        """Where an artefact of that name belongs."""
        ...


def save_executables(
    engine: Engine, model: Model, plan: PrecisionPlan, place: Place, *, finalize: bool = False
) -> dict[str, str]:
    """Save the compiled artefacts of the plan's run and of the fp32 run, with their listings.

    Returns:
        Paths by role: ``fp16_executable``, ``fp16_hlir``, ``fp32_executable``, ``fp32_hlir``.
    """
    files: dict[str, str] = {}
    for prefix, kept in (("fp16", plan), ("fp32", PrecisionPlan(model.candidates))):
        final = finalize and prefix == "fp16"
        executable = finalized(engine, kept) if final else engine.compile(kept)
        saved = _claimed(place, f"{prefix}.executable")
        _write_whole(saved, executable.save)
        dump = place.path(f"irdump/tops_ir_dump_{prefix}.log")
        _write_whole(dump, executable.dump)
        files |= {f"{prefix}_executable": str(saved), f"{prefix}_hlir": str(dump)}
    return files


def save_deploy_model(
    model: Model,
    plan: PrecisionPlan,
    numerics: Numerics,
    place: Place,
    inputs: Iterable[Feeds] = (),
) -> tuple[Path, list[str]]:
    """:func:`export_deploy_model` as ``deploy.onnx`` in a workspace; returns its path too."""
    path = _claimed(place, "deploy.onnx")
    return path, export_deploy_model(model, plan, numerics, path, inputs)


def save_inlined_model(model: Model, place: Place) -> Path:
    """Write the model that op ids index when local functions had to be inlined."""
    path = _claimed(place, "inlined.onnx")
    write_model(model.graph_model, path)
    return path


def export_deploy_model(
    model: Model,
    plan: PrecisionPlan,
    numerics: Numerics,
    path: Path,
    inputs: Iterable[Feeds] = (),
) -> list[str]:
    """Write the strongly typed mixed-precision ONNX model and prove it; see ``export_model``.

    Returns:
        Lines the user should read.

    Raises:
        EngineError: The low format cannot be expressed, or a runtime refuses the model.
        ModelError: The result is not valid ONNX, or does not mean what was emulated.
    """
    export = export_model(model, plan, numerics, path, inputs=inputs)
    number = f"{export.casts} cast{'' if export.casts == 1 else 's'}"
    casts = f"deploy model: {number}, {export.cast_bytes} bytes through them per pass"
    told = [f"deploy model: {line}" for line in export.checks if not is_fine(line)]
    return [casts, *told, *export.warnings]


def _write_whole(target: Path, write: Callable[[Path], object]) -> None:
    """Let an engine write a file, and what belongs beside it, complete or not at all."""
    with folder_beside(target) as folder:
        write(Path(folder) / target.name)
        for file in sorted(Path(folder).iterdir(), reverse=True):  # weights before the model
            file.replace(target.parent / file.name)


def _claimed(place: Place, name: str) -> Path:
    """The path of a model; large weights go into a second file beside it."""
    place.path(f"{name}.data")
    return place.path(name)
