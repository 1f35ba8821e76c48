"""``topsideas onnx verify``: a plan that was found elsewhere, judged on this engine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from topsideas.cli.low_format import add_low_format
from topsideas.cli.subcommand import add_engine_python, add_subcommand
from topsideas.engines.registry import AUTO, ENGINES

_DESCRIPTION = """\
A plan holds for the model and the engine version that it was found with. This
judges one on another engine or version, on all samples, and says how it differs
from what its report tells.
"""


def register(commands: Any) -> None:
    """Add the command to a target's commands."""
    parser = add_subcommand(
        commands,
        "verify",
        module=__name__,
        summary="judge a plan of a report on this engine",
        description=_DESCRIPTION,
    )
    add = parser.add_argument
    add("--input_onnx", required=True, metavar="PATH", help="the fp32 model")
    add("--plan", required=True, metavar="PATH", help="a report, or a file of op ids or names")
    add("--sample_dir", required=True, metavar="DIR", help="folder of samples")
    add("--engine", default=AUTO, choices=(AUTO, *ENGINES), help="what judges (default: auto)")
    add("--compile_options", default="{}", metavar="JSON", help="the engine's options")
    add("--device", type=int, default=0, metavar="ID", help="device id (default: 0)")
    told = {"of_precision": "the report's, else fp16", "of_overflow": "what the engine does"}
    add_low_format(parser, **told)
    add("--rtol", type=float, metavar="X", help="default: the report's, or 1e-2")
    add("--atol", type=float, metavar="X", help="default: the report's, or 1e-2")
    add("--margin", type=float, metavar="M", help="default: the report's, or 1.0")
    add("--output_json", metavar="PATH", help="write the verdicts here")
    add(
        "--other_model",
        action="store_true",
        help="judge a plan of another model, whose ops must have the same ids (default: an error)",
    )
    add("--isolate", action="store_true", help="run the engine in a child process")
    add_engine_python(parser, " (implies --isolate)")


def run(args: argparse.Namespace, words: Sequence[str]) -> int:
    """Judge the plan; 0 if every sample passes, 1 if not.

    Args:
        args: Parsed arguments.
        words: The command line as typed.

    Raises:
        TopsideasError: Anything wrong with usage, input or engine.
    """
    from topsideas.cli.verification import verify

    return verify(args)
