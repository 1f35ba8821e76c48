"""What a long run tells about itself while it runs."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from topsideas.calibration.crew import Crew
from topsideas.search.oracle import Oracle


class Progress(Protocol):
    """Receives what is being done."""

    def phase(self, text: str) -> None:
        """A new activity begins."""
        ...

    def measured(self, done: int, total: int) -> None:
        """So many ops of all were measured."""
        ...

    def asked(self, oracle: Oracle) -> None:
        """A plan was judged."""
        ...


@runtime_checkable
class ShowsCrew(Protocol):
    """A receiver that wants to know of workers too."""

    def crew(self, crew: Crew) -> None:
        """Workers came, went, or did something."""
        ...


class Silent:
    """Tells nothing."""

    def phase(self, text: str) -> None:
        """Nothing."""

    def measured(self, done: int, total: int) -> None:
        """Nothing."""

    def asked(self, oracle: Oracle) -> None:
        """Nothing."""
