"""The file that says a folder is a workspace, in which format, and what it belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import topsideas
from topsideas.errors import WorkspaceError
from topsideas.workspace.files import os_errors, replace_file
from topsideas.workspace.keys import canonical_json

FORMAT = 1
_SHOWN = 80


def write_marker(path: Path, fingerprint: Mapping[str, object]) -> None:
    """Record what the workspace belongs to."""
    marker = {
        "format": FORMAT,
        "tool": f"topsideas {topsideas.__version__}",
        "fingerprint": dict(fingerprint),
        "sha256": _sha256(fingerprint),
    }
    replace_file(path, json.dumps(marker, indent=2, sort_keys=True).encode())


def check_format(path: Path) -> None:
    """Raise a WorkspaceError if a newer version wrote the marker; others are left for later."""
    found = _read(path).get("format", FORMAT)
    if isinstance(found, int) and found > FORMAT:
        raise WorkspaceError(
            f"{path}: the workspace has format {found}, expected at most {FORMAT}: a newer "
            "topsideas wrote it; upgrade topsideas or use another --workspace"
        )


def check_fingerprint(path: Path, fingerprint: Mapping[str, object]) -> None:
    """Raise a WorkspaceError unless the marker is sound and holds this fingerprint."""
    marker = _read(path)
    there = marker.get("fingerprint")
    if not isinstance(there, dict) or marker.get("sha256") != _sha256(there):
        raise WorkspaceError(
            f"{path}: the workspace's record is damaged, expected a fingerprint and its sha256; "
            "pass --clean to start it afresh or use another --workspace"
        )
    if canonical_json(there) != canonical_json(dict(fingerprint)):
        raise WorkspaceError(
            f"{path.parent.parent}: the workspace belongs to another model or other options: "
            f"{'; '.join(_differences(there, fingerprint))}; pass --clean to empty it or use "
            "another --workspace"
        )


def _read(path: Path) -> dict[str, Any]:
    """The marker; empty where it is not readable as one."""
    with os_errors(path, "read the workspace's record"):
        content = path.read_bytes()
    try:
        marker = json.loads(content)
        canonical_json(marker)  # refuses NaN, which the reader lets through
    except (ValueError, RecursionError):
        return {}
    return marker if isinstance(marker, dict) else {}


def _sha256(fingerprint: Mapping[str, object]) -> str:
    return hashlib.sha256(canonical_json(dict(fingerprint)).encode()).hexdigest()


def _differences(there: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    old, new = dict(_flat(there)), dict(_flat(now))
    return [
        f"{key} was {_shown(old, key)}, is {_shown(new, key)}"
        for key in sorted(old.keys() | new.keys())
        if key not in old or key not in new or old[key] != new[key]
    ]


def _flat(value: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Entries as (dotted path, JSON text), so that a message names the option that differs."""
    entries: list[tuple[str, str]] = []
    for key, item in value.items():
        if isinstance(item, Mapping):
            entries += _flat(item, f"{prefix}{key}.")
        else:
            entries.append((prefix + key, canonical_json(item)))
    return entries


def _shown(entries: Mapping[str, str], key: str) -> str:
    text = entries.get(key, "not set")
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
