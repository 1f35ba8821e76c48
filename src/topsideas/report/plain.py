"""The report as Markdown and as a table of ops for a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from topsideas.report.causes import cause_name
from topsideas.report.console import evaluations, headline, why
from topsideas.report.html.view import view
from topsideas.report.repairs import repair_lines
from topsideas.report.text import change, margin_of, number, printable, similarity

Json = dict[str, Any]

# What means something in Markdown, or in the HTML that it may hold: anywhere, or at the beginning
# of a line or of an item, where it would begin a list, a heading or a rule.
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&$])|^(\s*)([+\-=])|^(\s*[0-9]+)([.)])")
# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_STATES = ("pinned", "low", "fp32")
_COLUMNS = (
    ("name", "name"),
    ("path", "path"),
    ("most", "largest"),
    ("least", "smallest"),
    ("over", "overflow_share"),
    ("subnormal", "subnormal_share"),
    ("vanishing", "vanishing_share"),
    ("low_error", "all_low_error"),
    ("low_broken", "all_low_not_finite"),
    ("plan_error", "plan_error"),
    ("plan_broken", "plan_not_finite"),
    ("felt", "felt_margin"),
)


def to_markdown(report: Json) -> str:
    """The verdict, the kept ops, the outputs and how to reproduce, for an issue or a wiki."""
    options = report["options"]
    lines = [f"# {escaped(headline(report))}", ""]
    lines += [f"- {escaped(line)}" for line in _facts(report)]
    if report["fp32_ops"]:
        head = ("id", "type", "name", "cause", "why it stays in fp32")
        lines += ["", "## Ops in fp32", "", *markdown_table(head, map(_kept, report["fp32_ops"]))]
    if repairs := repair_lines(report):
        lines += ["", "## Cheaper than fp32", "", *(f"- {escaped(line)}" for line in repairs)]
    compared = ("sample", "output", "compared", "result", "margin", "cosine")
    lines += ["", "## Outputs", "", *markdown_table(compared, _outputs(report))]
    lines += ["", "## How to reproduce", "", _code(" ".join(["topsideas", *options["command"]]))]
    if report["next_command"]:
        lines += ["", f"Next, {report['next_reason']}:", "", _code(report["next_command"])]
    return "\n".join(lines) + "\n"


def _facts(report: Json) -> list[str]:
    engine, model, search = report["engine"], report["model"], report.get("search")
    computed = f"{engine['name']} {engine['version']} on {engine['device']}, {engine['evidence']}"
    found = [
        f"model: {model['path']}, sha256 {model['sha256']}",
        f"engine: {computed}; topsideas {report['topsideas_version']}",
    ]
    if search is not None:
        before = search["before"]
        margin = number(before["margin"], before["note"] or "not finite")
        minimal = "1-minimal" if search["one_minimal"] else "not shown to be minimal"
        found.append(f"search: all ops low {margin}, {evaluations(search)}, {minimal}")
        cost = report["cost"]
        found.append(f"cost: {change(cost['answer'], cost['base'])} over all ops low")
    return found + [f"note: {note}" for note in report["notes"]]


def _kept(op: Json) -> tuple[str, ...]:
    cause = op.get("cause")
    name = cause_name(cause["cause"]) if cause else "-"
    text = f"{cause['text']}; " if cause else ""
    return str(op["id"]), op["type"], op["name"] or op["path"], name, text + why(op)


def _outputs(report: Json) -> list[tuple[str, ...]]:
    return [
        (
            str(sample),
            name,
            pair.replace("_", " vs "),
            found["result"],
            margin_of(found),
            similarity(found["cos_sim_value"]),
        )
        for sample, comparisons in zip(report["samples"], report["model_outputs"], strict=True)
        for name, pairs in comparisons.items()
        for pair, found in pairs.items()
    ]


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table of texts that may hold anything."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(map(escaped, row)) + " |" for row in rows]


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return _SPECIAL.sub(_backslashed, printable(text))


def _backslashed(found: re.Match[str]) -> str:
    anywhere, blank, sign, number, end = (group or "" for group in found.groups())
    return f"{blank}{number}\\{anywhere}{sign}{end}"


def _code(text: str) -> str:
    """A fenced block, with a fence that the text does not hold."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{printable(text)}\n{fence}"


def to_csv(report: Json) -> str:
    """One row per op, all of them. Shares are from 0 to 1; what was not measured is empty."""
    shown = view(report)
    ops = shown["ops"]
    causes = {op["id"]: op["cause"]["kind"] for op in shown["kept"] if op["cause"]}
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["id", "type", "runs_in", "cause", *(heading for _, heading in _COLUMNS)])
    for index, number_of in enumerate(ops.get("id", ())):
        row = [number_of, ops["types"][ops["type"][index]], _STATES[ops["state"][index]]]
        row += [causes.get(number_of, ""), *(ops[key][index] for key, _ in _COLUMNS)]
        writer.writerow([_cell(value) for value in row])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    shown = printable(value)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
