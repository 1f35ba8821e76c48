"""What workers did, for the user."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Crew:
    """What workers did so far, for the user.

    Attributes:
        workers: How many there are now.
        used: Plans that were run ahead and were asked for later.
        ahead: Those that were run ahead and were not asked for, or not yet.
        lost: Workers that died.
        again: Jobs that had to be done again.
    """

    workers: int = 0
    used: int = 0
    ahead: int = 0
    lost: int = 0
    again: int = 0

    def __str__(self) -> str:
        """In words."""
        ahead = self.used + self.ahead
        text = f"{_workers(self.workers)}, {self.used} of {ahead} runs ahead used"
        return text + (f", {_workers(self.lost)} lost" if self.lost else "")


def _workers(count: int) -> str:
    return f"{count} worker" if count == 1 else f"{count} workers"
