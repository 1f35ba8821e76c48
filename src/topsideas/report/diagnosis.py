"""What ``topsideas doctor`` found, on a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from topsideas.report.output import standard_output
from topsideas.report.text import printable

Json = dict[str, Any]

_STYLES = {"pass": "green", "fail": "bold red", "n/a": "dim"}


def show_engines(found: list[Json]) -> None:
    """A row per engine, then what each lacks."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("engine", "version", "device", "fp16", "bf16", "conformance"):
        table.add_column(heading, overflow="fold")
    for engine in found:
        probe = engine["probe"]
        cells = [engine["name"], probe["version"] or "-", probe["device"] or "-"]
        cells += [_is_real(probe, "fp16"), _is_real(probe, "bf16"), _conformance(engine)]
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console = standard_output()
    console.print(table)
    console.print()
    for engine in found:
        for line in _lines(engine):
            console.print(Text(printable(f"{engine['name']}: {line}")))


def show_checks(engine: Json) -> None:
    """A row per check of one engine."""
    show_engines([engine])
    if not engine["checks"]:
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("check", "result", "what it asks", "why"):
        table.add_column(heading, overflow="fold")
    for check in engine["checks"]:
        table.add_row(
            check["name"],
            Text(check["result"], style=_STYLES[check["result"]]),
            Text(check["what"]),
            Text(printable(check["why"])),
        )
    console = standard_output()
    console.print()
    console.print(table)


def _is_real(probe: Json, precision: str) -> str:
    if probe["remedy"] or not probe["version"]:
        return "-"
    if probe["low"].get(precision, "unknown"):
        return "no"
    return "emulated" if probe["evidence"] == "emulated" else "real"


def _conformance(engine: Json) -> str:
    results = [check["result"] for check in engine["checks"]]
    if not results:
        return "not run"
    failed = results.count("fail")
    if failed:
        return f"FAIL: {failed} of {len(results)} checks"
    return f"pass, {results.count('pass')} of {len(results)} checks apply"


def _lines(engine: Json) -> list[str]:
    probe = engine["probe"]
    if probe["remedy"]:
        return [probe["remedy"]]
    lines = list(dict.fromkeys(reason for reason in probe["low"].values() if reason))
    return lines + [f"{c['name']}: {c['why']}" for c in engine["checks"] if c["result"] == "fail"]
