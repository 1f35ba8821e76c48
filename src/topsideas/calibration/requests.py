"""What a search waits for, and what workers are at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from topsideas.calibration.jobs import Job


@dataclass(eq=False, slots=True)
class Flight:
    """Jobs that a worker is at."""

    seat: int
    jobs: Sequence[Job]
    start: float
    stopped: bool = False


class Request:
    """Jobs somebody waits for, in order.

    Args:
        jobs: The jobs.
        ends: Whether an answer is the last one needed; all are if None.
        known: Answers that are there.

    Attributes:
        asked: The plan they are about, or the first of them.
        waiting: Jobs that no worker was given yet.
        cut: The place of the last job that is needed, as far as is known.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        ends: Callable[[Any], bool] | None,
        known: Mapping[Job, Any],
    ) -> None:
        self._ends = ends
        self._place = {job: at for at, job in enumerate(jobs)}
        self.asked = jobs[0].kept if jobs else frozenset()
        self.every = ends is None
        self.cut = len(jobs) - 1
        self.waiting = [job for job in jobs if job not in known]
        for job in jobs:
            if job in known:
                self.see(job, known[job])

    def place(self, job: Job) -> int:
        """Where a job stands; the last place of one that is asked for twice."""
        return self._place[job]

    def needs(self, job: Job) -> bool:
        """Whether a job is one of these, and none before it ended them."""
        return self._place.get(job, self.cut + 1) <= self.cut

    def see(self, job: Job, answer: Any) -> None:
        """Take an answer into account."""
        if self._ends is not None and self.needs(job) and self._ends(answer):
            self.cut = self._place[job]
            self.waiting = [other for other in self.waiting if self.needs(other)]
