"""Who is given which job, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from topsideas.calibration.dispatch import Dispatcher
from topsideas.calibration.jobs import OUTPUTS, OWN, VERDICT, Answer, Job
from topsideas.calibration.pace import Pace
from topsideas.errors import EngineError
from topsideas.executors.base import Seat
from topsideas.testing.virtual_pool import Clock, Mishaps, VirtualExecutor
from topsideas.verdict import Verdict

_KEPT = frozenset({1})


class _Fails:
    """Fails some samples, and notes which were asked for."""

    def __init__(self, clock: Clock, failing: set[int], done: list[int]) -> None:
        self._clock, self._failing, self._done = clock, failing, done

    def work(self, task: Any, shared: Sequence[Any], stopped: Callable[[], bool]) -> list[Answer]:
        jobs, every = task
        answers = []
        for job in jobs:
            self._clock.sleep(0.1)
            self._done.append(job.sample)
            passed = job.sample not in self._failing
            answers.append(Answer(Verdict(passed, 0.5, job.sample), 0.1, first=False))
            if not (passed or every):
                break
        return answers


def _dispatcher(
    workers: int, failing: set[int], mishaps: Mishaps | None = None
) -> tuple[Dispatcher, list[int], Clock]:
    clock, done = Clock(), list[int]()

    def make(seat: Seat) -> _Fails:
        return _Fails(clock, failing, done)

    executor = VirtualExecutor(workers, clock, mishaps or Mishaps())
    return Dispatcher(partial(executor.open, make), lambda _: ({}, {})), done, clock


def _jobs(samples: Sequence[int], what: str = VERDICT) -> list[Job]:
    return [Job(what, _KEPT, OWN, sample, 1.0) for sample in samples]


def _fails(verdict: Verdict) -> bool:
    return not verdict.passed


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_answers_come_in_order_up_to_the_first_failure(workers: int) -> None:
    dispatcher, done, _ = _dispatcher(workers, failing={11, 30})
    found = list(dispatcher.results(_jobs(range(100)), ends=_fails))
    assert [v.sample for v in found] == list(range(12))
    assert [v.passed for v in found] == [True] * 11 + [False]
    assert len(done) < 40  # the failure reached the others


def test_without_an_end_all_are_answered() -> None:
    dispatcher, done, _ = _dispatcher(3, failing={1, 2, 50})
    found = list(dispatcher.results(_jobs(range(60))))
    assert [v.sample for v in found] == list(range(60))
    assert sorted(done) == list(range(60))


def test_what_is_known_is_not_asked_again() -> None:
    dispatcher, done, _ = _dispatcher(2, failing=set())
    first = list(dispatcher.results(_jobs([3, 4])))
    assert list(dispatcher.results(_jobs([4, 3]))) == first[::-1]
    assert sorted(done) == [3, 4]


def test_whoever_stops_iterating_stops_the_workers() -> None:
    dispatcher, done, _ = _dispatcher(2, failing=set())
    results = dispatcher.results(_jobs(range(1000)))
    next(results)
    results.close()
    asked = len(done)
    assert asked < 100
    assert [v.sample for v in dispatcher.results(_jobs([2000]))] == [2000]
    assert len(done) == asked + 1


def test_idle_workers_run_ahead_what_is_likely() -> None:
    dispatcher, _, _ = _dispatcher(4, failing=set())
    list(dispatcher.results(_jobs([0])))  # all are there, and take some time
    guessed = [Job(VERDICT, frozenset({9, at}), OWN, 0, 1.0) for at in range(9)]
    dispatcher.ahead = lambda asked: iter([[job] for job in guessed])
    list(dispatcher.results(_jobs([1])))
    dispatcher.ahead = None
    assert dispatcher.crew.ahead == 3
    list(dispatcher.results(guessed[:1]))
    assert (dispatcher.crew.used, dispatcher.crew.ahead) == (1, 2)


def test_a_straggler_is_overtaken() -> None:
    """Some tasks take up to a hundred times as long; nobody waits for them."""
    mishaps = Mishaps(seed=1, slow=0.1)
    dispatcher, _, clock = _dispatcher(4, failing=set(), mishaps=mishaps)
    for sample in range(40):
        list(dispatcher.results(_jobs([sample])))
    assert dispatcher.crew.again > 0
    alone, _, waiting = _dispatcher(1, failing=set(), mishaps=mishaps)
    for sample in range(40):
        list(alone.results(_jobs([sample])))
    assert clock.now < waiting.now


def test_a_job_that_kills_every_worker_is_given_up() -> None:
    dispatcher, _, _ = _dispatcher(2, failing=set(), mishaps=Mishaps(death=1.0))
    with pytest.raises(EngineError, match=r"8 workers died of one plan.*--isolate"):
        list(dispatcher.results(_jobs([0])))


def _tried(dispatcher: Dispatcher, what: str = OUTPUTS) -> list[str]:
    """Places whose answers were compared, as they come."""
    places: list[str] = []
    job = Job(what, _KEPT, OWN, 0, 0.0)
    dispatcher.trial = job, lambda answer, place: places.append(place)
    return places


def test_every_worker_is_tried_first_and_those_that_join_later_too() -> None:
    dispatcher, _, _ = _dispatcher(3, failing=set())
    places = _tried(dispatcher)
    list(dispatcher.results(_jobs(range(1, 9))))
    assert sorted(places) == ["worker 0", "worker 1", "worker 2"]
    dispatcher, _, _ = _dispatcher(3, failing=set(), mishaps=Mishaps(seed=3, death=0.2))
    places = _tried(dispatcher)
    list(dispatcher.results(_jobs(range(1, 200))))
    assert dispatcher.crew.lost > 0
    assert len(places) > 3


def test_a_trial_does_not_stand_for_the_same_job() -> None:
    dispatcher, _, _ = _dispatcher(2, failing=set())
    _tried(dispatcher, VERDICT)
    assert dispatcher.trial is not None
    assert len(list(dispatcher.results([dispatcher.trial[0]]))) == 1


def test_a_worker_that_is_alone_is_tried_twice() -> None:
    dispatcher, _, _ = _dispatcher(1, failing=set())
    places = _tried(dispatcher)
    dispatcher.wait_for_trials(2)
    assert places == ["worker 0", "worker 0"]


def test_a_worker_that_differs_ends_the_search() -> None:
    dispatcher, _, _ = _dispatcher(2, failing=set())

    def check(answer: Any, place: str) -> None:
        raise EngineError(f"{place} differs")

    dispatcher.trial = _jobs([0])[0], check
    with pytest.raises(EngineError, match="worker 0 differs"):
        list(dispatcher.results(_jobs([5])))


def test_what_is_forgotten_is_asked_again() -> None:
    dispatcher, done, _ = _dispatcher(2, failing=set())
    list(dispatcher.results(_jobs([3])))
    dispatcher.forget(frozenset({99}))
    list(dispatcher.results(_jobs([3])))
    assert done == [3]
    dispatcher.forget(_KEPT)
    list(dispatcher.results(_jobs([3])))
    assert done == [3, 3]


def test_few_workers_build_a_plan_that_is_dear_to_build() -> None:
    pace = Pace()
    pace.see(Answer(None, 60.0, first=True))
    pace.see(Answer(None, 1.0, first=False))
    assert len(pace.chunk(_jobs(range(100)), workers=10)) == 10
    assert len(pace.chunk(_jobs(range(1000)), workers=10)) == 59
    quick = Pace()
    quick.see(Answer(None, 0.01, first=True))
    quick.see(Answer(None, 0.01, first=False))
    assert len(quick.chunk(_jobs(range(1000)), workers=10)) == 25
    assert len(quick.chunk(_jobs(range(20)), workers=10)) == 2


def test_a_chunk_is_of_one_plan() -> None:
    other = [Job(VERDICT, frozenset({7}), OWN, 0, 1.0)]
    pace = Pace()
    pace.see(Answer(None, 0.001, first=False))
    assert pace.chunk(_jobs(range(3)) + other, workers=1) == _jobs(range(3))
