"""Where the plans of a search run: in this process, or by workers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from topsideas.calibration.crew import Crew
from topsideas.calibration.dispatch import Dispatcher
from topsideas.calibration.judge import Judge
from topsideas.calibration.noise import differing_output
from topsideas.calibration.pooled import Foresight, PooledEngine, check_alike
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
        references: The samples.
        dispatcher: Workers; None to run all in this process.

    Attributes:
        engine: The engine, or what looks like it and has workers run its plans.
    """

    def __init__(
        self, engine: Engine, references: References, dispatcher: Dispatcher | None
    ) -> None:
        self._references, self._dispatcher = references, dispatcher
        self._pooled = None if dispatcher is None else PooledEngine(engine, dispatcher)
        self.engine: Engine = self._pooled or engine

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

    def differing_output(self, judge: Judge, kept: Items) -> str:
        """The output in which two runs of a plan on one sample differ; empty if they agree.

        Raises:
            EngineError: They do, on workers: judging again and again is done in one process only.
        """
        if self._dispatcher is None:
            return differing_output(judge.once(kept), self._references.inputs(judge.hardest))
        check_alike(self._dispatcher, kept, judge.hardest)
        return ""

    def overflowing(self, candidates: Items, limit: float) -> frozenset[int]:
        """Ops that exceed ``limit`` in fp32 on any sample; see :mod:`calibration.ranking`."""
        samples = self._references.ids
        if self._pooled is not None:
            return self._pooled.overflowing(candidates, samples, limit)
        feeds = (self._references.inputs(i) for i in samples)
        return overflowing(self.engine, candidates, feeds, limit)


def _ignore(kept: Items) -> None:
    """What may be asked about next is run ahead by other means."""
