"""Large models: time outside inference, and peak memory, through the command line.

Run as ``python -m benchmarks.large`` from the checkout. Models are generated in a temporary
folder, one at a time, and deleted. Each run is a process of its own, in which every session's
runs are timed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import onnxruntime as ort

from benchmarks import generated
from benchmarks.environments import ROOT

_WORK = ROOT / "benchmarks" / ".work"
_RUNS = {"auto": [], "CALC": ["--manual", "--mode", "CALC"], "RAW": ["--manual", "--mode", "RAW"]}

Row = dict[str, Any]


@dataclass
class Clock:
    """Time in sessions: wall time while any of them runs, and processor time of all."""

    runs: int = 0
    sessions: int = 0
    running: float = 0.0
    processor: float = 0.0
    opening: float = 0.0
    _active: int = 0
    _since: float = 0.0

    def __post_init__(self) -> None:
        self._lock = Lock()

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """Around one run of a session, which computes on the thread that calls it."""
        with self._lock:
            if not self._active:
                self._since = time.perf_counter()
            self._active += 1
            self.runs += 1
        start = time.thread_time()
        try:
            yield
        finally:
            spent = time.thread_time() - start
            with self._lock:
                self.processor += spent
                self._active -= 1
                if not self._active:
                    self.running += time.perf_counter() - self._since

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Around the opening of a session."""
        start = time.thread_time()
        try:
            yield
        finally:
            with self._lock:
                self.sessions += 1
                self.opening += time.thread_time() - start


def watched() -> Clock:
    """Time all sessions of this process from now on."""
    clock, session = Clock(), ort.InferenceSession

    class Watched(session):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            with clock.open():
                super().__init__(*args, **kwargs)

        def run(self, *args: Any, **kwargs: Any) -> Any:
            with clock.run():
                return super().run(*args, **kwargs)

    ort.InferenceSession = Watched
    return clock


def measure(words: list[str]) -> Row:
    """Run a command line in this process; what it took, in seconds and bytes."""
    clock = watched()
    from topsideas.cli import main as topsideas

    started, spent = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        code = topsideas(words)
    wall, processor = time.perf_counter() - started, time.process_time() - spent
    return {
        "exit_code": code,
        "seconds": wall,
        "seconds_outside": wall - clock.running,
        "processor_seconds": processor,
        "processor_seconds_outside": processor - clock.processor,
        "processor_seconds_opening": clock.opening,
        "sessions": clock.sessions,
        "runs": clock.runs,
        "peak_bytes": _peak(),
    }


def _peak() -> int:
    """The most that was resident since this program began: a fork's own peak is not in it."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ops", type=int, nargs="*", default=[1000, 3000, 10000], metavar="N")
    parser.add_argument("--weights", type=float, nargs="*", default=[4.0], metavar="GB")
    parser.add_argument("--runs", nargs="+", choices=_RUNS, default=list(_RUNS))
    parser.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--memory_limit", help="passed on")
    output = _WORK / "large.json"
    parser.add_argument("--output", type=Path, default=output, help="default: %(default)s")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.child:
        print("\n" + json.dumps(measure(args.child)))
        return
    rows = []
    print(_HEAD)
    for row in _rows(args):
        rows.append(row)
        print(_line(row), flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _rows(args: argparse.Namespace) -> Iterator[Row]:
    for ops in args.ops:
        with tempfile.TemporaryDirectory() as folder:
            planted = generated.deep(Path(folder), ops)
            yield from _measured(f"{ops} ops", Path(folder), planted, args)
    for size in args.weights:
        with tempfile.TemporaryDirectory() as folder:
            planted = generated.heavy(Path(folder), int(size * 1e9))
            yield from _measured(f"{size:g} GB of weights", Path(folder), planted, args)


def _measured(
    name: str, folder: Path, planted: list[str], args: argparse.Namespace
) -> Iterator[Row]:
    for run in args.runs:
        report = folder / "report.json"
        words = ["gcu", "mix_precision", "--input_onnx", folder / "model.onnx", "--quiet"]
        words += ["--sample_dir", folder, "--workspace", folder / "workspace", "--clean"]
        words += ["--output_json", report, "--threads", args.threads, *_RUNS[run]]
        words += ["--memory_limit", args.memory_limit] if args.memory_limit else []
        command = [sys.executable, "-m", "benchmarks.large", "--child", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        if done.returncode or not report.exists():
            said = done.stderr.strip().splitlines() or ["no report"]
            yield {"model": name, "run": run, "error": said[-1][:200]}
            continue
        row = {"model": name, "run": run, "threads": args.threads}
        row |= json.loads(done.stdout.splitlines()[-1])
        found = json.loads(report.read_text(encoding="utf-8"))
        yield row | _found(found, planted)


def _found(report: Row, planted: list[str]) -> Row:
    kept = {op["name"] for op in report["fp32_ops"]}
    search = report.get("search") or {}
    return {
        "kept": len(kept),
        "missing": sorted(set(planted) - kept),
        "evaluations": search.get("evaluations"),
    }


_HEAD = (
    f"{'model':20}{'run':6}{'seconds':>9}{'outside':>9}{'cpu s':>9}{'outside':>9}{'opening':>9}"
    f"{'sessions':>9}{'runs':>8}{'peak MB':>9}  answer"
)


def _line(row: Row) -> str:
    start = f"{row['model']:20}{row['run']:6}"
    if "error" in row:
        return start + row["error"]
    cpu = row["processor_seconds"]
    return (
        f"{start}{row['seconds']:9.1f}{row['seconds_outside'] / row['seconds']:9.1%}{cpu:9.1f}"
        f"{row['processor_seconds_outside'] / cpu:9.1%}"
        f"{row['processor_seconds_opening'] / cpu:9.1%}{row['sessions']:9}{row['runs']:8}"
        f"{row['peak_bytes'] / 1e6:9.0f}  {row['kept']} kept, {row['evaluations']} evaluations"
    )


if __name__ == "__main__":
    main()
