"""Runs one command under a limit and measures it: ``python -m benchmarks.supervise``.

It is a process of its own, and a small one. The kernel counts the peak memory of a child from the
process it was forked off, so a large parent would be found in every child's figure. What it prints
is one line of JSON: exit code (null: stopped at the limit), seconds, and the peak resident memory
of the largest process among the command and its children.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

# Every library that starts threads of its own reads one of these.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def supervise(command: list[str], limit: float, threads: int, log: Path) -> dict[str, Any]:
    """Run a command on ``threads`` cores; see the module."""
    _pin(threads)
    env = os.environ | dict.fromkeys(_THREADS, str(threads))
    started = time.perf_counter()
    with log.open("wb") as out:
        code = _wait(command, limit, stdout=out, stderr=subprocess.STDOUT, env=env)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"exit": code, "seconds": round(seconds, 3), "peak_mb": round(peak)}


def _pin(threads: int) -> None:
    """Bind this process and its children to so many cores, whatever pools they open."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def _wait(command: list[str], limit: float, **options: Any) -> int | None:
    """The exit code; null at the limit. The child never outlives this process."""
    with subprocess.Popen(command, start_new_session=True, **options) as child:

        def stop(*_: object) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

        # A session of its own does not see Ctrl-C; this process has no time to wait for it.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        try:
            return child.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            stop()


def main() -> None:
    """Supervise what stands on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("command", nargs="+")
    words = parser.parse_args()
    print(json.dumps(supervise(words.command, words.limit, words.threads, words.log)))


if __name__ == "__main__":
    main()
