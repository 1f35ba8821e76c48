"""This process does the first tasks, until workers are there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event, get_ident
from typing import Any

import pytest

from topsideas.errors import EngineError
from topsideas.executors.base import Done, Joined, Left, Seat
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
    """Starts when it is told to, and notes which thread started it and who closed it."""

    allowed, threads = Event(), list[Any]()

    def open(self, make: Any) -> VirtualPool:
        assert self.allowed.wait(10)
        self.threads.append(get_ident())
        return super().open(make)


@pytest.fixture
def slow() -> _Slow:
    _Slow.allowed.clear()
    _Slow.threads.clear()
    return _Slow(1, Clock())


def _pool(slow: _Slow) -> Any:
    return EagerExecutor(slow, _Says("here")).open(lambda seat: _Says(f"worker {seat.number}"))


def test_tasks_are_done_here_until_a_worker_has_done_one(slow: _Slow) -> None:
    pool = _pool(slow)
    value = pool.share("sample")
    assert pool.seats == [Seat(_HERE)]
    assert pool.wait(None) == [Joined(_HERE, "the process that searches")]
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


def test_the_thread_that_starts_workers_lives_as_long_as_they_do(slow: _Slow) -> None:
    """Else the kernel ends what it started: Ray asks for that, lest a search leaves it behind."""
    slow.allowed.set()
    pool = _pool(slow)
    while not any(isinstance(event, Joined) and event.seat == 0 for event in pool.wait(1)):
        pass
    starter = next(iter(pool._starter._threads))
    assert starter.ident == slow.threads[0] != get_ident()
    assert starter.is_alive()
    pool.close()
    assert not starter.is_alive()


def test_workers_that_cannot_start_are_an_error_even_if_none_was_needed() -> None:
    class Broken(_Slow):
        def open(self, make: Any) -> VirtualPool:
            raise EngineError("no Ray")

    pool = _pool(Broken(1, Clock()))
    with pytest.raises(EngineError, match="no Ray"):
        [pool.wait(5) for _ in range(2)]
    with pytest.raises(EngineError, match="no Ray"):  # also of a search that was over first
        pool.close()
    assert not pool._starter._threads or not next(iter(pool._starter._threads)).is_alive()


def test_a_search_that_is_over_first_waits_for_workers_to_end_them(slow: _Slow) -> None:
    pool = _pool(slow)
    pool.wait(None)
    slow.allowed.set()
    pool.close()
    assert slow.threads
