"""What no search can do without: judging its answer and showing that each op in it is needed.

    python -m benchmarks.proof [--models DIR] [--only NAME ...] [--tolerance T] [--threads N]

For each model a table row: the answer's size, the evaluations and seconds that it took to find,
and the seconds of its proof alone, by the same engine, opened anew: all ops low and all in fp32
on all samples, the answer on all samples in both executions, and the answer without each of
its ops on samples until one fails. Nothing is ranked and nothing is asked in vain.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from rich.console import Console
from rich.table import Table

from benchmarks.job import Job
from benchmarks.library import problem_of
from benchmarks.problems import find_problems
from topsideas.calibration.judge import Judge
from topsideas.calibration.problem import Problem
from topsideas.calibration.progress import Silent
from topsideas.graph.loading import load_model


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    args = _arguments(argv)
    found = find_problems(args.models, args.models)
    rows = [
        _row(p.name, Job(str(p.model), str(p.samples), args.tolerance, args.threads, 0.0, ""))
        for p in found
        if not args.only or p.name in args.only
    ]
    if args.output:
        args.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    table = Table("model", "ops", "evaluations", "search, s", "proof, s", "proof / search")
    for row in rows:
        figures = (row["search"], row["proof"], row["proof"] / row["search"])
        table.add_row(
            row["model"], str(row["ops"]), str(row["evaluations"]), *(f"{f:.2f}" for f in figures)
        )
    Console().print(table)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("../shared/models"))
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--tolerance", type=float, default=1e-2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    return parser.parse_args(argv)


def _row(name: str, job: Job) -> dict[str, Any]:
    start = time.perf_counter()
    result = _opened(job).search(Silent())
    searched = time.perf_counter() - start
    start = time.perf_counter()
    _prove(_opened(job), result.plan.kept)
    return {
        "model": name,
        "ops": len(result.plan.kept),
        "evaluations": result.evaluations,
        "search": searched,
        "proof": time.perf_counter() - start,
    }


def _opened(job: Job) -> Problem:
    return problem_of(load_model(onnx.load(job.model)), job)


def _prove(problem: Problem, answer: frozenset[int]) -> None:
    """Raises AssertionError where the answer is none."""
    judge = Judge(problem.engine, problem.references, problem.settings)
    low = judge.verdicts(frozenset(), judge.once(frozenset()))[0]
    assert judge.judge_control(problem.model.candidates).passed
    judge.strict = True  # what passes is judged in a second execution too
    assert judge.judge(answer).passed
    assert low.passed == (not answer)
    needless = [op for op in sorted(answer) if judge.judge(answer - {op}).passed]
    assert not needless, needless


if __name__ == "__main__":
    main()
