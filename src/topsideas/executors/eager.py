"""Has threads of this process do tasks at once; other workers join them once they have started."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event as Flag
from threading import Thread
from typing import Any

from topsideas.executors.base import (
    Done,
    Event,
    Executor,
    GivenUp,
    Joined,
    Left,
    Lost,
    Pool,
    Seat,
    Worker,
)

# Seconds between two looks at other workers while threads here are at work.
_LOOK = 0.01
# Seconds that workers have to give up starting once nobody needs them.
_GIVING_UP = 2.0


@dataclass(frozen=True)
class EagerExecutor:
    """Opens workers in the background.

    Attributes:
        inner: Starts them; None if there are none but those here.
        here: Makes a worker of this process.
        threads: How many of those there are, each with a thread, for as long as the search takes.
            With 0 there is one that works when it is given a task, until others have done one:
            what must not be used by several threads at a time.
    """

    inner: Executor | None
    here: Callable[[], Worker]
    threads: int = 0

    @property
    def shares_files(self) -> bool:
        """Whether workers surely see this machine's files."""
        return self.inner is None or self.inner.shares_files

    def open(
        self, make: Callable[[Seat], Worker], given_up: Callable[[], bool] = lambda: False
    ) -> EagerPool:
        """Begin to start the workers; what hinders them is raised by :meth:`EagerPool.wait`."""
        return EagerPool(self, make)


class EagerPool:
    """See :class:`topsideas.executors.base.Pool`. Seats of this process have negative numbers.

    Args:
        executor: Says who works.
        make: Makes the workers elsewhere.
    """

    def __init__(self, executor: EagerExecutor, make: Callable[[Seat], Worker]) -> None:
        seats = range(-1, -1 - max(1, executor.threads), -1)
        self._here = {seat: executor.here() for seat in seats}
        self._threads = ThreadPoolExecutor(executor.threads) if executor.threads else None
        self._busy: dict[int, int] = {}  # the ticket that a seat here is at
        self._needless: set[int] = set()
        # What happened here; None once the others have started, or cannot.
        self._happened: SimpleQueue[Event | Exception | None] = SimpleQueue()
        for seat in self._here:
            where = f"thread {-seat} of the process that searches"
            self._happened.put(Joined(seat, where, near=True))
        self._opening: Future[Pool] | None = None
        self._over = Flag()
        if executor.inner is not None:
            self._opening = Future()
            Thread(target=self._open, args=(executor.inner, make), daemon=True).start()

    @property
    def seats(self) -> Sequence[Seat]:
        """All seats that are known so far."""
        there = self._there()
        return [*map(Seat, self._here), *(there.seats if there is not None else ())]

    def share(self, value: Any) -> _Shared:
        """Put a value where workers can read it, or remember it until there are any."""
        there = self._there()
        if self._here or there is None:
            return _Shared(value)
        return _Shared(None, there.share(value))

    def submit(
        self, seat: int, ticket: int, task: Any, shared: Sequence[Any] = (), name: str = ""
    ) -> None:
        """Give a task to a worker here or elsewhere."""
        there = self._there()
        if seat in self._here:
            self._busy[seat] = ticket
            values = [s and s.value for s in shared]
            if self._threads is None:
                self._work(seat, ticket, task, values)
            else:
                self._threads.submit(self._work, seat, ticket, task, values)
        elif there is not None:
            there.submit(seat, ticket, task, [s and _put(s, there) for s in shared], name)

    def stop(self, ticket: int) -> None:
        """Nobody needs the rest of a task."""
        there = self._there()
        if ticket in self._busy.values():
            self._needless.add(ticket)
        elif there is not None:
            there.stop(ticket)

    def wait(self, seconds: float | None) -> list[Event]:
        """What happened.

        Raises:
            EngineError: No worker can start.
            Exception: What was raised by a task here.
        """
        end = math.inf if seconds is None else self.now() + seconds
        while True:
            there = self._there()
            left = max(0.0, end - self.now())
            if there is None:
                events = self._from_here(left)
            else:
                events = self._from_here(min(left, _LOOK) if self._busy else 0)
                events += self._from_there(there, 0 if events or self._busy else left)
            if events or self.now() >= end:
                return events

    def now(self) -> float:
        """Seconds on the clock of the workers."""
        return time.monotonic()

    def close(self) -> None:
        """End all workers, those too that are still starting.

        Raises EngineError if they could not start: they were asked for, even if none was needed.
        """
        self._over.set()
        self._needless.update(self._busy.values())
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
        if self._opening is not None:
            wait([self._opening], _GIVING_UP)
            there = self._there()
            if there is not None:
                there.close()

    def _open(self, inner: Executor, make: Callable[[Seat], Worker]) -> None:
        assert self._opening is not None
        try:
            pool = inner.open(make, self._over.is_set)
            if self._over.is_set():  # and perhaps nobody waits any more to close it
                pool.close()
                raise GivenUp
            self._opening.set_result(pool)
        except BaseException as error:
            self._opening.set_exception(error)
        self._happened.put(None)

    def _there(self) -> Pool | None:
        """The workers elsewhere once they have started. Raises EngineError if they cannot."""
        if self._opening is None or not self._opening.done():
            return None
        try:
            return self._opening.result()
        except GivenUp:
            return None

    def _work(self, seat: int, ticket: int, task: Any, values: Sequence[Any]) -> None:
        """Do a task here."""
        event: Event | Exception = Lost(seat, (ticket,), "it was interrupted", alive=True)
        try:
            done = self._here[seat].work(task, values, lambda: ticket in self._needless)
            event = Done(seat, ticket, done)
        except Exception as error:
            event = error
        finally:
            self._happened.put(event)

    def _from_here(self, seconds: float) -> list[Event]:
        """What happened here, once something did or so many seconds passed."""
        events: list[Event] = []
        try:
            event = self._happened.get(timeout=None if seconds == math.inf else seconds)
            while True:
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, Done | Lost):
                    self._busy.pop(event.seat)
                if event is None:
                    break
                events.append(event)
                event = self._happened.get(block=False)
        except Empty:
            pass
        return events

    def _from_there(self, there: Pool, seconds: float) -> list[Event]:
        """What happened elsewhere. Who cannot work side by side with others leaves then."""
        events = there.wait(None if seconds == math.inf else seconds)
        if self._threads is None and any(isinstance(event, Done) for event in events):
            events += [Left(seat) for seat in self._here]
            self._here.clear()
        return events


class _Shared:
    """A value, and where workers elsewhere find it once one of them needs it."""

    def __init__(self, value: Any, there: Any = None) -> None:
        self.value, self.there = value, there


def _put(shared: _Shared, pool: Pool) -> Any:
    if shared.there is None:
        shared.there = pool.share(shared.value)
    return shared.there
