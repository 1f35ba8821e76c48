"""The order in which to keep ops, and where in it a search should begin."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from topsideas.calibration.felt import Felt, View
from topsideas.calibration.journal import Journal
from topsideas.calibration.progress import Progress
from topsideas.calibration.ranking import Ranking, telling
from topsideas.calibration.references import References
from topsideas.calibration.settings import Settings
from topsideas.engines.base import Engine
from topsideas.search.oracle import Items, Oracle
from topsideas.search.prefix import Prefix, decisive, shortest_prefix
from topsideas.verdict import Verdict

_Result = TypeVar("_Result")


class Follow(Protocol):
    """Has a strategy ask the oracle of a search."""

    def __call__(self, strategy: Callable[[Oracle], _Result], /) -> _Result:
        """What the strategy returns."""
        ...


@dataclass
class Ordering:
    """Orders ops by how likely they are needed.

    Args:
        engine: Runs plans.
        candidates: Ids of the ops that may run low.
        must: What is in every plan; it is not ordered.
        trace: The ops that overflow in fp32, by a traced run.
        references: The samples.
        settings: The rule.
        journal: Remembers which ops overflow.
        progress: Shown to the user.
        follow: Has a strategy ask the search's oracle.
        verdicts: The verdicts on a plan on every sample, the worst first.
        felt: Measures effects of ops.
        hurry: Whether time is too short to measure more.

    Attributes:
        overflowing: The ops that overflow in fp32.
        start: How many ops of the order are expected to be needed.
        errors: The errors predicted when the first 0, 1, 2, … ops of the order are kept; none
            where what overflows is all that is needed.
    """

    engine: Engine
    candidates: Items
    must: Items
    trace: Callable[[], Items]
    references: References
    settings: Settings
    journal: Journal
    progress: Progress
    follow: Follow
    verdicts: Callable[[Items], list[Verdict]]
    felt: Felt
    hurry: Callable[[], bool]
    overflowing: Items = frozenset()
    start: int = 0
    errors: list[float] = field(default_factory=list)

    def order(self) -> list[int]:
        """The order in which to keep ops: first what overflows or leaves outputs without a number.

        What does so drowns what all others do. It is all that is returned if that is enough.
        """
        self.progress.phase("tracing fp32 ranges")
        self.overflowing = self._overflowing()
        over = sorted(self.overflowing - self.must)
        first: list[int] = []
        if over:
            first = self._measured(over, self._views(frozenset())).order()
        if first and self._suffice(first):
            return first
        while breaking := self._breaking(frozenset(first)):
            first += breaking
            if self._suffice(first):
                return first
        return self._completed(first)

    def _completed(self, first: list[int]) -> list[int]:
        """``first`` and all others in their order, measured wherever it turns out to matter.

        An op that is needed and was overlooked stands far behind, and the shortest prefix that
        passes ends with it. Then groups are split further if it is in one; else only another
        sample needs it, or elements that nobody watched, and ops are measured there too.
        """
        views = self._views(frozenset(first))
        ranking = self._measured(self._others(first), views)
        order = first + self._order(ranking, len(first))
        found = None if self.journal.nearby() else self._overlooked(order)
        if found is None:
            return order
        op, view = found
        if ranking.is_exact(op) or view.sample not in [v.sample for v in views]:
            views = [*views, view]
        again = self._measured(self._others(first), views)
        again.thorough = not ranking.is_exact(op)
        return first + self._order(again, len(first))

    def _overlooked(self, order: list[int]) -> tuple[int, View] | None:
        """The op that the shortest prefix ends with, not by chance, and where it is needed."""
        prefix, verdict = self.follow(lambda oracle: self._last(oracle, order))
        if verdict is None or verdict.sample is None:
            return None
        before = order[: prefix.length - 1]
        return order[prefix.length - 1], View(verdict.sample, self.must.union(before))

    def _last(self, oracle: Oracle, order: list[int]) -> tuple[Prefix, Verdict | None]:
        oracle.phase = "prefix"
        prefix = shortest_prefix(oracle, self.must, order, self.start)
        return prefix, decisive(oracle, self.must, prefix)

    def _suffice(self, first: list[int]) -> bool:
        def passes(oracle: Oracle) -> bool:
            oracle.phase = "overflow"
            return oracle.passes(self.must.union(first))

        self.start = len(first)
        return self.follow(passes)

    def _others(self, first: Iterable[int]) -> list[int]:
        return sorted(self.candidates - self.must.union(first))

    def _breaking(self, kept: Items) -> list[int]:
        """Ops that leave outputs of the worst sample without a number, while ``kept`` is kept."""
        worst = self.verdicts(self.must | kept)[0]
        if worst.margin != math.inf or worst.sample is None:
            return []
        view = View(worst.sample, self.must | kept)
        ranking = self._measured(self._others(kept), [view])
        return ranking.order()[: ranking.breaking]

    def _overflowing(self) -> frozenset[int]:
        if not self.engine.capabilities().traces:
            return frozenset()  # what an engine does not show must be found by asking
        key = self.references.ids
        known = self.journal.recall("overflow", key)
        if known is None:
            known = sorted(self.trace())
            self.journal.record("overflow", key, known)
        return frozenset(known)

    def _views(self, kept: Items) -> list[View]:
        """Where to measure ops while ``kept`` is kept."""
        verdicts = self.verdicts(self.must | kept)
        samples = telling(verdicts, self.references.size) or self.references.ids[:1]
        return [View(sample, self.must | kept) for sample in samples]

    def _order(self, ranking: Ranking, start: int) -> list[int]:
        """The order of all but the first ``start`` ops, which are needed anyway."""
        order = ranking.order()
        # Without what is needed anyway the error has no bound.
        self.errors = [math.inf] * start + ranking.errors.tolist()
        self.start = start + ranking.expected
        return order

    def _measured(self, items: Sequence[int], views: Sequence[View]) -> Ranking:
        """A ranking of ``items``, to be ordered, at some views of which the first is the worst."""
        self.progress.phase("measuring the effect of ops")
        for view in views:
            self.felt.watch(view)
        return Ranking(
            engine=self.engine,
            felt=self.felt,
            items=items,
            views=views,
            worst=self.verdicts(views[0].kept)[0].margin,
            bound=self.settings.bound,
            count=len(self.references.ids),
            watch=self.progress.measured,
            hurry=self.hurry,
        )
