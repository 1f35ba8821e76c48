"""Rows measured so far: a JSON file that later runs add to.

A row is one tool on one model at one tolerance. Running it again replaces it; rows of other tools
and models stay, so that a table can be measured in parts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Key = tuple[str, str, float]


def key(row: Row) -> Key:
    """What makes two rows the same."""
    return row["model"], row["tool"], row["tolerance"]


def read(path: Path) -> list[Row]:
    """The rows of a file; none if there is no file."""
    if not path.exists():
        return []
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return rows


def merged(*parts: Iterable[Row]) -> list[Row]:
    """All rows, later ones in place of earlier ones, sorted by key."""
    found = {key(row): row for part in parts for row in part}
    return [found[k] for k in sorted(found)]


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, one a line, complete or not at all: a run may be interrupted at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    new.write_text(f'{{"rows": [\n{lines}\n]}}\n', encoding="utf-8")
    new.replace(path)
