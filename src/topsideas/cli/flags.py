"""The flags of ``mix_precision`` by group, with defaults and help."""

from __future__ import annotations

import argparse

from topsideas.cli import workers
from topsideas.cli.low_format import OVERFLOW_OF_TARGET, add_low_format
from topsideas.cli.subcommand import add_engine_python
from topsideas.cli.values import count, memory, positive, seconds
from topsideas.engines.registry import AUTO, ENGINES


def add_groups(parser: argparse.ArgumentParser, target: str, *, listing: bool) -> None:
    """Add all of them; to list a model's ops, no samples and no workspace are needed."""
    _add_general(parser.add_argument_group("General Arguments"), listing=listing)
    _add_compile(parser.add_argument_group("Compile Arguments"), OVERFLOW_OF_TARGET[target])
    _add_run(parser.add_argument_group("Run Arguments"))
    workers.add_workers(parser.add_argument_group("Worker Arguments"))
    _add_search(parser.add_argument_group("Search Arguments"))
    _add_statistic(parser.add_argument_group("Statistic Arguments"))


def _add_general(group: argparse._ArgumentGroup, *, listing: bool) -> None:
    add = group.add_argument
    add("--manual", action="store_true", help="manual mode instead of auto mode")
    add("--input_onnx", required=True, metavar="PATH", help="the fp32 model")
    add(
        "--sample_dir",
        required=not listing,
        metavar="DIR",
        help="folder of sample{id}_inputs.npz and, for the golden "
        "outputs, sample{id}_outputs.npz; keys are the model's input and output names",
    )
    add(
        "--workspace",
        required=not listing,
        metavar="DIR",
        help="folder for intermediate results and the cache between "
        "runs; one per model and compile options",
    )
    add(
        "--clean",
        action="store_true",
        help="empty the workspace first (only what this tool wrote there)",
    )
    add("--output_json", metavar="PATH", help="write the report here")
    add("--output_html", metavar="PATH", help="write it as a page to look at, in one file")
    add(
        "--explain",
        choices=("auto", "none", "causes", "repairs"),
        default="auto",
        help="causes: trace why each op must stay in fp32; repairs: also try what is cheaper than "
        "fp32, and judge it; auto: causes in auto mode, both for a page (default: auto)",
    )
    add(
        "--fp32_nodes",
        nargs="*",
        default=[],
        metavar="OP",
        help="ops that compute in fp32: ids, "
        "names, or @file of those (a report will do). In auto mode: ops that must stay in fp32",
    )
    add("--finalize", action="store_true", help="write the model to deploy; op statistics are off")
    add(
        "--list_ops",
        action="store_true",
        help="print every op with its id, path, name, type, "
        "output shapes, and whether it is a candidate or why it is pinned; then stop",
    )
    add("--quiet", action="store_true", help="print the verdict and errors only")
    add("-v", "--verbose", action="count", default=0, help="print more: -v all ops, -vv logs")


def _add_compile(group: argparse._ArgumentGroup, overflow: str) -> None:
    add = group.add_argument
    add(
        "--engine",
        default=AUTO,
        choices=(AUTO, *ENGINES),
        help="what judges plans (default: %(default)s; see topsideas doctor)",
    )
    add(
        "--propose",
        choices=("auto", "emulator", "none"),
        default="auto",
        help="emulator: search on the emulator and verify on the engine, in few builds; none: "
        "search on the engine itself; auto: the former where builds are dear (default: auto)",
    )
    own = f"what the engine does; on the emulator {overflow} for this target"
    add_low_format(group, precision="fp16", of_overflow=own)
    add(
        "--compile_options",
        default="{}",
        metavar="JSON",
        help="the engine's compile options, "
        "JSON text or @file.json; the emulator knows subnormals: keep|flush and accumulation: "
        "fp32|low|termwise (default: {})",
    )
    add(
        "--resource_mode",
        metavar="MODE",
        help="engine compile option (1c4s, 1c12s, ...), overrides the key in --compile_options",
    )
    add(
        "--min_shapes",
        nargs="*",
        metavar="NAME:SHAPE",
        help="smallest input shapes, like input1:[1,3,224,224]",
    )
    add(
        "--max_shapes",
        nargs="*",
        metavar="NAME:SHAPE",
        help="largest input shapes, like input1:[8,3,224,224]",
    )


def _add_run(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    workers.add_device(group)
    workers.add_cluster(group)
    add(
        "--threads",
        type=positive,
        metavar="N",
        help="samples judged side by side (default: one per processor)",
    )
    add(
        "--isolate",
        action="store_true",
        help="run the engine in a child process: a crash is a verdict, and the search goes on",
    )
    add(
        "--build_timeout",
        type=seconds,
        metavar="SECONDS",
        help="a build that takes longer is a verdict too (implies --isolate)",
    )
    add(
        "--run_timeout",
        type=seconds,
        metavar="SECONDS",
        help="so is a run of one sample that takes longer (implies --isolate)",
    )
    add_engine_python(group, " (implies --isolate)")
    add(
        "--engine_memory",
        type=memory,
        metavar="SIZE",
        help="and a child process that holds more, like 8G (implies --isolate)",
    )
    add(
        "--memory_limit",
        type=memory,
        metavar="SIZE",
        help="hold at most so much of weights and intermediate tensors, like 8G or 512M, and an "
        "eighth of it of samples; what does not fit is read or computed again, results stay "
        "(default: a third of the memory)",
    )


def _add_search(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--objective",
        choices=("ops", "cost"),
        default="ops",
        help="what the answer should have little of: ops in fp32, or the time that they and the "
        "casts around them cost, estimated from shapes (default: %(default)s)",
    )
    add(
        "--pareto",
        action="store_true",
        help="also judge a few smaller and larger plans, and report margin against size and cost; "
        "with --propose emulator each is one more build",
    )
    add(
        "--max_builds",
        type=positive,
        default=4,
        metavar="N",
        help="with --propose emulator: build at most so many plans besides all low and all "
        "fp32 (default: %(default)s)",
    )
    add(
        "--max_evaluations",
        type=positive,
        metavar="N",
        help="judge at most so many plans; the best valid one is returned",
    )
    add(
        "--time_limit",
        type=seconds,
        metavar="SECONDS",
        help="search at most so long; the best valid plan is returned",
    )
    _add_rule(group)


def _add_rule(group: argparse._ArgumentGroup) -> None:
    """What makes an answer acceptable, beside the tolerance."""
    add = group.add_argument
    add(
        "--margin",
        type=float,
        default=1.0,
        metavar="M",
        help="worst share of the tolerance that "
        "the answer may use; 0.8 leaves a fifth of it to the device (default: 1.0)",
    )
    add(
        "--val_func",
        metavar="FILE.py:NAME",
        help="a function (reference, outputs) -> bool that "
        "replaces the tolerance; both are lists of arrays in the model's output order",
    )
    add(
        "--val_scope",
        choices=("sample", "dataset"),
        default="sample",
        help="call val_func per "
        "sample, or once with the lists of all samples (default: %(default)s)",
    )
    add(
        "--val_timeout",
        type=seconds,
        default=600.0,
        metavar="SECONDS",
        help="a call of val_func that takes longer ends the run (default: 600)",
    )
    add(
        "--holdout",
        type=count,
        default=0,
        metavar="K",
        help="keep the last K samples out of "
        "the search and only check its answer on them (default: 0)",
    )


def _add_statistic(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--mode",
        choices=("RAW", "CALC"),
        default="CALC",
        help="CALC: per-op ratios and NaN of "
        "both runs; RAW: element data compared between the runs (default: %(default)s)",
    )
    add("--rtol", type=float, default=1e-2, help="relative tolerance (default: 1e-2)")
    add("--atol", type=float, default=1e-2, help="absolute tolerance (default: 1e-2)")
    add(
        "--ntol",
        type=float,
        default=0.0,
        help="share of elements that may miss the tolerance, 0.01 means 1%% (default: 0)",
    )
    add(
        "--cos_sim",
        type=float,
        metavar="MIN",
        help="judge by cosine similarity of at least this instead of the tolerance",
    )
    add(
        "--le_value_thres",
        type=float,
        default=2.0**-14,
        metavar="X",
        help="CALC: count elements "
        "with |x| <= X (default: 6.103515625e-05, the smallest normal fp16)",
    )
    add(
        "--ge_value_thres",
        type=float,
        default=65504.0,
        metavar="X",
        help="CALC: count elements with |x| >= X (default: 65504, the largest fp16)",
    )
    only = group.add_mutually_exclusive_group().add_argument
    only("--op_id_filter", type=int, nargs="*", metavar="ID", help="statistics of these ids only")
    only("--op_id_bypass", type=int, nargs="*", metavar="ID", help="no statistics of these ids")
    only("--op_type_filter", nargs="*", metavar="TYPE", help="statistics of these types only")
    only("--op_type_bypass", nargs="*", metavar="TYPE", help="no statistics of these types")
