"""Plans in files, with the model and the numerics they were found for."""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topsideas.calibration.selection import read_report, select_ops
from topsideas.errors import PlanError
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import FP16, PRECISIONS, Numerics, Overflow, Subnormals


@dataclass(frozen=True)
class PlanFile:
    """A plan read from a file.

    Attributes:
        model: The model it is for.
        plan: The ops to keep in fp32.
        numerics: The numerics it was found with, or was asked for with.
        notes: What the reader must know.
    """

    model: Model
    plan: PrecisionPlan
    numerics: Numerics
    notes: tuple[str, ...]


def read_plan(
    path: Path, model: str | None = None, precision: str | None = None, overflow: str | None = None
) -> PlanFile:
    """Read a report, or a file of op ids or names.

    Args:
        path: The file.
        model: The path of the model; by default the one that the report names.
        precision: The name of the low format; by default the report's, else fp16.
        overflow: What overflow becomes; by default the report's, else infinity.

    Raises:
        PlanError: The file is no plan, was found for another model or precision, or names none.
        ModelError: The model cannot be read.
    """
    report = read_report(path)
    about, options = part(report, "model"), options_of(path, report)
    found = model or about.get("path")
    if not isinstance(found, str):
        raise PlanError(f"{path}: names no model; give it with --input_onnx")
    numerics = _numerics(path, options, precision, overflow)
    loaded = load_model(found, numerics.precision)
    remedy = "--input_onnx with that model, or a search on this one"
    refuse_other_model(path, report, loaded, remedy)
    kept = select_ops(loaded, [f"@{path}"])
    return PlanFile(loaded, PrecisionPlan(kept), numerics, tuple(_notes(path, report)))


def refuse_other_model(path: Path, report: dict[str, Any], model: Model, remedy: str) -> None:
    """A plan is of op ids, which mean nothing in another model.

    Args:
        path: Where the plan was read.
        report: The report that it is from; a list of ops tells of no model.
        model: The model that it is to be used for.
        remedy: What to do where it is not that.

    Raises:
        PlanError: The report is for another model.
    """
    digest = part(report, "model").get("sha256", model.digest)
    if digest != model.digest:
        raise PlanError(
            f"{path}: the plan was found for another model (sha256 {str(digest)[:64]}) "
            f"than {model.path or 'this one'} (sha256 {model.digest}), and op ids mean nothing "
            f"elsewhere. Remedy: {remedy}"
        )


def part(report: dict[str, Any], key: str) -> dict[str, Any]:
    """An object in a report; empty where it is missing or something else."""
    part = report.get(key)
    return part if isinstance(part, dict) else {}


def options_of(path: Path, report: dict[str, Any]) -> dict[str, Any]:
    """What a report says it was made with, as far as plans are judged by it.

    Raises:
        PlanError: A value is none that this tool writes.
    """
    options = part(report, "options")
    for name, known in _CHOICES.items():
        value = options.get(name)
        if value is not None and not (isinstance(value, str) and value in known):
            raise _foreign(path, f"options.{name}", value, f"one of {', '.join(known)}")
    for name in _NUMBERS:
        if not _is_number(options.get(name)):
            raise _foreign(path, f"options.{name}", options[name], "a number")
    if not _is_number(report.get("margin")):
        raise _foreign(path, "margin", report["margin"], "a number")
    return options


_CHOICES = {"precision": tuple(PRECISIONS), "overflow": tuple(o.value for o in Overflow)}
_NUMBERS = ("rtol", "atol", "ntol", "cos_sim", "margin")


def _is_number(value: object) -> bool:
    try:
        return value is None or (isinstance(value, int | float) and math.isfinite(value))
    except OverflowError:  # a whole number that no float can hold
        return False


def _foreign(path: Path, key: str, value: object, expected: str) -> PlanError:
    return PlanError(
        f"{path}: {key} is {reprlib.repr(value)}, expected {expected}; it is no report of this "
        "tool, or was changed"
    )


def _numerics(
    path: Path, options: dict[str, Any], precision: str | None, overflow: str | None
) -> Numerics:
    of_plan = options.get("precision")
    if precision is not None and of_plan is not None and precision != of_plan:
        raise PlanError(
            f"{path}: the plan was found for {of_plan}, and says nothing about {precision}"
        )
    compiled = part(options, "compile_options")
    try:
        return Numerics(
            PRECISIONS[precision or of_plan or FP16.name],
            Overflow(overflow or options.get("overflow") or Overflow.INF),
            Subnormals(compiled.get("subnormals", Subnormals.KEEP)),
        )
    except ValueError as error:
        raise _foreign(
            path,
            "compile_options.subnormals",
            compiled["subnormals"],
            str([s.value for s in Subnormals]),
        ) from error


def _notes(path: Path, report: dict[str, Any]) -> list[str]:
    notes = []
    if report.get("verdict", "pass") != "pass":
        notes.append(f"{path}: the plan does not reach the accuracy that was asked for")
    evidence = part(report, "engine").get("evidence")
    if evidence == "emulated":
        notes.append("the plan's evidence is emulated; verify what you build on the device")
    return notes
