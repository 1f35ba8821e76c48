"""``topsideas onnx compare``: two reports side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topsideas.cli.subcommand import add_subcommand

_DESCRIPTION = """\
Says what differs between two reports: verdict, plan, margins, statistics, and
what the runs were set up with. For two versions of an engine, two tolerances,
two models. Ops correspond by id in the same model, by name otherwise.
"""

_EPILOG = """\
examples:
  does the plan still hold with the new engine?
    topsideas onnx compare before.json after.json
  as data, for a script:
    topsideas onnx compare before.json after.json --format json

exit codes: 0 same verdict and same plan, 1 another verdict or plan,
            2 bad usage or input
"""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to a target's commands."""
    parser = add_subcommand(
        commands,
        "compare",
        module=__name__,
        summary="what differs between two reports",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("left", metavar="A", help="a report")
    add("right", metavar="B", help="another one")
    add(
        "--format",
        choices=("text", "md", "json"),
        default="text",
        help="the form (default: %(default)s)",
    )
    add("--output", metavar="PATH", help="write it here instead of printing it")
    add("-v", "--verbose", action="store_true", help="text: all rows, not the first ones only")


def run(args: argparse.Namespace, words: Sequence[str]) -> int:
    """Compare; 0 if verdict and plan are the same, 1 if not.

    Args:
        args: Parsed arguments.
        words: The command line as typed.

    Raises:
        UsageError: A report cannot be read, or the output not written.
    """
    from topsideas.report.comparison import compare_reports
    from topsideas.report.files import COMPARISON, check_target, write_text
    from topsideas.report.output import write_out
    from topsideas.report.reading import read_whole, whole

    check_target(args.output, "--output", COMPARISON[args.format], "comparison in this form")
    paths = [Path(args.left), Path(args.right)]
    left, right = (read_whole(path) for path in paths)
    with whole(Path(f"{args.left} or {args.right}")):
        found = compare_reports(left, right)
        text = _text(args, found)
    if args.output is not None:
        write_text(text, Path(args.output))
    elif text:
        write_out(text)
    return 1 if found["differs"] else 0


def _text(args: argparse.Namespace, found: dict[str, Any]) -> str:
    """What to write; empty if it was shown on the terminal already."""
    from topsideas.report.comparison_text import comparison_markdown, show_comparison
    from topsideas.report.output import plain_console, plain_text, standard_output

    names = (args.left, args.right)
    if args.format == "json":
        return json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    if args.format == "md":
        return comparison_markdown(found, names)
    if args.output is None:
        show_comparison(standard_output(), found, names, verbose=args.verbose)
        return ""
    console = plain_console()
    show_comparison(console, found, names, verbose=args.verbose)
    return plain_text(console)
