"""``topsideas doctor``: every engine, what it is here, and whether it does what it must."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from topsideas.cli.subcommand import add_engine_python, add_subcommand
from topsideas.engines.registry import ENGINES

_DESCRIPTION = """\
Says of every engine which version it is, what it computes on, whether its fp16
and bf16 are real, and runs the conformance suite on those that can run here,
each in a process of its own. --full NAME shows every check of one engine.
"""
_SECONDS = 600.0


def register(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    parser = add_subcommand(
        commands,
        "doctor",
        module=__name__,
        summary="which engines there are, what they are here, and whether they conform",
        description=_DESCRIPTION,
    )
    parser.add_argument(
        "--full", choices=tuple(ENGINES), metavar="NAME", help="every check of one engine"
    )
    parser.add_argument(
        "--compile_options",
        default="{}",
        metavar="JSON",
        help="options of the engine that --full names, JSON text or @file.json",
    )
    parser.add_argument(
        "--device", type=int, default=0, metavar="ID", help="device id (default: 0)"
    )
    add_engine_python(parser)


def run(args: argparse.Namespace, words: Sequence[str]) -> int:
    """Print the findings; 1 if an engine that runs here does not conform.

    Args:
        args: Parsed arguments.
        words: The command line as typed.

    Raises:
        UsageError: The compile options are no JSON object.
    """
    from topsideas.cli.options import compile_options
    from topsideas.report.diagnosis import show_checks, show_engines

    options = compile_options(args.compile_options)
    if args.full:
        found = _diagnosis(args.full, options, args.device, args.engine_python)
        show_checks(found)
        return 1 if _is_bad(found) else 0
    everything = [_diagnosis(name, {}, args.device, args.engine_python) for name in ENGINES]
    show_engines(everything)
    return 1 if any(_is_bad(found) for found in everything) else 0


def _is_bad(found: dict[str, Any]) -> bool:
    return any(check["result"] == "fail" for check in found["checks"])


def _diagnosis(
    name: str, options: dict[str, Any], device: int, python: str | None
) -> dict[str, Any]:
    """What the suite says, from a process that an engine may crash."""
    from topsideas.cli.asking import ask
    from topsideas.errors import EngineError

    asked = {"name": name, "compile_options": options, "device": device}
    try:
        return ask("topsideas.testing.diagnosis", asked, _SECONDS, python)
    except EngineError as error:
        return _dead(name, str(error))


def _dead(name: str, why: str) -> dict[str, Any]:
    check = {"name": "the suite", "result": "fail", "why": why, "what": "runs to its end"}
    probe = {"version": "", "device": "", "evidence": "", "low": {}, "remedy": ""}
    return {"name": name, "probe": probe, "checks": [check]}
