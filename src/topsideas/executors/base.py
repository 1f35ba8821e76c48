"""The seam between the tool and whatever runs its workers: in this process, or on Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Seat:
    """A place for a worker. One that dies is followed by another on the same seat.

    Attributes:
        number: From 0 on.
        device: The card that belongs to whoever sits here; None for the one that is asked for.
        neighbours: About how many sit on the same machine, this one included.
    """

    number: int
    device: int | None = None
    neighbours: int = 1


class Worker(Protocol):
    """What sits on a seat: holds what is dear to make, and does one task after the other."""

    def work(self, task: Any, shared: Sequence[Any], stopped: Callable[[], bool]) -> Any:
        """Do a task.

        Args:
            task: What to do.
            shared: The values that were shared for it; arrays in them may be read-only.
            stopped: Whether nobody needs the rest any more; a long task looks now and then.
        """
        ...


@dataclass(frozen=True, slots=True)
class Joined:
    """A worker is ready for its first task.

    Attributes:
        seat: Its seat.
        where: Its place, for messages.
        near: To give it a task takes no time: it is in this process.
    """

    seat: int
    where: str
    near: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """A task was done. ``result`` is what :meth:`Worker.work` returned."""

    seat: int
    ticket: int
    result: Any


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker died or could not be reached, and its task, if it had one, was not done.

    Attributes:
        seat: Its seat. It joins again, or not.
        tickets: The tasks that were not done.
        why: For messages.
        alive: The worker lives: only what it was sent was lost.
    """

    seat: int
    tickets: tuple[int, ...]
    why: str
    alive: bool = False


@dataclass(frozen=True, slots=True)
class Left:
    """A worker that has no task is not needed any more."""

    seat: int


Event = Joined | Done | Lost | Left


class GivenUp(Exception):  # noqa: N818 - nobody is to blame
    """Workers did not start, as nobody needs them any more."""


class Pool(Protocol):
    """Open workers. They are in use by one thread."""

    @property
    def seats(self) -> Sequence[Seat]:
        """All seats, taken or not."""
        ...

    def share(self, value: Any) -> Any:
        """Put a value where all workers can read it; returns what to pass to :meth:`submit`."""
        ...

    def submit(
        self, seat: int, ticket: int, task: Any, shared: Sequence[Any] = (), name: str = ""
    ) -> None:
        """Give a worker a task.

        Args:
            seat: Whom; it must have joined.
            ticket: What its event will bear.
            task: What to do.
            shared: What :meth:`share` returned.
            name: What to call it, for those who look at the workers.
        """
        ...

    def stop(self, ticket: int) -> None:
        """Nobody needs the rest of a task. It still ends with an event, and may do so late."""
        ...

    def wait(self, seconds: float | None) -> list[Event]:
        """What happened, once something did or so many seconds passed; None for no limit.

        Raises:
            EngineError: No worker can start.
        """
        ...

    def now(self) -> float:
        """Seconds on the clock of the workers."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


class Executor(Protocol):
    """Opens workers."""

    @property
    def shares_files(self) -> bool:
        """Whether workers surely see this machine's files."""
        ...

    def without(self, some: int) -> tuple[int, Executor | None]:
        """Leave some of the workers to somebody else.

        Returns:
            How many are left to them, and who starts the others; None if there are no others.
        """
        ...

    def open(
        self, make: Callable[[Seat], Worker], given_up: Callable[[], bool] = lambda: False
    ) -> Pool:
        """Start workers that ``make`` makes; it is called where they run.

        Args:
            make: Makes them.
            given_up: Whether they are not needed any more; looked at while they start.

        Raises:
            EngineError: They cannot start.
            GivenUp: They were not needed any more.
        """
        ...
