"""``topsideas onnx report``: a report that was written, shown in another form."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from topsideas.cli.subcommand import add_subcommand

_DESCRIPTION = """\
Shows a report that mix_precision --output_json wrote. Nothing is computed.
"""

_EPILOG = """\
formats:
  text  what mix_precision prints; -v shows all ops and each cause in full
  html  a page to look at, in one file that needs no network
  md    for an issue or a wiki
  csv   one row per op, for a spreadsheet

examples:
  topsideas onnx report result.json
  topsideas onnx report result.json --format html --output result.html

exit codes: 0 shown, 2 bad usage or input
"""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to a target's commands."""
    parser = add_subcommand(
        commands,
        "report",
        module=__name__,
        summary="show a report that was written: text, page, Markdown, spreadsheet",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("report", metavar="REPORT", help="the file that --output_json named")
    add(
        "--format",
        choices=("text", "html", "md", "csv"),
        default="text",
        help="the form (default: %(default)s)",
    )
    add(
        "--output",
        metavar="PATH",
        help="write it here; without it, it is printed, and a page goes beside the report",
    )
    add("-v", "--verbose", action="store_true", help="text: all ops, and each cause in full")


def run(args: argparse.Namespace, words: Sequence[str]) -> int:
    """Show the report.

    Args:
        args: Parsed arguments.
        words: The command line as typed.

    Raises:
        UsageError: The report cannot be read, or the output not written.
    """
    from topsideas.report.reading import read_whole, whole

    source = Path(args.report)
    report = read_whole(source)
    with whole(source):
        if args.format == "text" and args.output is None:
            from topsideas.report.console import show

            show(report, verbose=args.verbose)
            return 0
        text = _rendered(args, report)
    _deliver(args, source, text)
    return 0


def _rendered(args: argparse.Namespace, report: dict[str, Any]) -> str:
    from topsideas.report.console import captured
    from topsideas.report.html.page import page
    from topsideas.report.plain import to_csv, to_markdown

    def plain(report: dict[str, Any]) -> str:
        return captured(report, verbose=args.verbose)

    forms: dict[str, Callable[[dict[str, Any]], str]] = {
        "text": plain,
        "html": page,
        "md": to_markdown,
        "csv": to_csv,
    }
    return forms[args.format](report)


def _deliver(args: argparse.Namespace, source: Path, text: str) -> None:
    from topsideas.cli.writing import tell
    from topsideas.report.files import PLAIN, check_target, write_text
    from topsideas.report.html.page import OPENING
    from topsideas.report.output import write_out

    if args.output is None and args.format != "html":
        write_out(text)
        return
    target = args.output or str(source.with_suffix(".html"))
    check_target(target, "--output", PLAIN.get(args.format, OPENING), "report in this form")
    write_text(text, Path(target))
    tell([f"{target}: written"])
