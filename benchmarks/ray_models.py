"""Real models, one process against workers on this machine: ``python -m benchmarks.ray_models``.

On a machine that others use too, seconds say little. So the processor time of all processes is
taken as it is spent, and divided by the threads that could have run just then, two at most: the
seconds that the same run takes on two processors of its own. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.environments import ROOT
from topsideas.calibration.journal import MemoryStore
from topsideas.calibration.problem import make_problem, read_samples
from topsideas.calibration.progress import Silent
from topsideas.calibration.settings import Settings
from topsideas.calibration.team import team_of
from topsideas.engines.options import EngineOptions
from topsideas.engines.registry import open_engine
from topsideas.executors.ray_pool import RayExecutor
from topsideas.graph.loading import load_model
from topsideas.precision import Numerics
from topsideas.samples.npz import scan_folder
from topsideas.samples.signature import signature_of
from topsideas.search.oracle import Budget
from topsideas.stats.criteria import Tolerance

_PROCESSORS = 2
_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Seconds between two looks, and looks between two searches for new processes.
_LOOK, _FAMILY = 0.03, 15


def search(folder: Path, threads: int, workers: int, evaluations: int | None) -> str:
    """Search once, at the default tolerance; tells what was found."""
    numerics = Numerics()
    model = load_model(next(folder.glob("*.onnx")), numerics.precision)
    samples = scan_folder(folder / "samples", signature_of(model)).files
    options = EngineOptions(numerics=numerics, threads=threads)
    engine = open_engine("emulator", model, options)
    settings = Settings(
        criterion=Tolerance(1e-2, 1e-2), threads=threads, budget=Budget(evaluations)
    )
    executor = RayExecutor(workers=workers or None)
    team = team_of(executor, "emulator", model, options, engine)
    problem = make_problem(
        model,
        engine,
        numerics.precision,
        samples,
        (),
        settings,
        MemoryStore(),
        read_samples(samples, None),
        team=team if workers else None,
    )
    found = problem.search(Silent())
    return f"{len(found.plan.kept)} ops, {found.evaluations} evaluations"


def measured(command: list[str]) -> dict[str, object]:
    """Run a command; see the module."""
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        family, before, runnable, seconds = {child.pid}, dict[int, float](), 1, 0.0
        spent: dict[int, float] = {}
        at = 0
        while child.poll() is None:
            time.sleep(_LOOK)
            if at % _FAMILY == 0:
                family = _family(child.pid)
            now, could = _look(family)
            used = sum(max(0.0, s - before.get(p, s)) for p, s in now.items())
            threads = min(_PROCESSORS, max(1.0, (runnable + could) / 2))
            seconds += used / threads if used or could else _LOOK
            spent |= now
            before, runnable, at = now, could, at + 1
        found = child.stdout.read().strip() if child.stdout else ""
    return {
        "two_processors_s": round(seconds, 1),
        "cpu_s": round(sum(spent.values()), 1),
        "wall_s": round(time.monotonic() - start, 1),
        "load": round(os.getloadavg()[0], 1),
        "found": found,
    }


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def _family(root: int) -> set[int]:
    """A process and all that came of it."""
    parents: dict[int, int] = {}
    for pid in (int(e.name) for e in Path("/proc").iterdir() if e.name.isdigit()):
        with contextlib.suppress(OSError):  # it is over
            parents[pid] = int(_stat(pid)[1])
    found: set[int] = set()
    more = {root}
    while more:
        found |= more
        more = {pid for pid, parent in parents.items() if parent in found} - found
    return found


def _look(family: set[int]) -> tuple[dict[int, float], int]:
    """The processor seconds of each, and how many threads of all could run now."""
    spent, could = dict[int, float](), 0
    for pid in family:
        with contextlib.suppress(OSError):  # it is over
            stat = _stat(pid)
            spent[pid] = (int(stat[11]) + int(stat[12])) / _PER_SECOND
            could += sum(state == "R" for state in _states(pid))
    return spent, could


def _states(pid: int) -> Iterator[str]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        yield (task / "stat").read_text().rsplit(")", 1)[1].split()[0]


def main() -> None:
    """Measure each model in each way, so many times in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help="names of folders")
    parser.add_argument("--folder", type=Path, default=ROOT.parent / "shared" / "models")
    parser.add_argument("--evaluations", type=int, help="stop after so many")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ways", nargs="+", default=["1,0", "2,0", "1,2"], help="threads,workers")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.here:
        threads, workers = map(int, args.ways[0].split(","))
        print(search(args.folder / args.models[0], threads, workers, args.evaluations))
        return
    for name in args.models * args.rounds:
        for way in args.ways:
            words = [name, "--folder", str(args.folder), "--ways", way, "--here"]
            if args.evaluations:
                words += ["--evaluations", str(args.evaluations)]
            row = measured([sys.executable, "-m", "benchmarks.ray_models", *words])
            print(json.dumps({"model": name, "threads,workers": way} | row), flush=True)


if __name__ == "__main__":
    main()
