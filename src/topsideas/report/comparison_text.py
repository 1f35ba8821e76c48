"""Two reports side by side, on a terminal and in Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from topsideas.report.causes import cause_name
from topsideas.report.plain import escaped, markdown_table
from topsideas.report.text import number, printable

Json = dict[str, Any]

# Rows per table unless all are asked for.
_ROWS = 15
_LONGEST = 40


@dataclass(frozen=True, slots=True)
class _Part:
    """A heading, a line below it, and a table; each may be empty."""

    title: str
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()


def show_comparison(console: Console, found: Json, names: Sequence[str], *, verbose: bool) -> None:
    """Print what differs; see :func:`topsideas.report.comparison.compare_reports`.

    Args:
        console: Where to.
        found: The comparison.
        names: How the two reports are called.
        verbose: All rows.
    """
    same = not found["differs"]
    console.print(Text(_headline(found), style="bold green" if same else "bold red"))
    for part in _parts(found, names, verbose=verbose):
        console.print()
        console.print(Text(printable(part.title), style="bold"))
        if part.rows:
            table = Table(box=None, pad_edge=False, header_style="dim")
            for heading in part.head:
                table.add_column(heading, overflow="fold")
            for row in part.rows:
                table.add_row(*(Text(printable(cell)) for cell in row))
            console.print(table)


def comparison_markdown(found: Json, names: Sequence[str]) -> str:
    """The same as Markdown, all rows."""
    lines = [f"# {_headline(found)}"]
    for part in _parts(found, names, verbose=True):
        lines += ["", f"## {escaped(part.title)}"]
        lines += ["", *markdown_table(part.head, part.rows)] if part.rows else []
    return "\n".join(lines) + "\n"


def _headline(found: Json) -> str:
    if not found["differs"]:
        return "SAME  verdict and plan"
    return f"DIFFERENT  {' and '.join(found['differs'])}"


def _parts(found: Json, names: Sequence[str], *, verbose: bool) -> Iterator[_Part]:
    head = ("", "report", "verdict", "ops in fp32", "margin")
    yield _Part("verdicts", head, _verdicts(found, names))
    if found["setup"]:
        rows = [(d["what"], _value(d["left"]), _value(d["right"])) for d in found["setup"]]
        yield _Part("set up differently", ("", "A", "B"), rows)
    yield from _plan(found, verbose=verbose)
    yield _margins(found, verbose=verbose)
    yield from _statistics(found, verbose=verbose)
    if found["search"] is not None:
        rows = [(k, _value(v["left"]), _value(v["right"])) for k, v in found["search"].items()]
        yield _Part("search", ("", "A", "B"), rows)


def _verdicts(found: Json, names: Sequence[str]) -> list[tuple[str, ...]]:
    sides = [found["verdict"][side] for side in ("left", "right")]
    return [
        (letter, name, side["verdict"], str(side["size"]), _margin(side))
        for letter, name, side in zip("AB", names, sides, strict=True)
    ]


def _margin(side: Json) -> str:
    reached = number(side["margin"], side["note"] or "not finite")
    return f"{reached} (at most {number(side['bound'])})"


def _plan(found: Json, *, verbose: bool) -> Iterator[_Part]:
    plan, matched = found["plan"], found["matched_by"]
    for side, letter in (("left", "A"), ("right", "B")):
        rows = [
            (str(op[f"{side}_id"]), op["type"], op["name"], _cause(op[f"{side}_cause"]))
            for op in plan[side]
        ]
        if rows:
            shown, title = _first(rows, f"ops in fp32 in {letter} only", verbose=verbose)
            yield _Part(title, ("id", "type", "name", "cause"), shown)
    title = f"{len(plan['both'])} ops in fp32 in both, matched by {matched}"
    changed = [
        (_ids(op), op["type"], op["name"], _cause(op["left_cause"]), _cause(op["right_cause"]))
        for op in plan["both"]
        if op["left_cause"] != op["right_cause"]
    ]
    more = f"; the cause differs for {len(changed)}" if changed else ""
    head = ("id", "type", "name", "cause in A", "in B")
    yield _Part(title + more, head, changed if verbose else changed[:_ROWS])


def _ids(op: Json) -> str:
    left, right = op["left_id"], op["right_id"]
    return str(left) if left == right else f"{left} / {right}"


def _cause(cause: str | None) -> str:
    return cause_name(cause) if cause else "-"


def _margins(found: Json, *, verbose: bool) -> _Part:
    rows = [
        (str(m["sample"]), m["output"], *(number(m[k], "not finite") for k in ("left", "right")))
        for m in found["margins"]
    ]
    if not rows:
        return _Part("the margins of all outputs that both have are equal")
    shown, title = _first(rows, "margins that differ", verbose=verbose)
    return _Part(title, ("sample", "output", "A", "B"), shown)


def _statistics(found: Json, *, verbose: bool) -> Iterator[_Part]:
    rows = [
        (_ids(s), s["type"], s["name"], s["what"], number(s["left"]), number(s["right"]))
        for s in found["statistics"]
    ]
    if rows:
        shown, title = _first(rows, "statistics that differ", verbose=verbose)
        yield _Part(title, ("id", "type", "name", "what", "A", "B"), shown)


_Rows = Sequence[tuple[str, ...]]


def _first(rows: _Rows, title: str, *, verbose: bool) -> tuple[_Rows, str]:
    if verbose or len(rows) <= _ROWS:
        return rows, f"{title}: {len(rows)}"
    return rows[:_ROWS], f"{title}: {len(rows)}, {_ROWS} shown (-v shows all)"


def _value(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
