"""Threads of this process do tasks, also until workers are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Barrier, Event
from time import monotonic, sleep
from typing import Any

import pytest

from topsideas.errors import EngineError
from topsideas.executors.base import Done, GivenUp, Joined, Left, Lost, Seat
from topsideas.executors.eager import EagerExecutor
from topsideas.testing.virtual_pool import Clock, VirtualExecutor, VirtualPool

_HERE = -1


class _Says:
    """Answers with its name and what was shared."""

    def __init__(self, name: str) -> None:
        self._name = name

    def work(self, task: Any, shared: Sequence[Any], stopped: Callable[[], bool]) -> Any:
        return self._name, task, list(shared)


class _Slow(VirtualExecutor):
    """Starts when it is told to."""

    allowed = Event()

    def open(self, make: Any, given_up: Callable[[], bool] = lambda: False) -> VirtualPool:
        while not self.allowed.wait(0.01):
            if given_up():
                raise GivenUp
        return super().open(make)


@pytest.fixture
def slow() -> _Slow:
    _Slow.allowed.clear()
    return _Slow(1, Clock())


def _pool(inner: VirtualExecutor | None, threads: int = 0) -> Any:
    executor = EagerExecutor(inner, lambda: _Says("here"), threads)
    return executor.open(lambda seat: _Says(f"worker {seat.number}"))


def test_tasks_are_done_here_until_a_worker_has_done_one(slow: _Slow) -> None:
    pool = _pool(slow)
    value = pool.share("sample")
    assert pool.seats == [Seat(_HERE)]
    assert pool.wait(None) == [Joined(_HERE, "thread 1 of the process that searches", near=True)]
    pool.submit(_HERE, 0, "first", [value, None])
    assert pool.wait(None) == [Done(_HERE, 0, ("here", "first", ["sample", None]))]
    assert pool.wait(0.01) == []
    slow.allowed.set()
    assert pool.wait(None) == [Joined(0, "worker 0")]
    pool.submit(0, 1, "trial", [value])
    pool.submit(_HERE, 2, "second", [value])
    assert pool.wait(None) == [
        Done(_HERE, 2, ("here", "second", ["sample"])),
        Done(0, 1, ("worker 0", "trial", ["sample"])),
        Left(_HERE),
    ]
    pool.submit(0, 3, "third", [value, pool.share("later")])
    assert pool.wait(None) == [Done(0, 3, ("worker 0", "third", ["sample", "later"]))]
    pool.close()


def _gathered(pool: Any, count: int) -> list[Any]:
    events: list[Any] = []
    while len(events) < count:
        events += pool.wait(5)
    return events


def test_threads_work_side_by_side_and_stay_with_the_others(slow: _Slow) -> None:
    meeting = Barrier(2, timeout=10)

    class Meets(_Says):
        def work(self, task: Any, shared: Sequence[Any], stopped: Callable[[], bool]) -> Any:
            meeting.wait()  # nobody comes here alone
            return super().work(task, shared, stopped)

    pool: Any = EagerExecutor(slow, lambda: Meets("here"), 2).open(lambda seat: _Says("there"))
    assert {event.seat for event in _gathered(pool, 2)} == {-1, -2}
    slow.allowed.set()
    assert _gathered(pool, 1) == [Joined(0, "worker 0")]
    for ticket in (0, 2):
        pool.submit(0, ticket, "there", [])
        pool.submit(-1, ticket + 1, "here", [pool.share("sample")])
        pool.submit(-2, ticket + 2, "here", [])
        assert {event.seat for event in _gathered(pool, 3)} == {0, -1, -2}
    pool.close()


def test_threads_alone_are_a_pool() -> None:
    pool = _pool(None, 1)
    assert _gathered(pool, 1) == [Joined(-1, "thread 1 of the process that searches", near=True)]
    pool.submit(-1, 7, "task", [pool.share(3), None])
    assert pool.wait(5) == [Done(-1, 7, ("here", "task", [3, None]))]
    assert pool.wait(0.01) == []
    pool.close()


def test_a_task_that_nobody_needs_any_more_is_told_so() -> None:
    class Patient(_Says):
        def work(self, task: Any, shared: Sequence[Any], stopped: Callable[[], bool]) -> Any:
            while not stopped():
                sleep(0.001)
            return "stopped"

    pool: Any = EagerExecutor(None, lambda: Patient(""), 2).open(lambda seat: _Says(""))
    _gathered(pool, 2)
    pool.submit(-1, 1, "task")
    pool.submit(-2, 2, "task")
    pool.stop(1)
    assert pool.wait(5) == [Done(-1, 1, "stopped")]
    pool.close()  # which ends the other


@pytest.mark.parametrize("threads", [0, 1])
def test_what_a_task_raises_is_raised_where_the_search_is(threads: int) -> None:
    class Breaks(_Says):
        def work(self, task: Any, shared: Sequence[Any], stopped: Callable[[], bool]) -> Any:
            raise MemoryError("no memory is left")

    pool = EagerExecutor(None, lambda: Breaks(""), threads).open(lambda seat: _Says(""))
    pool.wait(5)
    pool.submit(-1, 1, "task")
    with pytest.raises(MemoryError):
        pool.wait(5)
    pool.close()


def test_a_task_that_ctrl_c_ended_can_be_given_again() -> None:
    class Breaks(_Says):
        def work(self, task: Any, shared: Sequence[Any], stopped: Callable[[], bool]) -> Any:
            raise KeyboardInterrupt

    pool = EagerExecutor(None, lambda: Breaks("")).open(lambda seat: _Says(""))
    pool.wait(5)
    with pytest.raises(KeyboardInterrupt):
        pool.submit(-1, 1, "task")
    assert pool.wait(5) == [Lost(-1, (1,), "it was interrupted", alive=True)]
    pool.close()


def test_workers_that_cannot_start_are_an_error_even_if_none_was_needed() -> None:
    class Broken(_Slow):
        def open(self, make: Any, given_up: Callable[[], bool] = lambda: False) -> VirtualPool:
            raise EngineError("no Ray")

    pool = _pool(Broken(1, Clock()))
    with pytest.raises(EngineError, match="no Ray"):
        [pool.wait(5) for _ in range(2)]
    with pytest.raises(EngineError, match="no Ray"):  # also of a search that was over first
        pool.close()


def test_a_search_that_is_over_first_does_not_wait_for_workers(slow: _Slow) -> None:
    """They are told that nobody needs them, and give up."""
    start = monotonic()
    pool = _pool(slow)
    pool.wait(None)
    pool.close()
    assert monotonic() - start < 1.5
    assert isinstance(pool._opening.exception(0), GivenUp)
