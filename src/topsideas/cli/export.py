"""``topsideas onnx export``: a plan that was found, written for a tool that is to run it."""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topsideas.cli.low_format import add_low_format
from topsideas.cli.subcommand import add_subcommand
from topsideas.cli.writing import add_shared, sample_inputs, target_file, tell, told, working
from topsideas.errors import UsageError
from topsideas.formats.registry import FORMATS, ONNX

if TYPE_CHECKING:
    from topsideas.calibration.delivery import Delivery
    from topsideas.calibration.plans import PlanFile

_DESCRIPTION = """\
Writes a plan, as mix_precision found it, for the tool that is to run it.
"""

_EPILOG = """\
formats:
  onnx           the mixed-precision model, strongly typed: ONNX Runtime,
                 OpenVINO, TensorRT from 10 on (--stronglyTyped)
{formats}
examples:
  the model to deploy, from the report of a search:
    topsideas onnx export --plan result.json --format onnx --output mixed.onnx
  the same plan for trtexec of TensorRT 8 to 10:
    topsideas onnx export --plan result.json --format tensorrt --output plan.txt

exit codes: 0 written, 2 bad usage or input, 3 engine failure
"""


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the command to a target's commands."""
    listed = "".join(f"  {name:<14} {f.summary}\n" for name, f in FORMATS.items())
    parser = add_subcommand(
        commands,
        "export",
        module=__name__,
        summary="write a plan for the tool that is to run it",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(formats=listed),
    )
    add = parser.add_argument
    add(
        "--plan",
        required=True,
        metavar="FILE",
        help="a report of this tool, or a file of op ids or names",
    )
    add(
        "--format",
        required=True,
        choices=(ONNX, *FORMATS),
        help="what to write, see below",
    )
    add(
        "--input_onnx",
        metavar="PATH",
        help="the fp32 model (default: the one that the report names)",
    )
    told = {"of_precision": "the report's, else fp16", "of_overflow": "the report's, else inf"}
    add_low_format(parser, what="a weight", **told)
    add("--output", metavar="PATH", help="the file to write (default: beside the plan)")
    add_shared(parser)


def run(args: Namespace, words: Sequence[str]) -> int:
    """Run the command. Raises TopsideasError."""
    from topsideas.calibration.delivery import deliver
    from topsideas.calibration.plans import read_plan

    plan = read_plan(Path(args.plan), args.input_onnx, args.precision, args.overflow)
    path = target_file(args.output or str(_beside(Path(args.plan), args.format)))
    if path.resolve() == Path(args.plan).resolve():
        raise UsageError(f"--output {path}: is the plan; expected another file")
    with working(args, f"writing {args.format}"):
        inputs = sample_inputs(plan.model, args.sample_dir)
        delivery = deliver(
            plan,
            args.format,
            path,
            low_io=args.io_precision == "low",
            fixed_weights=args.fixed_weights,
            inputs=inputs,
        )
    if not args.quiet:
        tell(_told(delivery, plan))
    return 0


def _beside(plan: Path, name: str) -> Path:
    suffix = ".mixed.onnx" if name == ONNX else FORMATS[name].suffix
    return plan.with_name(f"{plan.stem}{suffix}")


def _told(delivery: Delivery, plan: PlanFile) -> Iterator[str]:
    precision, export = plan.numerics.precision.name, delivery.export
    if export is not None and export.files == delivery.files:
        yield from told(export, plan.model, precision)
    else:
        kept = len(plan.plan.kept & plan.model.candidates)
        of = f"{kept} of {len(plan.model.candidates)} candidate ops in fp32, others in {precision}"
        yield f"{delivery.files[0]}: {of}"
        yield from (f"{file}: goes with it" for file in delivery.files[1:])
        yield from (f"check: {line}" for line in (export.checks if export else ()))
        yield from (f"note: {line}" for line in (export.warnings if export else ()))
    yield from (f"note: {line}" for line in (*delivery.notes, *plan.notes))
