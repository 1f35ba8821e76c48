"""Workers on a clock of their own: what a search would take, in no time, and with any mishaps.

Tasks are done in this process at once; when they count as done, a simulated clock says. With no
overhead at all, the time that a search takes on it is the limit of what its strategy allows.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from topsideas.executors.base import Done, Event, Joined, Lost, Seat, Worker


class Clock:
    """A simulated clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.spent = 0.0

    def sleep(self, seconds: float) -> None:
        """Count what whoever works now would wait."""
        self.spent += seconds


@dataclass(frozen=True)
class Mishaps:
    """What goes wrong, by chance.

    Attributes:
        seed: Of the chances.
        death: The part of tasks during which the worker dies.
        loss: The part whose data get lost, while the worker lives.
        slow: The part that takes up to a hundred times as long.
        jitter: Tasks take up to so many times as long as they should.
        absence: Seconds until a worker who died is followed by another.
    """

    seed: int = 0
    death: float = 0.0
    loss: float = 0.0
    slow: float = 0.0
    jitter: float = 0.0
    absence: float = 1.0


@dataclass(frozen=True)
class VirtualExecutor:
    """Opens workers on a simulated clock.

    Attributes:
        count: How many.
        clock: Whatever sleeps must sleep on it.
        mishaps: What goes wrong.
    """

    count: int
    clock: Clock
    mishaps: Mishaps = Mishaps()

    @property
    def shares_files(self) -> bool:
        """Everybody is here."""
        return True

    def without(self, some: int) -> tuple[int, VirtualExecutor | None]:
        """Leave some of the workers to somebody else."""
        left = max(0, self.count - some)
        return self.count - left, replace(self, count=left) if left else None

    def open(
        self, make: Callable[[Seat], Worker], given_up: Callable[[], bool] = lambda: False
    ) -> VirtualPool:
        """Start the workers."""
        return VirtualPool(self, make)


class VirtualPool:
    """See :class:`topsideas.executors.base.Pool`."""

    def __init__(self, executor: VirtualExecutor, make: Callable[[Seat], Worker]) -> None:
        self._clock, self._mishaps, self._make = executor.clock, executor.mishaps, make
        self.seats = [Seat(number) for number in range(executor.count)]
        self._chance = random.Random(executor.mishaps.seed)
        self._workers: dict[int, Worker] = {}
        self._events: list[tuple[float, int, Event]] = []
        self._number = 0
        self.stopped: set[int] = set()
        for seat in self.seats:
            self._join(seat.number, 0.0)

    def share(self, value: Any) -> Any:
        """Everybody is here."""
        return value

    def submit(
        self, seat: int, ticket: int, task: Any, shared: Sequence[Any] = (), name: str = ""
    ) -> None:
        """Do the task now; the event comes when its time has passed."""
        self._clock.spent = 0.0
        result = self._workers[seat].work(task, shared, lambda: False)
        chance = self._chance
        seconds = self._clock.spent * (1 + chance.random() * self._mishaps.jitter)
        if chance.random() < self._mishaps.slow:
            seconds *= chance.uniform(1, 100)
        fate = chance.random()
        if fate < self._mishaps.death:
            self._after(seconds / 2, Lost(seat, (ticket,), "it was to die"))
            self._join(seat, seconds / 2 + self._mishaps.absence)
        elif fate < self._mishaps.death + self._mishaps.loss:
            self._after(seconds, Lost(seat, (ticket,), "it was to be lost", alive=True))
        else:
            self._after(seconds, Done(seat, ticket, result))

    def stop(self, ticket: int) -> None:
        """Tasks are done already."""
        self.stopped.add(ticket)

    def wait(self, seconds: float | None) -> list[Event]:
        """Let time pass until the next event."""
        if not self._events and seconds is None:
            raise AssertionError("nothing will ever happen")
        due = self._events[0][0] if self._events else self._clock.now
        if seconds is not None and due > self._clock.now + seconds:
            self._clock.now += seconds
            return []
        self._clock.now = max(self._clock.now, due)
        happened = []
        while self._events and self._events[0][0] <= self._clock.now:
            happened.append(heapq.heappop(self._events)[2])
        return happened

    def now(self) -> float:
        """Simulated seconds."""
        return self._clock.now

    def close(self) -> None:
        """Nothing is left behind."""

    def _join(self, seat: int, delay: float) -> None:
        self._workers[seat] = self._make(self.seats[seat])
        self._after(delay, Joined(seat, f"worker {seat}"))

    def _after(self, delay: float, event: Event) -> None:
        self._number += 1
        heapq.heappush(self._events, (self._clock.now + delay, self._number, event))
