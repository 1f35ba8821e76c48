"""Calls of functions that are not ours, and may never return."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

# How often a wait looks whether anybody still needs the answer, in seconds.
_LOOK = 0.1


class StillRunning(Exception):  # noqa: N818 - it says what happened
    """A function gave no answer in time. Its thread cannot be stopped and is left behind."""


def answered(function: Callable[[], Any], seconds: float | None, dropped: Event) -> Any:
    """What a function returns or raises, if it does so in time.

    It runs in a thread of its own that does not keep the process from ending.

    Args:
        function: The function.
        seconds: The longest wait; None for ever.
        dropped: Set by whoever does not need the answer any more.

    Raises:
        StillRunning: It does not return in time, or is not waited for any more.
    """
    returned: list[Any] = []
    raised: list[BaseException] = []
    done = Event()

    def call() -> None:
        try:
            returned.append(function())
        except BaseException as error:  # SystemExit too: it is for the caller to judge
            raised.append(error)
        done.set()

    Thread(target=call, daemon=True).start()
    start = time.monotonic()
    while not done.wait(_LOOK):
        if dropped.is_set() or (seconds is not None and time.monotonic() - start > seconds):
            raise StillRunning
    if raised:
        raise raised[0]
    return returned[0]
