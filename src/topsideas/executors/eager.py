"""Has this process do the first tasks, while workers start: that may take longer than a search."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from topsideas.executors.base import Done, Event, Executor, Joined, Left, Pool, Seat, Worker

_HERE = -1


@dataclass(frozen=True)
class EagerExecutor:
    """Opens workers in the background.

    Attributes:
        inner: Starts them.
        here: Does the tasks until the first of them has done one.
    """

    inner: Executor
    here: Worker

    @property
    def shares_files(self) -> bool:
        """As the inner one."""
        return self.inner.shares_files

    def open(self, make: Callable[[Seat], Worker]) -> EagerPool:
        """Begin to start the workers; what hinders them is raised by :meth:`EagerPool.wait`."""
        return EagerPool(lambda: self.inner.open(make), self.here)


class _Shared:
    """A value, and where the workers find it once one of them needs it."""

    def __init__(self, value: Any, there: Any = None) -> None:
        self.value, self.there = value, there


class EagerPool:
    """See :class:`topsideas.executors.base.Pool`. This process sits on a seat of its own.

    Args:
        opener: Starts the workers; called on another thread.
        here: Does the tasks meanwhile, one by one, when they are submitted.
    """

    def __init__(self, opener: Callable[[], Pool], here: Worker) -> None:
        self._here: Worker | None = here
        self._inbox: list[Event] = [Joined(_HERE, "the process that searches")]
        # Ray's processes end with the thread that started them: it stays until all is over.
        self._starter = ThreadPoolExecutor(1)
        self._opening: Future[Pool] = self._starter.submit(opener)

    @property
    def seats(self) -> Sequence[Seat]:
        """All seats that are known so far."""
        return self._opening.result().seats if self._opening.done() else [Seat(_HERE)]

    def share(self, value: Any) -> _Shared:
        """Put a value where workers can read it, or remember it until there are any."""
        if self._here is None:
            return _Shared(None, self._opening.result().share(value))
        return _Shared(value)

    def submit(
        self, seat: int, ticket: int, task: Any, shared: Sequence[Any] = (), name: str = ""
    ) -> None:
        """Do the task, or give it to a worker."""
        if seat == _HERE:
            assert self._here is not None
            values = [s and s.value for s in shared]
            self._inbox.append(Done(seat, ticket, self._here.work(task, values, lambda: False)))
            return
        pool = self._opening.result()
        pool.submit(seat, ticket, task, [s and _put(s, pool) for s in shared], name)

    def stop(self, ticket: int) -> None:
        """What was done here is done."""
        if self._opening.done():
            self._opening.result().stop(ticket)

    def wait(self, seconds: float | None) -> list[Event]:
        """What happened. Raises EngineError if no worker can start."""
        events, self._inbox = self._inbox, []
        if not events and not self._opening.done():
            wait([self._opening], seconds)
        if self._opening.done():
            there = self._opening.result().wait(0 if events else seconds)
            events += there
            if self._here is not None and any(isinstance(event, Done) for event in there):
                self._here = None
                events.append(Left(_HERE))
        return events

    def now(self) -> float:
        """Seconds on the clock of the workers."""
        return time.monotonic()

    def close(self) -> None:
        """End all workers, those too that are still starting.

        Raises EngineError if they cannot start: they were asked for, even if none was needed.
        """
        try:
            self._opening.result().close()
        finally:
            self._starter.shutdown()


def _put(shared: _Shared, pool: Pool) -> Any:
    if shared.there is None:
        shared.there = pool.share(shared.value)
    return shared.there
