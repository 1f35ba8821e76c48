"""Flags that were given and have no effect on the run."""

from __future__ import annotations

from argparse import Namespace

from topsideas.cli.workers import devices


def unused_flags(args: Namespace, engine: str) -> list[str]:
    """A note on each group of them.

    Args:
        args: The flags of ``mix_precision``.
        engine: The engine that runs.
    """
    notes = []
    asked = {"--device": devices(args) != [0], "--cluster": args.cluster != [-1]}
    asked["--resource_mode"] = args.resource_mode is not None
    unused = [flag for flag, given in asked.items() if given]
    if engine == "emulator" and unused:
        notes.append(f"the emulator has no device: {', '.join(unused)} recorded only")
    if args.manual and (args.max_evaluations is not None or args.time_limit is not None):
        notes.append("--max_evaluations and --time_limit limit the search of auto mode only")
    if args.manual and (args.pareto or args.objective != "ops"):
        notes.append("--objective and --pareto are for the search of auto mode only")
    if args.manual and (args.ray_address or args.workers):
        notes.append("--ray_address and --workers are for the search of auto mode only")
    if not args.manual and args.mode == "RAW":
        notes.append("--mode RAW is for --manual; auto mode reports CALC statistics")
    return notes
