"""``topsideas onnx convert``: the mixed-precision model of ops that the user names."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from topsideas.cli.low_format import add_low_format
from topsideas.cli.subcommand import add_subcommand
from topsideas.cli.writing import add_shared, sample_inputs, target_file, tell, told, working

_DESCRIPTION = """\
Writes the mixed-precision model of a choice of ops that you made: those named
compute in fp32, all others that can run in the low precision do. Nothing is
searched and no samples are needed. What is written has passed the full ONNX
check, opens in ONNX Runtime, and equals the emulation of the plan bit for bit.
"""

_EPILOG = """\
examples:
  keep two ops in fp32, and all softmaxes:
    topsideas onnx convert --input_onnx m.onnx --fp32_nodes 62 /head/Mul \\
        --fp32_types Softmax --output mixed.onnx
  all ops in bf16, inputs and outputs too:
    topsideas onnx convert --input_onnx m.onnx --precision bf16 \\
        --io_precision low --output mixed.onnx

exit codes: 0 written, 2 bad usage or input, 3 engine failure
"""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to a target's commands."""
    parser = add_subcommand(
        commands,
        "convert",
        module=__name__,
        summary="write the mixed-precision model of ops you name, without samples",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    add = parser.add_argument
    add("--input_onnx", required=True, metavar="PATH", help="the fp32 model")
    add(
        "--fp32_nodes",
        nargs="*",
        default=[],
        metavar="OP",
        help="ops that compute in fp32: ids, names, or @file of those (a report will do)",
    )
    add(
        "--fp32_types",
        nargs="*",
        default=[],
        metavar="TYPE",
        help="all ops of these types compute in fp32 too, like Softmax",
    )
    add_low_format(parser, precision="fp16", overflow="inf", what="a weight")
    add("--output", required=True, metavar="PATH", help="the .onnx file to write")
    add_shared(parser)


def run(args: Namespace, words: Sequence[str]) -> int:
    """Run the command. Raises TopsideasError."""
    from topsideas.calibration.export import export_model
    from topsideas.calibration.selection import select_ops, select_types
    from topsideas.graph.loading import load_model
    from topsideas.plan import PrecisionPlan
    from topsideas.precision import PRECISIONS, Numerics, Overflow

    numerics = Numerics(PRECISIONS[args.precision], Overflow(args.overflow))
    path = target_file(args.output)
    with working(args, "converting and checking"):
        model = load_model(args.input_onnx, numerics.precision)
        kept = select_ops(model, args.fp32_nodes) | select_types(model, args.fp32_types)
        inputs, low_io = sample_inputs(model, args.sample_dir), args.io_precision == "low"
        plan = PrecisionPlan(kept)
        export = export_model(
            model,
            plan,
            numerics,
            path,
            low_io=low_io,
            fixed_weights=args.fixed_weights,
            inputs=inputs,
        )
    if not args.quiet:
        tell(told(export, model, args.precision))
    return 0
