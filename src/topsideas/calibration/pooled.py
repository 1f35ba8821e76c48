"""An engine whose runs are made by workers, so that a search on it need not know of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from topsideas.calibration.dispatch import Dispatcher
from topsideas.calibration.jobs import FUSED, OUTPUTS, OVERFLOW, OWN, SECOND, VERDICT, Job
from topsideas.calibration.judge import Judge
from topsideas.calibration.noise import differing_output
from topsideas.engines.base import (
    Arrays,
    Capabilities,
    Engine,
    Executable,
    Identity,
    Runnable,
    SecondOpinion,
    Trace,
)
from topsideas.errors import EngineError
from topsideas.plan import PrecisionPlan
from topsideas.search.lookahead import Guess, Lookahead, Strategy
from topsideas.search.oracle import Items, Oracle
from topsideas.verdict import Verdict

Outputs = dict[str, Any] | EngineError

# A guess that was this likely stands for those that were made with it.
_SURE = 0.7


class _Source(Protocol):
    """Where answers come from."""

    def results(
        self, jobs: Sequence[Job], ends: Callable[[Any], bool] | None = None
    ) -> Iterator[Any]:
        """See :meth:`Dispatcher.results`."""
        ...


class PooledEngine:
    """Looks like an engine; what its executables run on samples, workers run.

    Args:
        inner: The engine as it is in this process. Traces, and whatever else has to do with one
            executable alone, stay here.
        source: The workers.
    """

    def __init__(self, inner: Engine, source: _Source) -> None:
        self._inner, self._source = inner, source
        self._opinions: bool | None = None
        for name in ("ops", "finalize", "blocks", "times"):  # what only some engines have
            if hasattr(inner, name):
                setattr(self, name, getattr(inner, name))

    def with_source(self, source: _Source) -> PooledEngine:
        """The same engine with other answers."""
        return PooledEngine(self._inner, source)

    def identity(self) -> Identity:
        """The engine's."""
        return self._inner.identity()

    def capabilities(self) -> Capabilities:
        """The engine's."""
        return self._inner.capabilities()

    def compile(self, plan: PrecisionPlan) -> PooledExecutable:
        """An executable that workers run."""
        if self._opinions is None:
            self._opinions = isinstance(self._inner.compile(plan), SecondOpinion)
        kind = _WithOpinions if self._opinions else PooledExecutable
        return kind(self._inner, plan, self._source)

    def load(self, path: Path) -> Runnable:
        """Open a saved executable, here. Raises EngineError."""
        return self._inner.load(path)

    def outputs(self, questions: Sequence[tuple[Items, int]]) -> Iterator[Outputs]:
        """The outputs of plans on samples, in order, or why there are none."""
        return self._source.results([Job(OUTPUTS, k, OWN, sample, 0.0) for k, sample in questions])

    def overflowing(
        self, candidates: Items, samples: Sequence[int], limit: float
    ) -> frozenset[int]:
        """Ops that exceed ``limit`` in fp32; see :func:`calibration.ranking.overflowing`."""
        jobs = [Job(OVERFLOW, candidates, OWN, sample, limit) for sample in samples]
        return frozenset().union(*self._source.results(jobs))


class PooledExecutable:
    """A plan that workers run, in one of the engine's ways; see :class:`engines.base.Sharded`."""

    def __init__(
        self, inner: Engine, plan: PrecisionPlan, source: _Source, way: str = OWN
    ) -> None:
        self._inner, self._plan, self._source, self._way = inner, plan, source, way

    def verdicts(
        self, samples: Sequence[int], bound: float, *, every: bool = False, repeats: int = 1
    ) -> Iterator[Verdict]:
        """The verdicts; the first sample is judged alone unless every one is wanted."""
        kept, way = self._plan.kept, self._way
        jobs = [Job(VERDICT, kept, way, sample, bound, repeats) for sample in samples]
        if every:
            yield from self._source.results(jobs)
            return
        yield from self._source.results(jobs[:1])
        yield from self._source.results(jobs[1:], ends=_fails)

    def outputs(self, samples: Sequence[int]) -> Iterator[Outputs]:
        """The outputs for each sample, in order, or why there are none."""
        jobs = [Job(OUTPUTS, self._plan.kept, self._way, sample, 0.0) for sample in samples]
        return self._source.results(jobs)

    def once(self) -> PooledExecutable:
        """Workers know by themselves which plans are run once only."""
        return self

    def run(self, feeds: Arrays) -> dict[str, Any]:
        """Run here. Raises EngineError."""
        return self._here().run(feeds)

    def trace(self, feeds: Arrays) -> Trace:
        """Trace here."""
        return self._here().trace(feeds)

    def save(self, path: Path) -> None:
        """Build here, and write what was compiled."""
        self._here().save(path)

    def dump(self, path: Path) -> None:
        """Build here, and write a readable listing."""
        self._here().dump(path)

    def _here(self) -> Executable:
        return self._inner.compile(self._plan)


class _WithOpinions(PooledExecutable):
    """One whose engine has other ways to execute a plan."""

    def second_opinion(self) -> PooledExecutable:
        """The same plan, executed by other means."""
        return PooledExecutable(self._inner, self._plan, self._source, SECOND)

    def fused(self) -> PooledExecutable:
        """The same plan on a target that rounds as little as fusion allows."""
        return PooledExecutable(self._inner, self._plan, self._source, FUSED)


class Foresight:
    """Runs plans ahead that a strategy may ask about.

    Args:
        engine: What the search runs on.
        dispatcher: Its workers.
        judge: What the search judges by.
        recall: Looks a plan up in an earlier run's journal.
    """

    def __init__(
        self,
        engine: PooledEngine,
        dispatcher: Dispatcher,
        judge: Judge,
        recall: Callable[[Items], Verdict | None],
    ) -> None:
        self._dispatcher, self._judge, self._recall = dispatcher, judge, recall
        self._engine = engine.with_source(_Peek(dispatcher))
        self._recalled: dict[tuple[Items, bool], Verdict | None] = {}
        self._guesses: list[Guess] = []

    @contextmanager
    def foreseeing(self, oracle: Oracle, strategy: Strategy) -> Iterator[None]:
        """While inside, workers that wait run what the strategy may ask about from now on."""
        lookahead = Lookahead(oracle, strategy, self._found)
        before = self._dispatcher.ahead
        self._dispatcher.ahead = lambda asked: self._jobs(lookahead, asked)
        try:
            yield
        finally:
            self._dispatcher.ahead = before

    def _jobs(self, lookahead: Lookahead, asked: Items) -> Iterator[Sequence[Job]]:
        """What to run for each guess. Guesses are good as long as the search asks as guessed."""
        left = [guess for guess in self._guesses if not lookahead.knows(guess.items)]
        if left and left[0].items == asked and left[0].likelihood >= _SURE:
            self._guesses = left
            yield from (self._missing(guess.items) for guess in left)
        self._guesses = []
        for guesses in lookahead.walks():
            self._guesses += guesses
            yield from (self._missing(guess.items) for guess in guesses)

    def _missing(self, kept: Items) -> Sequence[Job]:
        try:
            self._judge.like(self._engine).judge(kept)
        except _Missing as missing:
            return missing.jobs
        return ()

    def _found(self, kept: Items) -> Verdict | None:
        """A verdict that takes no run."""
        try:
            return self._judge.like(self._engine).judge(kept)
        except _Missing:
            pass
        key = kept, self._judge.strict
        if key not in self._recalled:  # this run records nothing that it did not ask for
            self._recalled[key] = self._recall(kept)
        return self._recalled[key]


class _Missing(Exception):  # noqa: N818 - it says what to do
    """Answers that are not there yet; the first of them is needed first."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs


class _Peek:
    """Gives the answers that are there."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def results(
        self, jobs: Sequence[Job], ends: Callable[[Any], bool] | None = None
    ) -> Iterator[Any]:
        for at, job in enumerate(jobs):
            answer = self._dispatcher.known(job)
            # Outputs are there for the user's function, which is called for what is asked only.
            if answer is None or job.what == OUTPUTS:
                raise _Missing([j for j in jobs[at:] if self._dispatcher.known(j) is None])
            yield answer


def compare_workers(dispatcher: Dispatcher, kept: Items, sample: int) -> None:
    """Have every worker run a plan on one sample, before anything else.

    They must agree bit for bit: one that differs, now or when it joins later, ends the search by
    an EngineError, as its answers would not be those of the others.
    """
    first: list[tuple[Outputs, str]] = []

    def check(outputs: Outputs, place: str) -> None:
        if not first:
            first.append((outputs, place))
        reference, where = first[0]
        if isinstance(outputs, EngineError) or isinstance(reference, EngineError):
            return  # a plan that cannot run fails: that is a verdict, and the same one twice
        output = differing_output(reference, outputs)
        if output:
            raise EngineError(
                f"two runs of the same plan on the same sample, by {where} and by {place}, differ "
                f"in output {output!r}; expected the same answer from all workers. Remedy: use "
                "machines and cards of one kind; an engine that is not deterministic is judged "
                "several times where there are no workers"
            )

    dispatcher.trial = Job(OUTPUTS, kept, OWN, sample, 0.0), check


def _fails(verdict: Verdict) -> bool:
    return not verdict.passed
