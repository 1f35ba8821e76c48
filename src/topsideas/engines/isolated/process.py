"""A child process that is watched: how long it takes, how much it holds, and how it ended."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

from topsideas import __version__
from topsideas.engines.isolated.wire import ERROR, ITEM, receive, send
from topsideas.errors import EngineError

# How often memory and life are looked at, in seconds.
_WATCH = 0.05
_LOG_LINES, _LOG_BYTES = 12, 2000


class ChildDied(EngineError):  # noqa: N818 - it says what happened
    """The child crashed, hung or held too much, and is gone; a new one can be started."""


class Child:
    """One child process and its log.

    Args:
        log: Where what it prints is appended.
        memory: Most bytes it may hold; None for no limit.
        python: The Python that runs it; None for this one.

    Raises:
        EngineError: That Python cannot be started.
    """

    def __init__(self, log: Path, memory: int | None, python: str | None = None) -> None:
        self._log, self._memory = log, memory
        with log.open("ab") as stream:
            self._start = stream.tell()
            try:
                self._process = subprocess.Popen(
                    [python or sys.executable, "-m", "topsideas.engines.isolated.child"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stream,
                    start_new_session=True,  # Ctrl-C is for us; we end it ourselves
                )
            except OSError as error:
                raise EngineError(f"{python or sys.executable}: {error.strerror}") from error
        assert self._process.stdin is not None
        self._in = self._process.stdin
        self._answers: queue.Queue[Any] = queue.Queue(maxsize=4)
        Thread(target=_listen, args=(self._process.stdout, self._answers), daemon=True).start()
        self._end = weakref.finalize(self, _end, self._process)
        with contextlib.suppress(OSError):  # it died at once; the first question tells how
            send(self._in, (__version__, sys.path if python is None else None))

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._end.alive and self._process.poll() is None

    def close(self) -> None:
        """End it."""
        self._end()

    def call(self, what: str, *arguments: Any, seconds: float | None = None) -> Any:
        """Ask and wait for the answer.

        Raises:
            EngineError: The engine refused or failed.
            ChildDied: It crashed, took longer than ``seconds``, or held too much memory.
        """
        return list(self.stream(what, *arguments, seconds=seconds))[-1]

    def stream(self, what: str, *arguments: Any, seconds: float | None = None) -> Iterator[Any]:
        """Ask and yield each part of the answer, the end of it last; see :meth:`call`."""
        answered = False
        try:
            with contextlib.suppress(OSError):  # it died before; the wait says how
                send(self._in, (what, arguments))
            while not answered:
                kind, value = self._next(_doing(what, arguments), seconds)
                answered = kind != ITEM
                if kind == ERROR:
                    raise EngineError(value)
                yield value
        finally:
            if not answered:  # interrupted: an answer that comes later would answer nothing
                self.close()

    def _next(self, what: str, seconds: float | None) -> Any:
        start = time.monotonic()
        while True:
            try:
                answer = self._answers.get(timeout=_WATCH)
            except queue.Empty:
                answer = None
            if answer is not None:
                if answer == "gone":
                    self._process.wait(10)
                    how = how_it_ended(self._process.returncode)
                    raise self._died(f"ended while it was asked to {what}: {how}")
                return answer
            if seconds is not None and time.monotonic() - start > seconds:
                raise self._died(f"gave no answer within {seconds:g} s when asked to {what}")
            held = _resident(self._process.pid)
            if self._memory is not None and held > self._memory:
                raise self._died(
                    f"held {held >> 20} MB when asked to {what}, and may hold "
                    f"{self._memory >> 20} MB"
                )

    def _died(self, how: str) -> ChildDied:
        self.close()
        end = self._log_end()
        return ChildDied(f"the engine's process {how}" + (f"; its log ends: {end}" if end else ""))

    def _log_end(self) -> str:
        with contextlib.suppress(OSError), self._log.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(self._start, stream.tell() - _LOG_BYTES))
            lines = stream.read().decode("utf-8", "replace").splitlines()
            return " | ".join(line.strip() for line in lines[-_LOG_LINES:] if line.strip())
        return ""


def how_it_ended(code: int | None) -> str:
    """A process's return code in words."""
    if code is None or code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
        hint = ", perhaps by the system for want of memory" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}"
    return f"killed by signal {-code}"


def _doing(what: str, arguments: tuple[Any, ...]) -> str:
    """What was asked, for messages."""
    return str(arguments[1]) if what == "do" else what


def _listen(stream: Any, answers: queue.Queue[Any]) -> None:
    try:
        while True:
            answers.put(receive(stream))
    except Exception:  # the stream is closed or broken: either way the child is gone
        answers.put("gone")


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError):
        process.kill()
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        process.wait(10)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _resident(pid: int) -> int:
    """Bytes of memory that a process holds; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
