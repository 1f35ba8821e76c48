"""What workers on Ray are worth: ``python -m benchmarks.ray_scaling [scaling|overhead|soak]``.

The engine computes nothing and sleeps instead, so that 16 workers fit on two processors. Answers
are planted: ``k`` needed ops of ``count``. The limit is the time that the same search takes on a
simulated clock without any overhead; of ``w`` workers no more than ``w`` times is possible.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

from topsideas.calibration.dispatch import Dispatcher
from topsideas.calibration.examiner import Examiner
from topsideas.calibration.jobs import OWN, VERDICT, Job
from topsideas.calibration.journal import MemoryStore
from topsideas.calibration.result import SearchResult
from topsideas.calibration.settings import Settings
from topsideas.executors.base import Joined, Pool, Seat, Worker
from topsideas.executors.ray_pool import RayExecutor, RayPool
from topsideas.testing.noisy_additive import NoisyAdditive
from topsideas.testing.null_engine import Needed, NullEngine, null_samples, null_search
from topsideas.testing.virtual_pool import Clock, VirtualExecutor


@dataclass
class Ready:
    """Workers on Ray that have all joined when the search begins.

    Attributes:
        workers: How many.
        seconds: How long they took to start.
        pool: The last pool.
    """

    workers: int
    seconds: float = 0.0
    pool: RayPool | None = None
    shares_files: bool = True

    def open(self, make: Callable[[Seat], Worker]) -> Pool:
        """Start the workers and wait for all of them."""
        start = time.monotonic()
        self.pool = RayExecutor("local", self.workers).open(make)
        events: list[Any] = []
        while sum(isinstance(e, Joined) for e in events) < self.workers:
            events += self.pool.wait(None)
        self.seconds = time.monotonic() - start
        waited, wait = [events], self.pool.wait
        self.pool.wait = lambda s: waited.pop() if waited else wait(s)  # type: ignore[method-assign]
        return self.pool


def planted(count: int, k: int, build: float, **options: Any) -> NullEngine:
    """An engine that needs ``k`` of ``count`` ops."""
    needed = frozenset(random.Random(k).sample(range(count), k))
    return NullEngine(count, Needed(needed), build, **options)


def limit(count: int, k: int, workers: int) -> float:
    """Builds one after the other, as far as the strategy allows."""
    clock = Clock()
    null_search(planted(count, k, 1.0, sleep=clock.sleep), VirtualExecutor(workers, clock))
    return clock.now


def way(found: SearchResult) -> list[Any]:
    """What must be the same however a search is run."""
    return [found.plan, found.witnesses, [(q.phase, q.items, q.verdict) for q in found.ledger]]


def scaling(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Wall time of one search by the number of workers."""
    rows = []
    for count in args.counts:
        for k in args.k:
            alone = way(null_search(planted(count, k, 0.0)))
            base = 0.0
            for workers in args.workers:
                ready = Ready(workers)
                start = time.monotonic()
                found = null_search(planted(count, k, args.build), ready)
                seconds = time.monotonic() - start - ready.seconds
                assert way(found) == alone
                base = base or seconds
                ideal = [limit(count, k, w) for w in (args.workers[0], workers)]
                row = {
                    "ops": count,
                    "k": k,
                    "workers": workers,
                    "build_s": args.build,
                    "start_s": round(ready.seconds, 1),
                    "search_s": round(seconds, 1),
                    "limit_s": round(ideal[1] * args.build, 1),
                    "times_less": round(base / seconds, 2),
                    "times_less_limit": round(ideal[0] / ideal[1], 2),
                    "ahead": str(found.crew),
                }
                print(json.dumps(row), flush=True)
                rows.append(row)
    return rows


def overhead(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One evaluation after the other, which takes no time in itself."""
    engine, samples = planted(500, 5, 0.0), null_samples()
    settings, candidates = Settings(), frozenset(range(500))
    plans = [candidates - {i} for i in range(500)]
    examiner = Examiner(engine, settings, candidates)
    shared = [samples[0].inputs, samples[0].golden]

    def here(job: Job) -> None:
        examiner.work(([job], False), shared, lambda: False)

    ready = Ready(1)
    dispatcher = Dispatcher(
        partial(ready.open, partial(_examiner, engine, settings, candidates)),
        lambda _: (samples[0].inputs, samples[0].golden),
    )
    jobs = [Job(VERDICT, plan, OWN, 0, 1.0) for plan in plans]
    list(dispatcher.results(jobs[:20]))
    there = statistics.median(_timed(lambda j: list(dispatcher.results([j])), jobs[20:]))
    inside = statistics.median(_timed(here, jobs[20:]))
    memory = _memory(ready)
    dispatcher.close()
    row = {
        "in_process_ms": round(1e3 * inside, 3),
        "one_worker_ms": round(1e3 * there, 3),
        "overhead_ms": round(1e3 * (there - inside), 3),
        "worker_rss_mb": memory["Rss"],
        "worker_pss_mb": memory["Pss"],
    }
    print(json.dumps(row), flush=True)
    return [row]


def _examiner(engine: NullEngine, settings: Settings, ops: frozenset[int], seat: Seat) -> Examiner:
    return Examiner(engine, settings, ops)


def _timed(call: Callable[[Job], Any], jobs: list[Job]) -> Iterator[float]:
    for job in jobs:
        start = time.perf_counter()
        call(job)
        yield time.perf_counter() - start


def _pids(ready: Ready) -> list[int]:
    """The processes of the workers that are there now."""
    pool = ready.pool
    if pool is None:
        return []
    there = set(pool._actors) - set(pool._starting.values())
    refs = [pool._actors[seat].ready.remote() for seat in there]
    done, _ = pool._ray.wait(refs, num_returns=len(refs), timeout=1) if refs else ([], [])
    return [int(pool._ray.get(ref).rsplit(" ", 1)[1]) for ref in done]


def _memory(ready: Ready) -> dict[str, float]:
    """Megabytes of a worker: resident, and its share of what is resident."""
    found: dict[str, float] = {}
    for line in Path(f"/proc/{_pids(ready)[0]}/smaps_rollup").read_text().splitlines()[1:]:
        name, size = line.split()[:2]
        found[name.rstrip(":")] = round(int(size) / 1024, 1)
    return found


@contextlib.contextmanager
def killing(ready: Ready, every: float) -> Iterator[list[int]]:
    """Kill a worker now and then, by chance."""
    over, killed, chance = Event(), list[int](), random.Random(0)

    def kill() -> None:
        while not over.wait(chance.expovariate(1 / every)):
            with contextlib.suppress(Exception):  # the worker that was chosen went first
                pid = chance.choice(_pids(ready))
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

    thread = Thread(target=kill, daemon=True)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def soak(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Searches until so many plans were judged or measured, while workers are killed."""
    judged = wrong = lost = deaths = again = 0
    start, seed = time.monotonic(), 0
    while judged < args.evaluations:
        rule = NoisyAdditive.planted(1000, 200, seed=seed)
        alone, store, reference = NullEngine(1000, rule.margin), MemoryStore(), MemoryStore()
        expected = null_search(alone, store=reference)
        ready = Ready(args.workers[-1])
        with killing(ready, args.kill_every) as killed:
            found = null_search(NullEngine(1000, rule.margin, args.build), ready, store=store)
        right, there = vars(reference)["_values"], vars(store)["_values"]
        lost += len(right.keys() - there.keys())
        wrong += sum(right.get(key) != value for key, value in there.items())
        wrong += way(found) != way(expected)
        judged += sum(kind in ("verdict", "strict", "felt") for kind, _ in there)
        seed += 1
        deaths += len(killed)
        again += found.crew.again if found.crew else 0
        print(f"{judged} plans evaluated, {deaths} workers killed", flush=True)
    row = {
        "evaluated": judged,
        "killed": deaths,
        "again": again,
        "lost": lost,
        "wrong": wrong,
        "seconds": round(time.monotonic() - start),
    }
    print(json.dumps(row), flush=True)
    return [row]


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("scaling", "overhead", "soak"))
    parser.add_argument("--build", type=float, default=1.0, help="seconds per build")
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 5000])
    parser.add_argument("--k", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--evaluations", type=int, default=2000)
    parser.add_argument("--kill_every", type=float, default=5.0, help="seconds, on average")
    parser.add_argument("--output", type=Path, help="write the rows here, as JSON")
    args = parser.parse_args()
    rows = {"scaling": scaling, "overhead": overhead, "soak": soak}[args.what](args)
    if args.output:
        args.output.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
