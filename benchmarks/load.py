"""Many samples, and many runs at once, through the command line: right answers in bounded memory.

Run as ``python -m benchmarks.load`` from the checkout. Samples and workspaces are made in a
temporary folder and deleted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx

WIDTH = 40_000
"""Elements of a sample, so that 10,000 samples are 1.6 GB, and their outputs as much."""

ANSWER = [1, 2]

_MODEL = f"""
<ir_version: 8, opset_import: ["": 17]>
squares (float[1,{WIDTH}] x) => (float[1,{WIDTH}] y) <float c = {{300}}> {{
    [scale] a = Mul(x, c) [square] s = Mul(a, a) [root] r = Sqrt(s) [unscale] y = Div(r, c) }}
"""

Row = dict[str, Any]


def write_inputs(folder: Path, count: int, width: int = WIDTH) -> None:
    """A model of which ops 1 and 2 must stay in fp32, and samples without golden outputs."""
    text = _MODEL.replace(str(WIDTH), str(width))
    onnx.save(onnx.parser.parse_model(text), folder / "model.onnx")
    (folder / "samples").mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        x = generator.uniform(0.5, 2, (1, width)).astype(np.float32)
        np.savez(folder / "samples" / f"sample{number}_inputs.npz", x=x)


def run(folder: Path, workspace: str, *more: str) -> Row:
    """Run the command; returns its answer, time and peak memory."""
    report = folder / f"{workspace}.json"
    words = ["--input_onnx", str(folder / "model.onnx"), "--sample_dir", str(folder / "samples")]
    words += ["--workspace", str(folder / workspace), "--output_json", str(report), "--quiet"]
    start = time.monotonic()
    command = [sys.executable, "-m", "topsideas", "gcu", "mix_precision", *words, *more]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    found = json.loads(report.read_text("utf-8"))
    return {
        "exit": os.waitstatus_to_exitcode(status),
        "answer": found["fp32_nodes"],
        "seconds": round(time.monotonic() - start, 1),
        "processor": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mb": usage.ru_maxrss >> 10,
        "report_mb": round(report.stat().st_size / 1e6, 1),
    }


def many_samples(counts: list[int]) -> None:
    """Peak memory by the number of samples."""
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            write_inputs(Path(name), count)
            print(count, "samples", run(Path(name), "workspace", "--memory_limit", "512M"))


def many_runs(count: int, at_once: int) -> None:
    """Runs on workspaces of their own; all must give the same answer."""
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(at_once) as pool:
        folder = Path(name)
        write_inputs(folder, 4, width=400)
        start = time.monotonic()
        rows = list(
            pool.map(lambda i: run(folder, f"workspace{i}", "--threads", "1"), range(count))
        )
    right = sum((row["exit"], row["answer"]) == (0, ANSWER) for row in rows)
    print(f"{right} of {count} runs right, {at_once} at once, {time.monotonic() - start:.0f} s")
    print("most memory of a run:", max(row["peak_mb"] for row in rows), "MB")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, nargs="*", default=[2500, 10_000])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--at_once", type=int, default=10)
    args = parser.parse_args()
    many_samples(args.samples)
    if args.runs:
        many_runs(args.runs, args.at_once)


if __name__ == "__main__":
    main()
