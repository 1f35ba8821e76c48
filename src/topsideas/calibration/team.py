"""Workers for a search: what each of them opens, and the link between them and the search."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from topsideas.calibration.dispatch import Dispatcher
from topsideas.calibration.examiner import Examiner
from topsideas.calibration.jobs import OUTPUTS, OWN, Job
from topsideas.calibration.progress import Progress, ShowsCrew
from topsideas.calibration.references import References
from topsideas.calibration.settings import Settings
from topsideas.engines.base import Blocks, Engine, Identity
from topsideas.engines.emulator.memory import default_limit
from topsideas.engines.emulator.runtime import default_threads
from topsideas.engines.options import EngineOptions
from topsideas.engines.registry import open_engine
from topsideas.engines.workplace import Folder
from topsideas.errors import EngineError
from topsideas.executors.base import Executor, Pool, Seat
from topsideas.executors.eager import EagerExecutor
from topsideas.graph.conversion_files import write_model
from topsideas.graph.loading import Model, load_model
from topsideas.precision import Precision

# So many threads are kept busy by a search that has no workers. Measured: with two as workers, the
# search takes 0.9 to 1.5 times as long (docs/ray.md).
_BUSY = 2


@dataclass(frozen=True)
class Parcel:
    """A model on its way to workers, who number its ops alike.

    Attributes:
        path: The model's file.
        digest: The model's.
        files: The bytes of that file and of its external data, by path relative to its folder;
            none where workers see this machine's files.
    """

    path: Path
    digest: str
    files: dict[str, np.ndarray]

    @classmethod
    def of(cls, model: Model, *, shares_files: bool) -> Parcel:
        """Pack a model. Raises ModelError if a file of it is gone."""
        if model.path is None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                written = write_model(model.graph_model, path)
                return cls(path, "", _read(path.parent, written))
        files = () if shares_files else (model.path, *model.files)
        return cls(model.path.resolve(), model.digest, _read(model.path.parent, files))

    def unpack(self, precision: Precision) -> tuple[Model, Folder | None]:
        """The model, and the folder that must live as long as it does.

        Raises:
            EngineError: The file has changed since it was packed.
        """
        if self.path.is_file() or not self.files:
            model = load_model(self.path, precision)
            if model.digest == self.digest:
                return model, None
            if not self.files:
                raise EngineError(f"{self.path}: has changed since the search began")
        folder = Folder()
        for name, content in self.files.items():
            target = folder.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            content.tofile(target)
        return load_model(folder.path / self.path.name, precision), folder


def _read(folder: Path, files: Sequence[Path]) -> dict[str, np.ndarray]:
    root = folder.resolve()
    return {str(f.resolve().relative_to(root)): np.fromfile(f, np.uint8) for f in files}


@dataclass(frozen=True)
class EngineOpener:
    """Opens the engine of a search where a worker is.

    Attributes:
        name: The engine's name in the registry.
        parcel: The model.
        options: What is asked of it.
        identity: The engine's, as the search sees it.
    """

    name: str
    parcel: Parcel
    options: EngineOptions
    identity: Identity

    def __call__(self, seat: Seat) -> Engine:
        """Open it.

        Raises:
            EngineError: It cannot start here, or is another one than the search's.
        """
        model, folder = self.parcel.unpack(self.options.numerics.precision)
        engine = open_engine(self.name, model, self._options(seat))
        weakref.finalize(engine, id, folder)  # the files stay as long as the engine does
        mine, theirs = (_who(i) for i in (engine.identity(), self.identity))
        if mine != theirs:
            raise EngineError(
                f"a worker has the engine {mine}, the search has {theirs}; expected the same on "
                "all machines"
            )
        return engine

    def _options(self, seat: Seat) -> EngineOptions:
        """A worker runs one sample at a time, and shares the memory with its neighbours."""
        options, isolation = self.options, self.options.isolation
        return replace(
            options,
            device=options.device if seat.device is None else seat.device,
            threads=1,
            memory_limit=(options.memory_limit or default_limit()) // seat.neighbours,
            isolation=isolation and replace(isolation, folder=None),
        )


def _who(identity: Identity) -> str:
    """Who computes, whichever card it is."""
    return f"{identity.name} {identity.version}, {identity.evidence}"


@dataclass(frozen=True)
class Team:
    """Who runs the plans of a search.

    Attributes:
        executor: Starts workers; None if all are threads of this process.
        opener: Opens the engine for one; it travels to them.
        here: The engine of this process, where that may run plans too.
        threads: How many more workers are threads of this process, which may use that engine
            side by side; with 0 it only runs plans while other workers start.
    """

    executor: Executor | None
    opener: Callable[[Seat], Engine]
    here: Engine | None = None
    threads: int = 0

    @contextmanager
    def dispatcher(
        self,
        candidates: frozenset[int],
        settings: Settings,
        references: References,
        held: References | None,
        progress: Progress,
    ) -> Iterator[Dispatcher]:
        """Workers for a search; they start when they are first needed, and end with it."""
        own = frozenset(references.ids)

        def source(sample: int) -> tuple[object, object]:
            of = references if sample in own or held is None else held
            return of.inputs(sample), of.golden(sample)

        def prepare(dispatcher: Dispatcher) -> None:
            for of in (references, held):
                if of is not None and of.own:
                    _compute_golden(dispatcher, candidates, of, progress)

        # A user's function stays here: it need not be able to travel.
        rule = replace(settings, validator=None, threads=1)
        make = partial(_worker, self.opener, rule, candidates)
        start = self._start(rule, candidates)

        def opener() -> Pool:
            progress.phase("starting workers")
            return start(make)

        dispatcher = Dispatcher(opener, source, prepare)
        if isinstance(progress, ShowsCrew):
            dispatcher.watch = progress.crew
        try:
            yield dispatcher
        finally:
            dispatcher.close()

    def _start(
        self, rule: Settings, candidates: frozenset[int]
    ) -> Callable[[Callable[[Seat], Examiner]], Pool]:
        if self.here is not None:
            here = partial(Examiner, self.here, rule, candidates)
            return EagerExecutor(self.executor, here, self.threads).open
        assert self.executor is not None
        return self.executor.open


def team_of(
    executor: Executor, name: str, model: Model, options: EngineOptions, engine: Engine
) -> Team | None:
    """Workers that open an engine of the registry; None if a search does as well without them.

    Args:
        executor: Starts them.
        name: The engine's name.
        model: The model as it was loaded.
        options: What is asked of the engine.
        engine: The engine as it is here.
    """
    # A dear build would keep this process from serving its workers; and other machines may round
    # in their own way as long as they all agree.
    helps = executor.shares_files and not engine.capabilities().dear
    threads = (options.threads or default_threads()) if isinstance(engine, Blocks) else 0
    own, others = executor.without(threads)
    if helps and others is None and own <= _BUSY:
        return None
    parcel = Parcel.of(model, shares_files=executor.shares_files)
    opener = EngineOpener(name, parcel, options, engine.identity())
    return Team(others, opener, engine, own) if helps else Team(executor, opener)


def _worker(
    opener: Callable[[Seat], Engine], settings: Settings, candidates: frozenset[int], seat: Seat
) -> Examiner:
    return Examiner(opener(seat), settings, candidates)


def _compute_golden(
    dispatcher: Dispatcher,
    candidates: frozenset[int],
    references: References,
    progress: Progress,
) -> None:
    """Have workers run in fp32 the samples that came without golden outputs."""
    missing = [i for i in references.ids if not references.is_given(i)]
    if missing:
        progress.phase("computing golden outputs")
    jobs = [Job(OUTPUTS, candidates, OWN, sample, 0.0) for sample in missing]
    for sample, outputs in zip(missing, dispatcher.results(jobs), strict=True):
        if isinstance(outputs, EngineError):
            raise EngineError(f"the model fails even with every op in fp32: {outputs}")
        references.golden(sample, outputs)
