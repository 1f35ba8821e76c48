"""What a worker does: it holds an engine, runs plans on samples, and judges what comes out."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from topsideas.calibration.jobs import OVERFLOW, OWN, VERDICT, Answer, Job, Task
from topsideas.calibration.judge import Judge
from topsideas.calibration.ranking import overflowing
from topsideas.calibration.references import References
from topsideas.calibration.settings import Settings
from topsideas.engines.base import Engine, Once, Runnable
from topsideas.errors import EngineError
from topsideas.plan import PrecisionPlan
from topsideas.samples.sample import Sample

# Executables that stay open: a plan is asked about in up to three ways.
_OPEN = 3


class Examiner:
    """A worker. See :class:`topsideas.executors.base.Worker`.

    Args:
        engine: Runs plans.
        settings: The rule.
        candidates: The ops that may run low.
    """

    def __init__(self, engine: Engine, settings: Settings, candidates: frozenset[int]) -> None:
        self._engine, self._settings = engine, settings
        # These plans are like no other of the search.
        self._controls = candidates, settings.must_keep & candidates
        self._open: OrderedDict[tuple[frozenset[int], str], Runnable] = OrderedDict()

    def work(self, task: Task, shared: Sequence[Any], stopped: Callable[[], bool]) -> list[Answer]:
        """Answer jobs that differ in their sample only.

        Args:
            task: The jobs, and whether all are to be done or none behind one that fails.
            shared: For each of them the inputs and, for verdicts, the golden outputs.
            stopped: See :meth:`topsideas.executors.base.Worker.work`.
        """
        answers: list[Answer] = []
        jobs, every = task
        for job, (inputs, golden) in zip(jobs, _pairs(shared), strict=True):
            start = time.perf_counter()
            first = (job.kept, job.way) not in self._open
            value = self._answer(job, Sample(job.sample, inputs, golden))
            answers.append(Answer(value, time.perf_counter() - start, first))
            if stopped() or not (every or job.what != VERDICT or value.passed):
                break
        return answers

    def _answer(self, job: Job, sample: Sample) -> Any:
        judge = Judge(self._engine, References([sample], _refuse), self._settings)
        judge.repeats = job.repeats
        if job.what == OVERFLOW:
            found = overflowing(self._engine, job.kept, [sample.inputs], job.bound)
            return sorted(found)
        if job.what == VERDICT:
            return judge.judge_sample(self._runnable(job), sample.id, job.bound)
        try:
            return self._runnable(job).run(sample.inputs)
        except EngineError as error:
            return error

    def _runnable(self, job: Job) -> Runnable:
        key = job.kept, job.way
        if key not in self._open:
            self._open[key] = _Lazy(partial(self._opened, job))
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key]

    def _opened(self, job: Job) -> Runnable:
        executable: Any = self._engine.compile(PrecisionPlan(job.kept))
        if job.way != OWN:
            runner: Runnable = getattr(executable, job.way)()
            return runner
        if job.kept in self._controls and isinstance(executable, Once):
            return executable.once()
        return executable  # type: ignore[no-any-return]


class _Lazy:
    """Opens when it is first run, so that a failure to open is a failure to run."""

    def __init__(self, opener: Callable[[], Runnable]) -> None:
        self._opener = opener
        self._runner: Runnable | None = None

    def run(self, feeds: Any) -> dict[str, Any]:
        if self._runner is None:
            self._runner = self._opener()
        return self._runner.run(feeds)


def _pairs(shared: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(shared[::2], shared[1::2], strict=True)


def _refuse() -> Runnable:
    raise EngineError("a worker was sent a sample without golden outputs")
