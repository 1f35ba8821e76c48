"""Rows as a Markdown table, put between two marks of ``benchmarks/README.md``."""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.results import Row

README = Path(__file__).with_name("README.md")
RESULTS = README.with_name("results.json")
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"

_HEADER = (
    "model", "tool", "ops in fp32", "evaluations", "seconds", "fp32 passes", "peak MB",
    "plan", "file", "real fp16", "remark",
)  # fmt: skip
_PAIRS = ("onnxconverter", "autocast", "reference")


def target(output: Path) -> Path:
    """Where the tables of a run go: into the README, or beside a file of the user's own."""
    return README if output.resolve() == RESULTS else output.with_suffix(".md")


def render(*sources: Path, target: Path = README) -> None:
    """Merge result files and write their tables between the marks of a Markdown file."""
    rows = results.merged(*(results.read(source) for source in sources))
    text = target.read_text(encoding="utf-8") if target.exists() else ""
    target.write_text(placed(text, tables(rows)), encoding="utf-8")


def placed(text: str, content: str) -> str:
    """The text with new content between its marks; at its end if it has none."""
    before, mark, rest = text.partition(BEGIN)
    after = rest.partition(END)[2] if mark else "\n"
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def tables(rows: Sequence[Row]) -> str:
    """All tables, one group per tolerance."""
    groups: dict[float, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["tolerance"]].append(row)
    parts = [part for t in sorted(groups) for part in _group(t, groups[t])]
    return "\n\n".join(parts) if parts else "Nothing measured yet."


def _group(tolerance: float, rows: list[Row]) -> list[str]:
    return [
        f"### Tolerance {tolerance:g}",
        overview(rows),
        *_ratios(rows),
        _markdown(_HEADER, [cells(row) for row in rows]),
        origins(rows),
    ]


def cells(row: Row) -> list[str]:
    """One row of the long table."""
    answered = row["status"] == "answered"
    return [
        row["model"],
        row["tool"],
        _size(row) if answered else "–",
        _figure(row.get("evaluations")),
        _figure(row.get("seconds")),
        _figure(_passes(row)),
        _figure(row.get("peak_mb")),
        *(_margin(row.get(check)) if answered else "–" for check in ("plan", "file", "fp16")),
        _escaped(row.get("remark", "") if answered else row["status"]),
    ]


def line(row: Row) -> str:
    """One row as the console shows it while measuring."""
    model, tool, *figures = cells(row)
    named = (f"{name} {cell}" for name, cell in zip(_HEADER[2:], figures, strict=True))
    return f"{model:20} {tool:14} {', '.join(n for n in named if not n.endswith(' –'))}"


def overview(rows: Iterable[Row]) -> str:
    """How many answers each tool gave, and how many of them are right."""
    tools: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        tools[row["tool"]].append(row)
    header = ("tool", "models", "answers", "plan passes", "file passes", "real fp16 passes",
              "median seconds", "median fp32 passes")  # fmt: skip
    return _markdown(header, [_overview(name, tools[name]) for name in tools])


def _overview(name: str, rows: list[Row]) -> list[str]:
    answers = [row for row in rows if row["status"] == "answered"]
    checks = [_passing(answers, check) for check in ("plan", "file", "fp16")]
    seconds = [row["seconds"] for row in answers]
    passes = [p for row in answers if (p := _passes(row)) is not None]
    medians = [_figure(_median(values)) for values in (seconds, passes)]
    return [name, str(len(rows)), str(len(answers)), *checks, *medians]


def _passing(answers: list[Row], check: str) -> str:
    judged = [row[check] for row in answers if "passes" in row.get(check, {})]
    return f"{sum(j['passes'] for j in judged)} of {len(judged)}" if judged else "not judged"


def _ratios(rows: list[Row]) -> list[str]:
    """Sizes and times against each other, for models that both tools answered."""
    answered = {(r["model"], r["tool"]): r for r in rows if r["status"] == "answered"}
    models = sorted({model for model, tool in answered if tool == "topsideas"})
    if not models:
        return []
    table = [[m, *(_ratio(answered, m, peer) for peer in _PAIRS)] for m in models]
    medians = [_median([float(line[i]) for line in table if line[i] != "–"]) for i in (1, 2, 3)]
    header = ("model", *(f"topsideas seconds / {peer} seconds" for peer in _PAIRS))
    return [_markdown(header, [*table, ["**median**", *map(_figure, medians)]])]


def _ratio(answered: dict[tuple[str, str], Row], model: str, peer: str) -> str:
    ours, theirs = answered[model, "topsideas"], answered.get((model, peer))
    if theirs is None or not theirs["seconds"]:
        return "–"
    return _figure(ours["seconds"] / theirs["seconds"])


def origins(rows: Iterable[Row]) -> str:
    """When, how and on what the rows were measured, each said once."""
    lines = {
        f"- {row['tool']}: {row['date']}, {row.get('version', 'version unknown')}, "
        f"{row['machine']}, {row['threads']} used, limit {row['limit']:g} s: `{row['command']}`"
        for row in rows
        if row["status"] == "answered"
    }
    return "\n".join(sorted(lines))


def _passes(row: Row) -> float | None:
    seconds, one = row.get("seconds"), row.get("fp32_pass_seconds")
    return seconds / one if seconds is not None and one else None


def _size(row: Row) -> str:
    if row.get("size") is None:
        return "?"
    lost = f" + {row['lost']} not found" if row.get("lost") else ""
    return f"{row['size']}{lost} of {row['candidates']}"


def _margin(check: dict[str, Any] | None) -> str:
    if not check:
        return "–"
    if "passes" not in check:
        return _escaped(check["note"])
    shown = check["note"] or _figure(check["margin"])
    return f"pass {shown}" if check["passes"] else f"**fails** {shown}"


def _figure(value: float | None) -> str:
    """Three digits are more than these measurements are good for."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    """Render the result files named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.summary", description=__doc__)
    add = parser.add_argument
    add("results", nargs="*", type=Path, default=[RESULTS], help="files of benchmarks.peers")
    add(
        "--output",
        type=Path,
        default=README,
        metavar="FILE",
        help="a Markdown file with the marks",
    )
    asked = parser.parse_args()
    render(*asked.results, target=asked.output)


if __name__ == "__main__":
    main()
