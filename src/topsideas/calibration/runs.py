"""Where the plans of a search run: in this process, or by workers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from topsideas.calibration.crew import Crew
from topsideas.calibration.dispatch import Dispatcher
from topsideas.calibration.judge import Judge
from topsideas.calibration.noise import runs_differ
from topsideas.calibration.pooled import Foresight, PooledEngine, compare_workers
from topsideas.calibration.ranking import overflowing
from topsideas.calibration.references import References
from topsideas.engines.base import Engine
from topsideas.search.lookahead import Strategy
from topsideas.search.oracle import Items, Oracle
from topsideas.verdict import Verdict


class Runs:
    """What a search does in one way alone and in another with workers.

    Args:
        engine: Runs plans.
        must: The plan that keeps least, which workers are compared by.
        references: The samples.
        dispatcher: Workers; None to run all in this process.

    Attributes:
        engine: The engine, or what looks like it and has workers run its plans.
    """

    def __init__(
        self,
        engine: Engine,
        must: Items,
        references: References,
        dispatcher: Dispatcher | None,
    ) -> None:
        self._must, self._references, self._dispatcher = must, references, dispatcher
        self._pooled = None if dispatcher is None else PooledEngine(engine, dispatcher)
        self.engine: Engine = self._pooled or engine
        if dispatcher is not None:
            compare_workers(dispatcher, must, references.ids[0])

    @property
    def crew(self) -> Crew | None:
        """What workers did so far; None if there are none."""
        return None if self._dispatcher is None else self._dispatcher.crew

    def hint(self, judge: Judge) -> Callable[[Items], None]:
        """What is told of the plan that comes next if the present one fails."""
        return judge.expect if self._pooled is None else _ignore

    def foreseeing(
        self,
        oracle: Oracle,
        strategy: Strategy,
        judge: Judge,
        recall: Callable[[Items], Verdict | None],
    ) -> AbstractContextManager[None]:
        """While inside, workers run ahead what the strategy may ask about from now on."""
        if self._pooled is None or self._dispatcher is None:
            return nullcontext()
        foresight = Foresight(self._pooled, self._dispatcher, judge, recall)
        return foresight.foreseeing(oracle, strategy)

    def differing_output(self, judge: Judge) -> str:
        """The output in which two runs of the plan that keeps least differ; empty if they agree.

        Raises:
            EngineError: Two workers differ: judging again and again does not help then.
        """
        if self._dispatcher is None:
            runner = judge.once(self._must)
            return runs_differ(runner, self._references.inputs(judge.hardest))
        self._dispatcher.wait_for_trials(2)
        return ""

    def forget(self, kept: Items) -> None:
        """Forget what workers said of a plan, so that it is run again."""
        if self._dispatcher is not None:
            self._dispatcher.forget(kept)

    def overflowing(self, candidates: Items, limit: float) -> frozenset[int]:
        """Ops that exceed ``limit`` in fp32 on any sample; see :mod:`calibration.ranking`."""
        samples = self._references.ids
        if self._pooled is not None:
            return self._pooled.overflowing(candidates, samples, limit)
        feeds = (self._references.inputs(i) for i in samples)
        return overflowing(self.engine, candidates, feeds, limit)


def _ignore(kept: Items) -> None:
    """What may be asked about next is run ahead by other means."""
