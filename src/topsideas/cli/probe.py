"""``topsideas gcu probe``: writes down what the installed TopsInference offers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topsideas.cli.subcommand import add_engine_python, add_subcommand
from topsideas.cli.workers import add_cluster

_DESCRIPTION = """\
Imports the vendor's TopsInference module in a process of its own, builds a tiny
model with it, and writes down its version, names, argument styles and what a
build leaves behind. What public documents do not say, an SDK profile must; this
file tells which of its fields can be filled.
"""
_SECONDS = 900.0


def register(commands: Any) -> None:
    """Add the command to a target's commands."""
    parser = add_subcommand(
        commands,
        "probe",
        module=__name__,
        summary="write down what the installed TopsInference offers",
        description=_DESCRIPTION,
    )
    parser.add_argument("--output_json", required=True, metavar="PATH", help="write it here")
    parser.add_argument("--sdk_profile", metavar="PATH", help="an SDK profile to start from")
    parser.add_argument("--device", type=int, default=0, metavar="ID", help="card id (default: 0)")
    add_cluster(parser)
    add_engine_python(parser)


def run(args: argparse.Namespace, words: Sequence[str]) -> int:
    """Write the file and print its short form; 3 if the SDK is not here.

    Args:
        args: Parsed arguments.
        words: The command line as typed.

    Raises:
        UsageError: The file cannot be written.
        EngineError: The SDK cannot be imported, or crashes when it is.
    """
    from topsideas.cli.asking import ask
    from topsideas.errors import EngineError
    from topsideas.report.files import PROBE, check_target, write_json
    from topsideas.report.output import standard_output

    check_target(args.output_json, opening=PROBE, what="findings of a probe")
    asked = {"sdk_profile": args.sdk_profile, "device": args.device, "cluster": args.cluster}
    found = ask("topsideas.engines.topsinference.offers", asked, _SECONDS, args.engine_python)
    if "error" in found:
        raise EngineError(found["error"])
    write_json(found, Path(args.output_json))
    console = standard_output()
    console.print(f"TopsInference {found['version']}")
    for step, result in found["steps"].items():
        console.print(f"  {step}: {result}", markup=False)
    console.print(f"written: {args.output_json}", markup=False)
    return 0
