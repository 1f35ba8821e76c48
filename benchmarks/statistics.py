"""What CALC and RAW cost beside one plain fp32 pass over the same samples.

Run as ``python -m benchmarks.statistics`` from the checkout. Each model is measured in a process
of its own. A round times a plain pass, CALC and RAW one after another, and ratios are taken within
a round before their median is: other work on the machine then slows both sides.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.environments import ROOT
from benchmarks.problems import Problem, find_problems
from topsideas.calibration.journal import Journal
from topsideas.calibration.manual import StatisticsRun
from topsideas.calibration.progress import Silent
from topsideas.calibration.references import References
from topsideas.engines.base import Runnable
from topsideas.engines.options import EngineOptions
from topsideas.engines.registry import open_engine
from topsideas.graph.loading import load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics, Overflow
from topsideas.samples.sample import Sample
from topsideas.stats.acceleration import fused
from topsideas.stats.calc import Thresholds
from topsideas.stats.criteria import Tolerance

_FOLDER = ROOT.parent / "shared" / "models"
_MODES = ("CALC", "RAW")
# A plain pass as users run it, and on the kernels that bit-exact statistics must use.
_PLAIN = {
    "default": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "unfused": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_THRESHOLDS = Thresholds(le=6.103515625e-05, ge=65504.0, limit=65504.0)

Row = dict[str, Any]


class _Nothing:
    """Remembers nothing, so that every run is a run."""

    def get(self, kind: str, key: str) -> None:
        return None

    def put(self, kind: str, key: str, value: object) -> None:
        pass

    get_arrays, put_arrays = get, put


def _no_fp32() -> Runnable:
    raise AssertionError("all samples have golden outputs")


class _Source:
    """A sample in memory."""

    def __init__(self, sample: Sample) -> None:
        self.id, self._sample = sample.id, sample

    def load(self) -> Sample:
        return self._sample


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", help="names of folders; all if none is given")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--overflow", choices=[o.value for o in Overflow], default="saturate")
    output = ROOT / "benchmarks" / ".work" / "statistics.json"
    parser.add_argument("--output", type=Path, default=output, help="default: %(default)s")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    problems = find_problems(args.folder, output.with_name("generated"))
    chosen = [p for p in problems if not args.models or p.name in args.models]
    if args.child:
        print(json.dumps(measure(chosen[0], args.threads, args.rounds, args.overflow)))
        return
    print(_HEAD)
    rows = []
    for problem in chosen:
        rows.append(_in_child(problem, args))
        print(_line(rows[-1]), flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _in_child(problem: Problem, args: argparse.Namespace) -> Row:
    options = ["--folder", args.folder, "--threads", args.threads, "--rounds", args.rounds]
    words = [*options, "--overflow", args.overflow, "--child", problem.name]
    command = [sys.executable, "-m", "benchmarks.statistics", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"model": problem.name, "error": done.stderr.strip().splitlines()[-1][:200]}
    row: Row = json.loads(done.stdout.splitlines()[-1])
    return row


def measure(problem: Problem, threads: int, rounds: int, overflow: str) -> Row:
    """One model; times are seconds per sample, ratios are to plain passes."""
    samples = _samples(problem.samples)
    runs: dict[str, Callable[[], None]] = {}
    for name, level in _PLAIN.items():
        runs[name] = _plain(problem.model, samples, threads, level)
        runs[name]()
    runs |= {mode: _statistics(problem.model, samples, mode, threads, overflow) for mode in _MODES}
    cold = {mode: _timed(runs[mode]) / len(samples) for mode in _MODES}
    for mode in _MODES:  # large pieces are split by what the first run showed
        runs[mode]()
    times = [
        {name: _timed(run) / len(samples) for name, run in runs.items()} for _ in range(rounds)
    ]
    return {
        "model": problem.name,
        "samples": len(samples),
        "threads": threads,
        "overflow": overflow,
        "compiled_loops": fused() is not None,
        "seconds": {name: statistics.median(t[name] for t in times) for name in runs},
        "cold_seconds": cold,
        "ratios": {
            mode: {base: statistics.median(t[mode] / t[base] for t in times) for base in _PLAIN}
            for mode in _MODES
        },
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _samples(folder: Path) -> list[Sample]:
    found = []
    for path in sorted(folder.glob("sample*_inputs.npz")):
        golden = path.with_name(path.name.replace("_inputs", "_outputs"))
        found.append(Sample(len(found), dict(np.load(path)), dict(np.load(golden))))
    return found


def _plain(
    model: Path, samples: list[Sample], threads: int, level: ort.GraphOptimizationLevel
) -> Callable[[], None]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = level
    options.log_severity_level = 4
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def run() -> None:
        for sample in samples:
            session.run(None, sample.inputs)

    return run


def _statistics(
    path: Path, samples: list[Sample], mode: str, threads: int, overflow: str
) -> Callable[[], None]:
    model = load_model(path)
    options = EngineOptions(numerics=Numerics(overflow=Overflow(overflow)), threads=threads)
    engine = open_engine("emulator", model, options)
    references = References([_Source(sample) for sample in samples], _no_fp32)
    run = StatisticsRun(
        engine,
        model.candidates,
        references,
        mode,
        _THRESHOLDS,
        Tolerance(),
        Journal(_Nothing(), {}, {}),
        _Nothing(),
        Silent(),
        threads,
    )
    return lambda: (run.run(PrecisionPlan.of([])), None)[1]


def _timed(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


_HEAD = (
    f"{'':20} {'plain, ms':>16} {'CALC':>27} {'RAW':>27} {'peak':>6}\n"
    f"{'model':20} {'default':>8}{'unfused':>8}"
    + f" {'cold ms':>8}{'warm ms':>8}{'ratios':>11}" * 2
    + f" {'MB':>6}"
)


def _line(row: Row) -> str:
    if "error" in row:
        return f"{row['model']:20} {row['error']}"
    cells = [f"{row['model']:20} "]
    cells += [f"{1e3 * row['seconds'][name]:8.2f}" for name in _PLAIN]
    for mode in _MODES:
        cells.append(f" {1e3 * row['cold_seconds'][mode]:8.1f}{1e3 * row['seconds'][mode]:8.1f}")
        cells += [f"{row['ratios'][mode][base]:5.1f}" + "/ "[i] for i, base in enumerate(_PLAIN)]
    return "".join(cells) + f"{row['peak_bytes'] / 1e6:6.0f}"


if __name__ == "__main__":
    main()
