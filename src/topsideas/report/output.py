"""Where text goes: a terminal, a pipe whose reader may leave, or memory."""

from __future__ import annotations

import io
import os
import sys

from rich.console import Console

_UNFOLDED = 1 << 16


class _Output(Console):
    """Standard output that outlives its reader: after ``| head`` the rest is not shown."""

    def on_broken_pipe(self) -> None:
        """Go on in silence, so that the exit code still tells the verdict."""
        self.quiet = True
        _forget_reader()


def _forget_reader() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_out(text: str) -> None:
    """Write text to standard output as it is; a reader that went away is no failure."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_reader()


def standard_output() -> Console:
    """Where results go. Lines are folded for a terminal only, never in a pipe or a file."""
    console = _Output(highlight=False)
    return console if console.is_terminal else _Output(highlight=False, width=_UNFOLDED)


def plain_console() -> Console:
    """Takes what would be printed to a file; :func:`plain_text` returns it."""
    return Console(file=io.StringIO(), highlight=False, width=_UNFOLDED, record=True)


def plain_text(console: Console) -> str:
    """What was printed to a :func:`plain_console`."""
    return "".join(f"{line.rstrip()}\n" for line in console.export_text().splitlines())
