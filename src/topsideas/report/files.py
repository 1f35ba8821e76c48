"""Where reports are written: what may be replaced, and how."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from topsideas.errors import UsageError

REPORT = rb'\{\s*"schema_version": \d+,\s*"topsideas_version"'
"""What a JSON report begins with."""

PLAIN = {
    "text": rb"(PASS|FAIL)  ",
    "md": rb"# (PASS|FAIL)  ",
    "csv": rb"id,type,runs_in,cause,",
}
"""What a report in another form begins with."""

COMPARISON = {
    "text": rb"(SAME|DIFFERENT)  ",
    "md": rb"# (SAME|DIFFERENT)  ",
    "json": rb'\{\s*"schema_version": \d+,\s*"same_model"',
}
"""What a comparison of two reports begins with."""

VERDICTS = rb'\{\s*"verdict"'
"""What the verdicts of ``onnx verify`` begin with."""

PROBE = rb'\{\s*"version"'
"""What the findings of ``gcu probe`` begin with."""

# As much as tells a report from other files.
_BEGINNING = 64


def check_target(
    path: str | None, flag: str = "--output_json", opening: bytes = REPORT, what: str = "report"
) -> None:
    """Refuse a path that no report can be written to, before hours are spent on one.

    Args:
        path: Where the report shall go; None for nowhere.
        flag: Who asks for it.
        opening: A pattern of what a file of this kind begins with: only such a file, or an empty
            one, is replaced.
        what: What the file is called.

    Raises:
        UsageError: The path is a folder, its folder is missing, or something else is there.
    """
    if path is None:
        return
    if Path(path).is_dir():
        raise UsageError(f"{flag} {path}: is a folder, expected the path of a file")
    if not Path(path).parent.is_dir():
        raise UsageError(
            f"{flag} {path}: no such folder {Path(path).parent}; expected a path in a "
            "folder that exists"
        )
    if not is_device(Path(path)) and Path(path).is_file() and not _is_ours(Path(path), opening):
        raise UsageError(
            f"{flag} {path}: exists and is no {what}, so it is not overwritten; expected "
            f"a new path or that of an older {what}"
        )


def check_different(paths: dict[str, str | None]) -> None:
    """Refuse two outputs at one place, of which the second would replace the first.

    Args:
        paths: By flag, where to write; None for nowhere.

    Raises:
        UsageError: Two are the same file.
    """
    seen: dict[Path, str] = {}
    for flag, path in paths.items():
        if path is None or is_device(Path(path)):
            continue
        # As Python 3.10 and 3.11 raise another error on links in a circle than newer ones.
        other = seen.setdefault(Path(os.path.realpath(path)), flag)
        if other != flag:
            raise UsageError(f"{flag} {path}: is the file of {other} too; expected another path")


def _is_ours(path: Path, opening: bytes) -> bool:
    with path.open("rb") as stream:
        found = stream.read(_BEGINNING)
    return not found or re.match(opening, found) is not None


def is_device(path: Path) -> bool:
    """Whether it is a device, a pipe or a socket, which is written into and never replaced."""
    return path.absolute().parts[:2] == ("/", "dev") or (path.exists() and not path.is_file())


def write_json(report: dict[str, Any], path: Path) -> None:
    """Write a report: strict JSON, complete or not at all.

    Raises:
        UsageError: The path cannot be written.
    """
    encoder = json.JSONEncoder(indent=1, allow_nan=False, ensure_ascii=False)
    # Piece by piece: the pieces of a large report take ten times its size.
    _write(chain(encoder.iterencode(report), "\n"), path)


def write_text(text: str, path: Path) -> None:
    """Write a report's text, complete or not at all; a device or a pipe is written into.

    Raises:
        UsageError: The path cannot be written.
    """
    _write((text,), path)


def _write(pieces: Iterable[str], path: Path) -> None:
    try:
        if is_device(path):
            _fill(path, pieces)
        else:
            _replace(path, pieces)
    except OSError as error:
        raise UsageError(f"cannot write the report to {path}: {error.strerror}") from error


def _fill(path: Path, pieces: Iterable[str]) -> None:
    # A path that is no text holds lone surrogates; backslashed, they are JSON's own escapes.
    # Line ends stay as they are.
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
        stream.writelines(pieces)


def _replace(path: Path, pieces: Iterable[str]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _fill(temporary, pieces)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
