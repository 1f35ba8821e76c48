"""Any number of workers, any timing and any mishap: one answer, one way to it, one journal."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from topsideas.calibration.journal import MemoryStore
from topsideas.calibration.result import SearchResult
from topsideas.calibration.settings import Settings, Validator
from topsideas.testing.noisy_additive import NoisyAdditive
from topsideas.testing.null_engine import Needed, NullEngine, null_search
from topsideas.testing.virtual_pool import Clock, Mishaps, VirtualExecutor

_PROBLEMS = 40 if os.environ.get("TOPSIDEAS_FULL") == "1" else 6
# What a search with so many workers must at least be faster, and the problems it is asked for.
_TARGETS = {4: 2.5, 8: 4.0, 16: 5.0}
_SIZES = [(500, k) for k in (1, 5, 20)] + ([(5000, 5)] if _PROBLEMS > 6 else [])


def _everything(found: SearchResult, store: MemoryStore) -> list[Any]:
    ledger = [(q.phase, q.items, q.verdict) for q in found.ledger]
    return [found.plan, found.witnesses, found.one_minimal, found.evaluations, ledger, vars(store)]


def _problem(seed: int) -> tuple[NullEngine, list[float], Clock]:
    chance, clock = random.Random(seed), Clock()
    count, k = chance.choice([30, 80, 200]), chance.choice([0, 1, 3, 8])
    weights = [*chance.choices([0.2, 0.5, 1.2], k=chance.choice([0, 2, 11])), 1.0]
    if seed % 2:
        margin: Any = NoisyAdditive.planted(count, max(2, k), seed=seed).margin
    else:
        margin = Needed(frozenset(chance.sample(range(count), k)))
    return NullEngine(count, margin, build=1.0, run=0.1, sleep=clock.sleep), weights, clock


@pytest.mark.parametrize("seed", range(_PROBLEMS))
def test_workers_mishaps_and_timing_change_nothing(seed: int) -> None:
    engine, weights, _ = _problem(seed)
    alone = MemoryStore()
    expected = _everything(null_search(engine, weights=weights, store=alone), alone)
    for workers in (1, 2, 5, 16):
        chance = random.Random(1000 * seed + workers)
        mishaps = Mishaps(
            seed=seed,
            death=chance.choice([0, 0.05, 0.1]),
            loss=chance.choice([0, 0.05]),
            slow=chance.choice([0, 0.05]),
            jitter=chance.choice([0, 3]),
        )
        engine, weights, clock = _problem(seed)
        store = MemoryStore()
        executor = VirtualExecutor(workers, clock, mishaps)
        found = null_search(engine, executor, weights=weights, store=store)
        assert _everything(found, store) == expected, (workers, mishaps)


@pytest.mark.parametrize(("count", "k"), _SIZES)
def test_wall_time_falls_with_workers(count: int, k: int) -> None:
    """On a simulated clock, without any overhead: the limit of the strategy."""
    seconds = {}
    for workers in (1, *_TARGETS):
        clock = Clock()
        needed = frozenset(random.Random(k).sample(range(count), k))
        engine = NullEngine(count, Needed(needed), build=1.0, sleep=clock.sleep)
        assert null_search(engine, VirtualExecutor(workers, clock)).plan.kept == needed
        seconds[workers] = clock.now
    for workers, times in _TARGETS.items():
        assert seconds[1] >= times * seconds[workers], seconds


def test_many_samples_are_shared_out_and_the_first_failure_stops_all() -> None:
    """Runs of 400 samples by 8 workers take an eighth of the time."""
    seconds = {}
    for workers in (1, 8):
        clock = Clock()
        engine = NullEngine(40, Needed(frozenset({3, 7})), 0.0, run=0.1, sleep=clock.sleep)
        weights = [0.5] * 399 + [1.0]
        found = null_search(engine, VirtualExecutor(workers, clock), weights=weights)
        assert found.plan.kept == {3, 7}
        seconds[workers] = clock.now
    assert seconds[1] >= 5 * seconds[8], seconds


def test_a_users_function_is_called_here_for_what_was_asked_and_in_that_order() -> None:
    """It may count its calls, or be unable to travel to a worker."""
    calls: list[list[float]] = []
    for executor in (None, VirtualExecutor(4, Clock()), VirtualExecutor(4, Clock())):
        seen: list[float] = []

        def close(reference: Any, outputs: Any, seen: list[float] = seen) -> bool:
            seen.append(float(outputs[0][0]))
            return bool(abs(outputs[0] - reference[0]).max() <= 1e-2)

        engine = NullEngine(40, Needed(frozenset({3, 20})))
        settings = Settings(validator=Validator(close))
        found = null_search(engine, executor, weights=[0.5, 1.0, 0.2], settings=settings)
        assert found.plan.kept == {3, 20}
        calls.append(seen)
    assert calls[0] == calls[1] == calls[2]


def test_a_second_run_asks_nothing() -> None:
    clock, store = Clock(), MemoryStore()
    engine = NullEngine(40, Needed(frozenset({3})), build=1.0, sleep=clock.sleep)
    first = null_search(engine, VirtualExecutor(4, clock), store=store)
    before = clock.now
    again = null_search(engine, VirtualExecutor(4, clock), store=store)
    assert (again.plan, again.evaluations) == (first.plan, 0)
    assert clock.now <= before + 2  # a trial, and the answer once more as without workers
