"""Progress on a terminal; silence anywhere else."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from topsideas.calibration.crew import Crew
from topsideas.calibration.progress import Progress as Receiver
from topsideas.calibration.progress import Silent
from topsideas.search.oracle import Oracle


@contextmanager
def progress_for(args: Namespace) -> Iterator[Receiver]:
    """A bar on standard error if that is a terminal, else nothing."""
    if args.quiet or not sys.stderr.isatty():
        yield Silent()
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        yield _Bar(bar)


class _Bar:
    """Shows what is being done, evaluations, the best size so far, and time left."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("starting", total=None, state="")
        self._crew = ""
        self._since = time.monotonic()

    def crew(self, crew: Crew) -> None:
        self._crew = f"\n{crew}"  # a line of its own: both would not fit into 80 columns

    def phase(self, text: str) -> None:
        self._since = time.monotonic()
        # At once: a short phase would come and go between two looks.
        self._bar.update(
            self._task, description=text, total=None, completed=0, state="", refresh=True
        )

    def measured(self, done: int, total: int) -> None:
        left = (time.monotonic() - self._since) / max(done, 1) * (total - done)
        state = f"{done}/{total}, about {_duration(left)} left"
        self._bar.update(self._task, completed=done, total=total, state=state)

    def asked(self, oracle: Oracle) -> None:
        done, expected = len(oracle.ledger), oracle.expected
        best = oracle.best
        each = sum(q.seconds for q in oracle.ledger[-1:]) / max(done, 1)
        shown = "no plan yet" if best is None else f"best {len(best)} ops"
        state = f"{done} evaluations, {shown}, about {_duration(each * expected)} left"
        state += self._crew
        self._bar.update(
            self._task,
            description=oracle.phase,
            completed=done,
            total=done + expected,
            state=state,
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
