"""What one evaluation costs: a model built anew for each plan, against segments with switches.

    python -m benchmarks.designs [--models DIR] [--only NAME ...] [--output FILE]

For each model a table row: milliseconds per plan over all samples, on one thread.

- `rebuilt`: the emulated model is written and opened for the plan, then run (what peers do).
- `opened`: of that, writing and opening.
- `switched`: the segments of the switched model, nothing remembered between plans.
- `remembered`: the same with what is remembered: each plan keeps one op less than the one before.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.problems import find_problems
from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.graph.loading import load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics
from topsideas.samples import scan_folder, signature_of

_PLANS = 5
_COLUMNS = ("rebuilt", "opened", "switched", "remembered")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    args = _arguments(argv)
    rows = [_row(p.name, p.model, p.samples) for p in find_problems(args.models, args.models)]
    args.output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    table = Table("model", *(f"{c} ms" for c in _COLUMNS))
    for row in rows:
        table.add_row(row["model"], *(f"{row[c]:.1f}" for c in _COLUMNS))
    Console().print(table)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=Path("../shared/models"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/designs.json"))
    return parser.parse_args(argv)


def _row(name: str, path: Path, folder: Path) -> dict[str, Any]:
    model = load_model(path)
    feeds = [sample.inputs for sample in scan_folder(folder, signature_of(model))]
    ops = sorted(model.candidates)
    random.Random(0).shuffle(ops)
    plans = [frozenset(ops[: len(ops) // 2 - i]) for i in range(_PLANS)]
    engine = EmulatorEngine(model, Numerics(), threads=1)
    opened = [_milliseconds(lambda p=p: engine.compile(PrecisionPlan(p)).freeze()) for p in plans]
    rebuilt = [_milliseconds(lambda p=p: _run(_frozen(engine, p), feeds)) for p in plans]
    remembered = [_milliseconds(lambda p=p: _run(_shared(engine, p), feeds)) for p in plans]
    return {
        "model": name,
        "ops": len(ops),
        "rebuilt": median(rebuilt),
        "opened": median(opened),
        "switched": median(_milliseconds(lambda p=p: _forgetful(engine, p, feeds)) for p in plans),
        "remembered": median(remembered[1:]),
    }


def _frozen(engine: EmulatorEngine, kept: frozenset[int]) -> Any:
    return engine.compile(PrecisionPlan(kept)).freeze()


def _shared(engine: EmulatorEngine, kept: frozenset[int]) -> Any:
    return engine.compile(PrecisionPlan(kept))


def _forgetful(engine: EmulatorEngine, kept: frozenset[int], feeds: list[Any]) -> None:
    engine.forget()
    _run(_shared(engine, kept), feeds)


def _run(runnable: Any, feeds: list[Any]) -> None:
    for inputs in feeds:
        runnable.run(inputs)


def _milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    main()
