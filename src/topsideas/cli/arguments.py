"""All commands and their flags. Imports nothing heavy: ``--help`` is instant."""

from __future__ import annotations

import argparse
from typing import NoReturn

from rich_argparse import RawDescriptionRichHelpFormatter

from topsideas import __version__
from topsideas.cli import compare, convert, doctor, export, probe, report, verify
from topsideas.cli.completion import add_completion
from topsideas.cli.flags import add_groups
from topsideas.cli.subcommand import add_subcommand

_DESCRIPTION = """\
Finds which ops must compute in fp32 so that the outputs are acceptable.
Auto mode (the default) searches; --manual compares an fp32 run with a
low-precision run op by op and leaves the choice to you.
"""

_EPILOG = """\
examples:
  find the ops that must stay fp32, then write the model to deploy:
    topsideas {target} mix_precision --input_onnx m.onnx --sample_dir samples \\
        --workspace ws --output_json result.json --finalize
  look for yourself, step by step:
    topsideas {target} mix_precision --manual --input_onnx m.onnx \\
        --sample_dir samples --workspace ws --mode CALC --fp32_nodes 62 63

exit codes: 0 accuracy reached, 1 not reached, 2 bad usage or input,
            3 engine failure, 4 a bug of this tool,
            130 interrupted (the best plan so far is kept)
"""

_TARGETS = {
    "gcu": "Enflame GCU: values beyond the fp16 range saturate",
    "onnx": "any ONNX target: values beyond the fp16 range become infinite (IEEE)",
}

# What each target has besides mix_precision.
_COMMANDS = {
    "gcu": (probe, report, compare),
    "onnx": (convert, export, verify, report, compare),
}


class _Parser(argparse.ArgumentParser):
    """Answers a mistake with one line, not with a page of usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def build_parser(*, listing: bool = False) -> argparse.ArgumentParser:
    """The parser of ``topsideas``; to list a model's ops, it needs no samples and workspace."""
    parser = _Parser(
        prog="topsideas",
        description="Finds the ops of an ONNX model that must stay in fp32, shows the\n"
        "evidence, and writes the verified mixed-precision model.",
        formatter_class=RawDescriptionRichHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"topsideas {__version__}")
    targets = parser.add_subparsers(dest="target", required=True, metavar="TARGET")
    for target, summary in _TARGETS.items():
        commands = targets.add_parser(
            target, help=summary, description=summary, formatter_class=parser.formatter_class
        ).add_subparsers(dest="command", required=True, metavar="COMMAND")
        _add_mix_precision(commands, target, listing=listing)
        for command in _COMMANDS[target]:
            command.register(commands)
    doctor.register(targets)
    add_completion(targets, parser)
    return parser


def _add_mix_precision(
    commands: argparse._SubParsersAction[_Parser],
    target: str,
    *,
    listing: bool,
) -> None:
    parser = add_subcommand(
        commands,
        "mix_precision",
        module="topsideas.cli.mix_precision",
        summary="find, check and deploy the ops that must compute in fp32",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(target=target),
    )
    add_groups(parser, target, listing=listing)
