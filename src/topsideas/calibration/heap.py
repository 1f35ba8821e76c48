"""Memory that was freed, given back to the system."""

from __future__ import annotations

import contextlib
import ctypes


class Heap:
    """Gives freed memory back once enough was freed since the last time.

    The C library keeps what lies between arrays that are still held. Where samples come and go by
    the thousand, on several threads, that was measured to be as much as the arrays themselves.

    Args:
        often: After so many freed bytes.
    """

    def __init__(self, often: int) -> None:
        self._often, self._freed = often, 0

    def freed(self, size: int) -> None:
        """Say that so many bytes were freed."""
        self._freed += size
        if self._freed >= self._often:
            self._freed = 0
            _trim()


def _trim() -> None:
    # Of the GNU C library only; others keep less, or have no such call.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
