"""The emulator against an engine that measures: margins, single ops, answers, builds, latency.

``python -m benchmarks.engines`` prints Markdown tables and writes them to a file. On a machine
whose device does not compute in fp16 it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topsideas.calibration.journal import MemoryStore
from topsideas.calibration.problem import make_problem, read_samples
from topsideas.calibration.progress import Silent
from topsideas.calibration.settings import Settings
from topsideas.engines.base import Engine, Latency
from topsideas.engines.options import EngineOptions, Isolation
from topsideas.engines.registry import open_engine
from topsideas.errors import TopsideasError
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import FP16, Numerics
from topsideas.samples.npz import scan_folder
from topsideas.samples.signature import signature_of
from topsideas.search.oracle import Budget
from topsideas.stats.criteria import Tolerance
from topsideas.testing.planted import parse

NOT_MEASURED = "not measured: no FP16 here"
_MODELS = Path(__file__).resolve().parents[2] / "shared" / "models"
_REPEATS = 30
_NEGATE = "g (float[N] x) => (float[N] y) { y = Neg (x) }"

Opener = Callable[[Model], Engine]


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        model: Its name.
        low: All low: margins emulated and measured.
        plan: The emulator's minimal plan: size, margins emulated and measured.
        proposed: Size, measured margin and builds of the verified answer.
        direct: Size and evaluations of a search on the engine; None if it was not asked for.
        latency: Milliseconds of fp32, all low and the answer; None where not measured.
        note: Why something is missing.
    """

    model: str
    low: tuple[float, float] = (math.nan, math.nan)
    plan: tuple[int, float, float] = (0, math.nan, math.nan)
    proposed: tuple[int, float, int] = (0, math.nan, 0)
    direct: tuple[int, int] | None = None
    latency: tuple[float, float, float] | None = None
    note: str = ""


def measured(
    name: str,
    model: Model,
    samples: Path,
    opener: Opener,
    tolerance: float,
    direct: float,
    repeats: int = _REPEATS,
) -> Row:
    """One model's row.

    Args:
        name: The model's name.
        model: The model.
        samples: Its samples.
        opener: Opens the engine.
        tolerance: Both rtol and atol.
        direct: Seconds for a search on the engine itself; 0 for none.
        repeats: Runs that a latency is the median of; 0 for none.
    """
    files = scan_folder(samples, signature_of(model)).files
    digests = read_samples(files, None)
    emulator = open_engine("emulator", model, EngineOptions())

    def problem(engine: Engine, seconds: float | None = None, *, propose: bool = False) -> Any:
        settings = Settings(
            criterion=Tolerance(tolerance, tolerance), budget=Budget(None, seconds)
        )
        return make_problem(
            model,
            engine,
            FP16,
            files,
            (),
            settings,
            MemoryStore(),
            digests,
            golden=lambda: emulator.compile(PrecisionPlan(model.candidates)),
            proposer=emulator if propose else None,
            proposers=lambda habit: open_engine(
                "emulator",
                habit.applied(model),
                EngineOptions(compile_options=dict(habit.options)),
            ),
        )

    def margin(engine: Engine, plan: PrecisionPlan) -> float:
        found = problem(engine).verdict(plan).margin
        return math.inf if found is None else float(found)

    engine, none = opener(model), PrecisionPlan.of([])
    minimal = problem(emulator).search(Silent()).plan
    found = problem(engine, propose=True).search(Silent())
    alone = problem(opener(model), direct).search(Silent()) if direct else None
    builds = found.proposal.builds if found.proposal is not None else 0
    return Row(
        model=name,
        low=(margin(emulator, none), margin(engine, none)),
        plan=(len(minimal.kept), margin(emulator, minimal), margin(engine, minimal)),
        proposed=(len(found.plan.kept), float(found.after.margin or 0.0), builds),
        direct=None if alone is None else (len(alone.plan.kept), alone.evaluations),
        latency=_latency(
            engine, model, found.plan, problem(engine).references.inputs(files[0].id), repeats
        ),
        note=found.stopped,
    )


def _latency(
    engine: Engine, model: Model, plan: PrecisionPlan, feeds: Any, repeats: int
) -> tuple[float, float, float] | None:
    found = []
    for kept in (PrecisionPlan(model.candidates), PrecisionPlan.of([]), plan):
        executable = engine.compile(kept)
        able = repeats > 0 and isinstance(executable, Latency)
        seconds = executable.latency(feeds, repeats) if able else None
        if seconds is None:
            return None
        found.append(1e3 * seconds)
    return found[0], found[1], found[2]


@dataclass(frozen=True)
class Agreement:
    """One op, on the engine and emulated: cosine, the share of equal bits, the worst ulp."""

    op: str
    cosine: float
    equal: float
    ulp: float


def _ops() -> Iterator[tuple[str, Model, dict[str, np.ndarray]]]:
    generator = np.random.default_rng(0)

    def data(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
        return generator.uniform(low, high, shape).astype(np.float32)

    for kind in ("Exp", "Sigmoid", "Tanh", "Erf", "Neg", "Relu"):
        text = f"g (float[64,256] x) => (float[64,256] y) {{ y = {kind} (x) }}"
        yield kind, load_model(parse(text)), {"x": data(64, 256)}
    for kind in ("Sqrt", "Log", "Reciprocal"):
        text = f"g (float[64,256] x) => (float[64,256] y) {{ y = {kind} (x) }}"
        yield kind, load_model(parse(text)), {"x": data(64, 256, low=0.01)}
    softmax = "g (float[64,256] x) => (float[64,256] y) { y = Softmax <axis = -1> (x) }"
    yield "Softmax", load_model(parse(softmax)), {"x": data(64, 256)}
    mean = "g (float[64,256] x) => (float[64,1] y) { y = ReduceMean <axes = [1]> (x) }"
    yield "ReduceMean", load_model(parse(mean)), {"x": data(64, 256)}
    for depth in (64, 1152, 4608):
        inputs = f"float[16,{depth}] x, float[{depth},32] w"
        text = f"g ({inputs}) => (float[16,32] y) {{ y = MatMul (x, w) }}"
        feeds = {"x": data(16, depth), "w": data(depth, 32)}
        yield f"MatMul K={depth}", load_model(parse(text)), feeds
    conv = """g (float[1,32,28,28] x, float[64,32,3,3] w) => (float[1,64,26,26] y) {
        y = Conv (x, w)
    }"""
    yield "Conv 3x3", load_model(parse(conv)), {"x": data(1, 32, 28, 28), "w": data(64, 32, 3, 3)}


def agreements(opener: Opener) -> Iterator[Agreement]:
    """Single low ops on the engine and on the emulator."""
    for name, model, feeds in _ops():
        emulator = open_engine("emulator", model, EngineOptions())
        low = PrecisionPlan.of([])
        real = opener(model).compile(low).run(feeds)["y"].astype(np.float64)
        emulated = emulator.compile(low).run(feeds)["y"].astype(np.float64)
        cosine = float(
            (real * emulated).sum() / (np.linalg.norm(real) * np.linalg.norm(emulated) or 1.0)
        )
        step = np.spacing(np.abs(emulated).astype(np.float16)).astype(np.float64)
        ulp = float((np.abs(real - emulated) / step).max())
        yield Agreement(name, cosine, float((real == emulated).mean()), ulp)


def tables(rows: Sequence[Row], ops: Sequence[Agreement]) -> str:
    """Everything as Markdown."""
    headings = (
        "model | all low, emulated | all low, measured | emulated plan | emulated | measured"
    )
    lines = [
        f"| {headings} | proposed | margin | builds | direct | evaluations |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        direct = ("-", "-") if row.direct is None else tuple(map(str, row.direct))
        cells = [
            row.model,
            *map(_figure, row.low),
            str(row.plan[0]),
            *map(_figure, row.plan[1:]),
            str(row.proposed[0]),
            _figure(row.proposed[1]),
            str(row.proposed[2]),
            *direct,
        ]
        lines.append(f"| {' | '.join(cells)} |" + (f" {row.note}" if row.note else ""))
    lines += [
        "",
        _spread(rows),
        "",
        "| model | fp32 ms | all low ms | answer ms |",
        "|---|---|---|---|",
    ]
    for row in rows:
        times = ["-"] * 3 if row.latency is None else [_figure(t) for t in row.latency]
        lines.append(f"| {row.model} | {' | '.join(times)} |")
    lines += ["", "| op | cosine | equal bits | worst ulp |", "|---|---|---|---|"]
    lines += [f"| {a.op} | {a.cosine:.7f} | {a.equal:.2%} | {a.ulp:.2f} |" for a in ops]
    return "\n".join(lines) + "\n"


def _spread(rows: Sequence[Row]) -> str:
    """How well margins with all low agree: the median and the worst difference."""
    pairs = [row.low for row in rows if all(math.isfinite(m) and m > 0 for m in row.low)]
    if not pairs:
        return "no model has finite margins with all ops low"
    apart = sorted(abs(real / emulated - 1) for emulated, real in pairs)
    median, worst = apart[len(apart) // 2], apart[-1]
    return f"all-low margins differ by {median:.1%} in the median, {worst:.1%} at worst"


def _figure(value: float) -> str:
    return f"{value:.3g}"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; returns 0 also where there is nothing to measure with."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--engine", default="openvino")
    add("--compile_options", type=json.loads, default={}, metavar="JSON")
    add("--models", type=Path, default=_MODELS, metavar="DIR")
    add("--only", nargs="*", default=[], metavar="NAME")
    add("--tolerance", type=float, default=1e-2)
    add("--direct", type=float, default=0.0, metavar="SECONDS", help="search on the engine too")
    add("--repeats", type=int, default=_REPEATS, metavar="N", help="runs per latency; 0: none")
    add("--engine_python", metavar="PATH", help="runs the engine in this Python")
    add("--output", type=Path, default=Path(__file__).parent / "engines.md")
    args = parser.parse_args(argv)
    other = Isolation(python=args.engine_python) if args.engine_python else None
    options = EngineOptions(
        numerics=Numerics(), compile_options=args.compile_options, isolation=other
    )

    def opener(model: Model) -> Engine:
        return open_engine(args.engine, model, options)

    try:
        opener(load_model(parse(_NEGATE)))
    except TopsideasError as refusal:
        print(f"{NOT_MEASURED} ({refusal})")
        return 0

    text = tables(list(_rows(args, opener)), list(agreements(opener)))
    args.output.write_text(text, encoding="utf-8")
    print(text)
    return 0


def _rows(args: argparse.Namespace, opener: Opener) -> Iterator[Row]:
    for folder in sorted(p for p in args.models.iterdir() if (p / "model.onnx").is_file()):
        if args.only and folder.name not in args.only:
            continue
        try:
            model = load_model(folder / "model.onnx")
            row = measured(
                folder.name,
                model,
                folder / "samples",
                opener,
                args.tolerance,
                args.direct,
                args.repeats,
            )
        except TopsideasError as error:
            row = Row(folder.name, note=str(error)[:120])
        print(row, flush=True)
        yield row


if __name__ == "__main__":
    raise SystemExit(main())
