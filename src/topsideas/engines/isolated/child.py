"""The child process: opens one engine and does what it is told, until nobody speaks to it."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import IO, Any

from topsideas import __version__
from topsideas.engines.base import Engine, OpRecord, OwnOps, finalized
from topsideas.engines.isolated.wire import ERROR, ITEM, OK, receive, send
from topsideas.engines.options import EngineOptions
from topsideas.errors import TopsideasError
from topsideas.graph.loading import load_model
from topsideas.plan import PrecisionPlan

# What an executable may be able to do beyond running; the parent asks before it promises.
_ABILITIES = ("differing", "doubts", "kernels", "statistics", "latency")

# Seconds between two looks whether the parent is there.
_LOOK = 1.0


class _Server:
    """One engine and the executables made of it, by number."""

    def __init__(self, target: str, model: str, options: EngineOptions) -> None:
        module, _, function = target.partition(":")
        if not module.startswith("topsideas.engines.emulator"):
            _lift_memory_limit()
        opener: Any = getattr(import_module(module), function)
        self._engine: Engine = opener(load_model(model, options.numerics.precision), options)
        self._made: list[Any] = []

    def about(self) -> tuple[Any, Any, Any]:
        """Identity, capabilities, and own ops if the engine has them."""
        ops = self._engine.ops() if isinstance(self._engine, OwnOps) else None
        return self._engine.identity(), self._engine.capabilities(), ops

    def compile(self, kept: frozenset[int], way: str) -> tuple[int, list[str], tuple[str, ...]]:
        """Compile; returns a number for the executable, what it can do, and its notes.

        ``way`` is ``compiled``, ``finalized``, or a method of the compiled executable.
        """
        plan = PrecisionPlan(kept)
        built = finalized(self._engine, plan) if way == "finalized" else None
        made: Any = built or self._engine.compile(plan)
        if way not in ("compiled", "finalized"):
            made = getattr(made, way)()
        prepare = getattr(made, "prepare", None)
        if prepare is not None:
            prepare()
        able = [name for name in _ABILITIES if hasattr(made, name)]
        return self._keep(made), able, tuple(getattr(made, "notes", ()))

    def load(self, path: str) -> int:
        """Open a saved executable; returns a number for it."""
        return self._keep(self._engine.load(Path(path)))

    def release(self, number: int) -> None:
        """Forget an executable."""
        self._made[number] = None

    def do(self, number: int, what: str, *arguments: Any) -> Any:
        """Call a method of an executable."""
        return getattr(self._made[number], what)(*arguments)

    def trace(self, number: int, feeds: dict[str, Any]) -> Iterator[OpRecord | dict[str, Any]]:
        """The records of a traced run, then its outputs."""
        trace = self._made[number].trace(feeds)
        yield from trace
        yield trace.outputs

    def _keep(self, made: Any) -> int:
        self._made.append(made)
        return len(self._made) - 1


def _lift_memory_limit() -> None:
    """Runtimes of devices may reserve more address space than the machine has memory."""
    if sys.platform != "win32":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _end_with(parent: int) -> None:
    """End once the parent was killed: nobody else would end an engine that hangs."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


def main() -> None:
    """Answer messages on the process's standard streams; whatever prints goes to the log."""
    Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    inwards, outwards = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a runtime's own prints must not get between the messages
    version, path = receive(inwards)
    if version != __version__:
        send(outwards, (ERROR, f"{sys.executable} has topsideas {__version__}, not {version}"))
        return
    sys.path[:] = path or sys.path
    server: _Server | None = None
    while True:
        try:
            call, arguments = receive(inwards)
        except EOFError:
            return
        try:
            if call == "open":
                server = _Server(*arguments)
                send(outwards, (OK, server.about()))
            else:
                _answer(outwards, getattr(server, call)(*arguments), stream=call == "trace")
        except TopsideasError as error:
            send(outwards, (ERROR, str(error)))
        except Exception as error:  # whatever a runtime raises that its engine did not map
            traceback.print_exc()
            send(outwards, (ERROR, f"{type(error).__name__}: {error}"))


def _answer(outwards: IO[bytes], result: Any, *, stream: bool) -> None:
    if stream:
        for item in result:
            send(outwards, (ITEM, item))
        result = None
    send(outwards, (OK, result))


if __name__ == "__main__":
    main()
