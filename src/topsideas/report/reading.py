"""Reads a report back: what is shown and compared later is what was written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from topsideas.calibration.selection import bounded_text
from topsideas.errors import UsageError, reason
from topsideas.report.document import SCHEMA_VERSION
from topsideas.report.schema import report_schema

Json = dict[str, Any]

# What showing a report raises that was changed by hand: numbers of hundreds of digits among it.
_UNLIKE = (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError)


def read_whole(path: Path) -> Json:
    """The report in a file.

    Raises:
        UsageError: The file cannot be read, is no report, or one of another schema version.
    """
    try:
        text = bounded_text(path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as a report: {reason(error)}") from error
    try:
        report = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not valid JSON: {error}; expected a report") from error
    found = report.get("schema_version") if isinstance(report, dict) else None
    if found is None:
        raise UsageError(
            f"{path}: is no report; expected what topsideas mix_precision --output_json wrote"
        )
    if found != SCHEMA_VERSION:
        raise UsageError(
            f"{path}: has schema_version {found!r}, this version of topsideas reads "
            f"{SCHEMA_VERSION}. Remedy: use the topsideas that wrote it, or make it again"
        )
    missing = [key for key in report_schema()["required"] if key not in report]
    if missing:
        raise UsageError(f"{path}: is no complete report, {', '.join(missing)} missing")
    whole_report: Json = report
    return whole_report


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Names the file if something in it is not as the schema says. Raises UsageError."""
    try:
        yield
    except _UNLIKE as error:
        raise UsageError(
            f"{path}: is not as a report should be ({type(error).__name__}: {error}); expected "
            "what topsideas mix_precision --output_json wrote, unchanged"
        ) from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
