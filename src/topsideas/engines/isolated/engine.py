"""An engine that lives in a child process, seen from here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from topsideas.engines.base import Arrays, Capabilities, Identity, OpRecord, Trace
from topsideas.engines.isolated.process import Child, ChildDied
from topsideas.engines.options import PATIENT, EngineOptions
from topsideas.engines.workplace import Folder
from topsideas.errors import EngineError
from topsideas.graph.conversion_files import write_model
from topsideas.graph.loading import Model
from topsideas.graph.ops import Op
from topsideas.plan import PrecisionPlan

# To open sessions takes so many times as long as a run at most.
_OPENING = 9


class IsolatedEngine:
    """Opens an engine in a child process, and another one whenever that dies.

    Args:
        name: The engine's name, for messages.
        model: The model.
        options: What is asked of the engine, with the limits.
        target: ``module:function`` that opens it.
        remedy: What to do when it cannot be imported.

    Raises:
        EngineError: The engine cannot start, or refuses the model or an option.
    """

    def __init__(
        self, name: str, model: Model, options: EngineOptions, target: str, remedy: str = ""
    ) -> None:
        self._name, self._options = name, options
        self._target, self._remedy = target, remedy
        self.limits = options.isolation or PATIENT
        self._temporary = Folder()
        folder = Path(self.limits.folder or self._temporary.path)
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / f"{name}.log"
        self._model = self._file(model)
        self.lock = RLock()
        self.unused: list[tuple[int, int]] = []
        self._child: Child | None = None
        self.deaths = 0
        self._identity, self._capabilities, own = self._open()
        if own is not None:  # an engine that numbers no ops must not look as if it did
            self.ops: Callable[[], tuple[Op, ...]] = lambda: own

    def _file(self, model: Model) -> str:
        """The model as a file that gives the same op ids."""
        if model.path is not None:
            return str(model.path.resolve())
        path = self._temporary.path / "model.onnx"
        write_model(model.graph_model, path)
        return str(path)

    def _open(self) -> tuple[Identity, Capabilities, tuple[Op, ...] | None]:
        try:
            self._child = Child(self._log, self.limits.memory, self.limits.python)
            arguments = (self._target, self._model, self._options)
            about: tuple[Identity, Capabilities, tuple[Op, ...] | None] = self._child.call(
                "open", *arguments, seconds=self.limits.build_seconds
            )
        except EngineError as error:
            self.close()
            missing = "No module named" in str(error)
            raise EngineError(
                f"engine {self._name!r} cannot start: {error}"
                + (f". Remedy: {self._remedy}" if missing and self._remedy else "")
            ) from error
        return about

    def child(self) -> Child:
        """The process; a new one if the last one died. Hold :attr:`lock`. Raises EngineError."""
        if self._child is None or not self._child.alive:
            self.deaths += 1
            self._open()
        assert self._child is not None
        while self.unused:
            life, number = self.unused.pop()
            if life == self.deaths:
                self._child.call("release", number)
        return self._child

    def identity(self) -> Identity:
        """Who computes in the child."""
        return self._identity

    def capabilities(self) -> Capabilities:
        """What the engine in the child can do."""
        return self._capabilities

    def compile(self, plan: PrecisionPlan) -> IsolatedExecutable:
        """An executable of ``plan``; it is built when it is first used."""
        kind = OpinionatedExecutable if self._capabilities.opinions else IsolatedExecutable
        return kind(self, plan)

    def finalize(self, plan: PrecisionPlan) -> IsolatedExecutable:
        """An executable of ``plan`` for deployment, if the engine builds those in another way."""
        return IsolatedExecutable(self, plan, "finalized")

    def load(self, path: Path) -> IsolatedExecutable:
        """Open what :meth:`IsolatedExecutable.save` wrote; it is read when it is first used."""
        if not path.is_file():
            raise EngineError(f"{path}: no such executable")
        return IsolatedExecutable(self, path)

    def close(self) -> None:
        """End the child."""
        with self.lock:
            if self._child is not None:
                self._child.close()


class IsolatedExecutable:
    """A plan, or a saved executable, in the child.

    One that crashed or hung once is not tried again: every later call fails the same way.

    Args:
        engine: Its engine.
        source: The plan, or the path of what was saved.
        way: Which executable of the plan: the compiled one, ``finalized``, ``second_opinion`` or
            ``fused``.
    """

    def __init__(
        self, engine: IsolatedEngine, source: PrecisionPlan | Path, way: str = "compiled"
    ) -> None:
        self._engine, self._source, self._way = engine, source, way
        self._number: tuple[int, int] | None = None
        self._able: list[str] = []
        self._shapes: frozenset[Any] = frozenset()
        self._failure: str = ""
        self.notes: tuple[str, ...] = ()

    def __del__(self) -> None:
        """Tell the child, when it is next spoken to, that nobody needs this any more."""
        if self._number is not None:
            self._engine.unused.append(self._number)

    def prepare(self) -> None:
        """Build now. Raises EngineError."""
        with self._engine.lock:
            self._made()

    def run(self, feeds: Arrays) -> dict[str, Any]:
        """The outputs by name. Raises EngineError."""
        outputs: dict[str, Any] = self._do("run", _plain(feeds))
        return outputs

    def latency(self, feeds: Arrays, repeats: int) -> float | None:
        """Median seconds of one run, measured in the child; None if the engine does not measure.

        Raises EngineError.
        """
        seconds: float | None = self._if_able("latency", _plain(feeds), repeats)
        return seconds

    def differing(self, feeds: Arrays) -> Mapping[int, str]:
        """Ops that run in another precision than the plan's, each with which."""
        found: Mapping[int, str] = self._if_able("differing", _plain(feeds)) or {}
        return found

    def doubts(self, feeds: Arrays) -> list[str]:
        """What looks wrong in the child."""
        return list(self._if_able("doubts", _plain(feeds)) or ())

    def kernels(self, feeds: Arrays) -> Sequence[tuple[int, ...]] | None:
        """The ops of each kernel; None if the engine does not tell."""
        found: Sequence[tuple[int, ...]] | None = self._if_able("kernels", _plain(feeds))
        return found

    def statistics(
        self, feeds: Arrays, le: float, ge: float
    ) -> tuple[Mapping[int, Mapping[str, Any]], dict[str, Any]] | None:
        """What the engine counted itself; None if it does not count."""
        found: tuple[Mapping[int, Mapping[str, Any]], dict[str, Any]] | None = self._if_able(
            "statistics", _plain(feeds), le, ge
        )
        return found

    def save(self, path: Path) -> None:
        """Write the compiled artefact."""
        self._do("save", path.resolve())

    def dump(self, path: Path) -> None:
        """Write a readable listing of the compiled graph."""
        self._do("dump", path.resolve())

    def trace(self, feeds: Arrays) -> Trace:
        """A traced run; records arrive one by one."""
        return _Trace(self, _plain(feeds))

    def records(self, feeds: dict[str, Any]) -> Iterator[Any]:
        """The records of a traced run, then its outputs. Raises EngineError."""
        with self._engine.lock:
            number = self._made()
            seconds = self._engine.limits.build_seconds  # a trace may need a build of its own
            with self._noting_death():
                parts = list(self._engine.child().stream("trace", number, feeds, seconds=seconds))
        yield from parts[:-1]

    def _if_able(self, what: str, *arguments: Any) -> Any:
        with self._engine.lock:
            self._made()
            return self._do(what, *arguments) if what in self._able else None

    def _do(self, what: str, *arguments: Any) -> Any:
        with self._engine.lock:
            number = self._made()
            limits = self._engine.limits
            seconds = limits.build_seconds
            if what == "run":
                seconds = self._run_seconds(arguments[0])
            with self._noting_death():
                return self._engine.child().call("do", number, what, *arguments, seconds=seconds)

    def _run_seconds(self, feeds: Mapping[str, Any]) -> float | None:
        """How long a run may take: new shapes may need a build of their own."""
        limits = self._engine.limits
        shapes = tuple(getattr(a, "shape", None) for a in feeds.values())
        new, self._shapes = shapes not in self._shapes, self._shapes | {shapes}
        if limits.run_seconds is None:
            return None
        return limits.run_seconds + (self._preparing(limits.run_seconds) if new else 0.0)

    def _preparing(self, run_seconds: float) -> float:
        """How long what precedes the first run on some shapes may take; never for ever."""
        if self._engine.limits.build_seconds is not None:
            return self._engine.limits.build_seconds
        dynamic = self._engine.capabilities().dynamic  # then it only opens what was built
        return _OPENING * run_seconds if dynamic else PATIENT.build_seconds or 0.0

    def _made(self) -> int:
        """The executable's number in the child that lives now. Raises EngineError."""
        if self._failure:
            raise EngineError(self._failure)
        child = self._engine.child()
        if self._number is None or self._number[0] != self._engine.deaths:
            with self._noting_death(every_failure=True):
                self._number = self._engine.deaths, self._build(child)
        return self._number[1]

    def _build(self, child: Child) -> int:
        seconds = self._engine.limits.build_seconds
        if isinstance(self._source, Path):
            number: int = child.call("load", str(self._source.resolve()), seconds=seconds)
            return number
        number, self._able, self.notes = child.call(
            "compile", self._source.kept, self._way, seconds=seconds
        )
        return number

    def _noting_death(self, *, every_failure: bool = False) -> _Noting:
        return _Noting(self, EngineError if every_failure else ChildDied)


class OpinionatedExecutable(IsolatedExecutable):
    """A plan that the engine in the child runs in other ways too."""

    def second_opinion(self) -> IsolatedExecutable:
        """The same plan, executed by other means."""
        return self._other("second_opinion")

    def fused(self) -> IsolatedExecutable:
        """The same plan on a target that rounds as little as fusion allows."""
        return self._other("fused")

    def _other(self, way: str) -> IsolatedExecutable:
        return IsolatedExecutable(self._engine, self._source, way)


class _Noting:
    """Remembers why an executable failed, so that the next sample does not wait for it again."""

    def __init__(self, executable: IsolatedExecutable, kind: type[EngineError]) -> None:
        self._executable, self._kind = executable, kind

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, self._kind):
            self._executable._failure = str(error)


class _Trace:
    """A traced run in the child; it happens while it is iterated."""

    def __init__(self, executable: IsolatedExecutable, feeds: dict[str, Any]) -> None:
        self._executable = executable
        self._feeds = feeds
        self.outputs: dict[str, Any] = {}

    def __iter__(self) -> Iterator[OpRecord]:
        for part in self._executable.records(self._feeds):
            if isinstance(part, OpRecord):
                yield part
            else:
                self.outputs = part


def _plain(feeds: Arrays) -> dict[str, Any]:
    """Arrays that can be sent: a mapped file is read."""
    return {n: np.asarray(a) if isinstance(a, np.ndarray) else a for n, a in feeds.items()}
