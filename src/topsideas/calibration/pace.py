"""How long jobs take, and what follows: how many to give at once, and when to lose patience."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile

from topsideas.calibration.jobs import Answer, Job

# A worker elsewhere is given samples for so many seconds at once; any for as long as a build is.
_CHUNK = 0.25
# A task is given to another worker too if it takes so many times what is expected, and more than
# a second.
_STRAGGLER, _PATIENCE = 4.0, 1.0
# The weight of the latest observation in the mean of durations.
_LATEST = 0.2


class Pace:
    """Means of what was seen so far."""

    def __init__(self) -> None:
        self._first = self._later = self._guess = 0.0

    def see(self, answer: Answer, part: float = 1.0) -> None:
        """Take an answer into account, with its seconds times ``part``."""
        if answer.first:
            self._first = _mean(self._first, answer.seconds * part)
        else:
            self._later = _mean(self._later, answer.seconds * part)

    def guessed(self, seconds: float) -> None:
        """Take into account how long a guess took at what may be asked for next."""
        self._guess = _mean(self._guess, seconds)

    @property
    def guessing_pays(self) -> bool:
        """Whether a guess takes less time than waiting for the answer would."""
        return self._guess <= self._first

    def chunk(self, jobs: Sequence[Job], workers: int, *, near: bool = False) -> list[Job]:
        """As many of the first jobs, all of one plan, as one of several workers should be given.

        A plan that takes long to build should be built by few; what is quick should not be asked
        for one by one, unless the worker is ``near``: then nothing is lost by it, and the first
        failure ends more.
        """
        build = max(0.0, self._first - self._later)
        least = 0.0 if near else _CHUNK
        enough = max(least, build) / self._later if self._later > 0 else 1.0
        most = max(1, math.ceil(min(enough, len(jobs) / max(1, workers))))
        kind = jobs[0]._replace(sample=0)
        return list(takewhile(lambda job: job._replace(sample=0) == kind, jobs[:most]))

    def patience(self, jobs: int) -> float:
        """Seconds after which a task of so many jobs may be tried by another worker too."""
        return max(_PATIENCE, _STRAGGLER * (self._first + self._later * (jobs - 1)))


def _mean(mean: float, value: float) -> float:
    return mean + (_LATEST if mean else 1.0) * (value - mean)
