"""Which ops the user means: ids, names, files of them, types."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from topsideas.engines.base import Identity
from topsideas.errors import PlanError, reason
from topsideas.graph.loading import Model

# Reports on many samples are large.
_MAX_FILE_BYTES = 256 << 20
# Of a value that a file holds.
_SHOWN = 80
# No exporter's names are longer, and looking for similar ones takes time.
_LONGEST = 4096
# No longer than an id can be: Python refuses to read numbers of thousands of digits.
_NUMBER = re.compile(r"-?[0-9]{1,18}")


def select_ops(model: Model, tokens: Iterable[str | int]) -> frozenset[int]:
    """Ids for ``--fp32_nodes``: each token an id, a node's name, or ``@file`` of those.

    A file holds ids or names, one per line, or is a JSON list, or a report of this tool.

    Raises:
        PlanError: A token names no op, or a name that several ops bear.
    """
    found: set[int] = set()
    for token in tokens:
        if isinstance(token, str) and token.startswith("@"):
            found |= {_one(model, t) for t in _read_file(Path(token[1:]))}
        else:
            found.add(_one(model, token))
    return frozenset(found)


def select_types(model: Model, types: Iterable[str]) -> frozenset[int]:
    """Ids of all ops of some types.

    Raises:
        PlanError: The model has no op of a type.
    """
    wanted = list(types)
    _check_types(model, wanted)
    return frozenset(op.id for op in model.ops if op.type in wanted)


def select_shown(
    model: Model,
    id_filter: Sequence[int] | None,
    id_bypass: Sequence[int] | None,
    type_filter: Sequence[str] | None,
    type_bypass: Sequence[str] | None,
) -> frozenset[int]:
    """Ids whose statistics are wanted. At most one of the four is given.

    Raises:
        PlanError: An id or a type is not in the model.
    """
    for given in (id_filter, id_bypass):
        select_ops(model, given or ())
    _check_types(model, (*(type_filter or ()), *(type_bypass or ())))
    return frozenset(
        op.id
        for op in model.ops
        if (id_filter is None or op.id in id_filter)
        and (id_bypass is None or op.id not in id_bypass)
        and (type_filter is None or op.type in type_filter)
        and (type_bypass is None or op.type not in type_bypass)
    )


def _check_types(model: Model, types: Iterable[str]) -> None:
    known = {op.type for op in model.ops}
    for wanted in types:
        if wanted not in known:
            raise PlanError(f"the model has no op of type {wanted!r}{_near(wanted, known)}")


def read_report(path: Path) -> dict[str, Any]:
    """The report in a file of ops; empty where the file is a plain list.

    Raises:
        PlanError: The file cannot be read, or is not JSON although it begins like it.
    """
    try:
        return _report(_read_text(path))
    except (ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits
        raise PlanError(f"{path}: not valid JSON: {error}") from error


def foreign_plans(model: Model, engine: Identity, tokens: Iterable[str | int]) -> list[str]:
    """A line for each report among the tokens that was made for another model or engine.

    A plan holds for what it was found with; elsewhere it is a proposal that must be verified.

    Raises:
        PlanError: A file cannot be read.
    """
    lines = []
    for path in [Path(t[1:]) for t in tokens if isinstance(t, str) and t.startswith("@")]:
        report = read_report(path)
        for what, here in (("model", {"sha256": model.digest}), ("engine", engine.to_json())):
            there = report.get(what)
            there = there if isinstance(there, dict) else {}
            other = [
                f"{k} {str(there[k])[:_SHOWN]}" for k in here if k in there and there[k] != here[k]
            ]
            if other:
                lines.append(
                    f"{path}: the plan was found for another {what} ({', '.join(other)}); it is "
                    "verified anew here"
                )
    return lines


def _one(model: Model, token: str | int) -> int:
    text = str(token)
    if len(text) > _LONGEST:
        raise PlanError(f"no op has the id or name {text[:_SHOWN]!r} and so on, {len(text)} long")
    if _NUMBER.fullmatch(text):
        return _checked_id(model, int(text))
    named = [op.id for op in model.ops if op.name == text]
    if len(named) == 1:
        return named[0]
    if named:
        raise PlanError(f"{len(named)} ops are named {text!r}: ids {named[:10]}; give the id")
    names = {op.name for op in model.ops if op.name}
    raise PlanError(
        f"no op has the id or name {text!r}{_near(text, names)}; see mix_precision --list_ops"
    )


def _checked_id(model: Model, number: int) -> int:
    if not 0 <= number < len(model.ops):
        raise PlanError(
            f"op id {number} is not in the model; expected 0 to {len(model.ops) - 1}, "
            "see mix_precision --list_ops"
        )
    return number


def _near(wanted: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(wanted, list(known), n=3)
    return f"; did you mean {', '.join(map(repr, near))}?" if near else ""


def bounded_text(path: Path, limit: int = _MAX_FILE_BYTES) -> str:
    """A file's text, read from pipes too, of at most ``limit`` bytes.

    Raises:
        OSError: It cannot be read.
        ValueError: It is larger, or no text.
    """
    with path.open("rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"over {limit >> 20} MB; expected a list of op ids, or a report")
    return content.decode("utf-8-sig")


def _read_text(path: Path) -> str:
    try:
        return bounded_text(path)
    except (OSError, ValueError) as error:
        raise PlanError(f"cannot read op ids from {path}: {reason(error)}") from error


def _report(text: str) -> dict[str, Any]:
    data = json.loads(text) if text.lstrip()[:1] == "{" else {}
    return data if isinstance(data, dict) else {}


def _read_file(path: Path) -> list[str | int]:
    text = _read_text(path)
    if text.lstrip()[:1] not in ("[", "{"):
        return [line.strip() for line in text.splitlines() if line.strip()]
    return _read_json(path, text)


def _read_json(path: Path, text: str) -> list[str | int]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"{path}: not valid JSON: {error}") from error
    ids = data.get("fp32_nodes") if isinstance(data, dict) else data
    plain = isinstance(ids, list) and all(type(i) in (int, str) for i in ids)
    if not plain or not isinstance(ids, list):
        raise PlanError(f"{path}: expected a list of ids or names, or a report with 'fp32_nodes'")
    return ids
