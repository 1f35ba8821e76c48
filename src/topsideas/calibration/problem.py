"""One model, its samples, an engine and a rule: what every use case works on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import topsideas
from topsideas.calibration.auto import AutoSearch
from topsideas.calibration.builds import CountedEngine
from topsideas.calibration.dispatch import Dispatcher
from topsideas.calibration.habits import Habit
from topsideas.calibration.journal import Journal, Store
from topsideas.calibration.judge import Judge
from topsideas.calibration.manual import ArrayStore, SampleStatistics, StatisticsRun
from topsideas.calibration.pricing import prices_of
from topsideas.calibration.progress import Progress
from topsideas.calibration.propose import ProposedSearch
from topsideas.calibration.references import References, SampleSource, fp32_runner
from topsideas.calibration.result import SearchResult
from topsideas.calibration.settings import Settings
from topsideas.calibration.team import Team
from topsideas.engines.base import Engine, OwnOps, Runnable
from topsideas.engines.options import EngineOptions
from topsideas.errors import EngineError
from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Precision
from topsideas.prices import Prices
from topsideas.samples.shapes import ShapeBounds
from topsideas.stats.calc import Thresholds
from topsideas.verdict import Verdict

Digests = dict[int, list[str | None]]


@dataclass(frozen=True)
class Proposer:
    """An engine whose plans another one verifies.

    Attributes:
        engine: The emulator, under the numbers of the other engine.
        opener: Opens it with a habit.
        journal: Remembers what it said.
    """

    engine: Engine
    opener: Callable[[Habit], Engine]
    journal: Journal


@dataclass(frozen=True)
class Problem:
    """What a search or a comparison is about. Made by :func:`make_problem`."""

    model: Model
    engine: Engine
    precision: Precision
    settings: Settings
    references: References
    held: References | None
    journal: Journal
    proposer: Proposer | None = None
    team: Team | None = None

    def search(self, progress: Progress) -> SearchResult:
        """Find the ops to keep. Raises BaselineError, EngineError, ValidatorError."""
        if self.team is None:
            return self._search(progress, None)
        held = self.held
        with self.team.dispatcher(
            self.model.candidates, self.settings, self.references, held, progress
        ) as dispatcher:
            return self._search(progress, dispatcher)

    def _search(self, progress: Progress, dispatcher: Dispatcher | None) -> SearchResult:
        asked = (
            self.engine,
            self.model.candidates,
            self.precision,
            self.references,
            self.held,
            self.settings,
            self.journal,
            progress,
            self._prices,
            dispatcher,
        )
        if self.proposer is None:
            return AutoSearch(*asked).run()
        return ProposedSearch(
            *asked,
            model=self.model,
            proposers=self.proposer.opener,
            proposer_journal=self.proposer.journal,
            same_numbers=not isinstance(self.engine, OwnOps),
        ).run()

    def _prices(self) -> Prices:
        """What plans cost; an engine's own ops have no shapes to estimate from."""
        if isinstance(self.engine, OwnOps):
            return Prices.uniform(self.model.candidates)
        engine = self.proposer.engine if self.proposer is not None else self.engine
        return prices_of(self.model, engine, self.precision, self.references, self.journal)

    def verdict(self, plan: PrecisionPlan) -> Verdict:
        """Judge a plan on every sample. Raises ValidatorError."""
        return Judge(self.engine, self.references, self.settings).full_margin(plan.kept)

    def judged(self, runnable: Runnable) -> Verdict:
        """Judge anything that runs, on every sample. Raises ValidatorError."""
        judge = Judge(self.engine, self.references, self.settings)
        return judge.verdicts(frozenset(), runnable)[0]

    def verdicts(self, plan: PrecisionPlan) -> list[Verdict]:
        """The verdicts on every sample, the worst first. Raises ValidatorError."""
        return Judge(self.engine, self.references, self.settings).verdicts(plan.kept)

    def statistics(
        self,
        plan: PrecisionPlan,
        mode: str,
        thresholds: Thresholds,
        arrays: ArrayStore,
        progress: Progress,
    ) -> list[SampleStatistics]:
        """Compare the fp32 run with the plan's, sample by sample. Raises EngineError.

        Args:
            plan: The ops kept in fp32.
            mode: ``CALC``, ``RAW``, or ``OFF`` for the whole-network comparison only.
            thresholds: What CALC counts.
            arrays: Keeps tensors between steps.
            progress: Shown to the user.
        """
        return StatisticsRun(
            self.engine,
            self.model.candidates,
            self.references,
            mode,
            thresholds,
            self.settings.criterion,
            self.journal,
            arrays,
            progress,
            self.settings.threads,
        ).run(plan)


def fingerprint(
    model: Model, engine: str, options: EngineOptions, bounds: ShapeBounds | None
) -> dict[str, Any]:
    """What all runs in one workspace must share: the model, and all that compiling depends on."""
    return {
        "model": model.digest,
        "engine": engine,
        **options.numerics.to_json(),
        "compile_options": options.merged(),
        "min_shapes": dict(bounds.min) if bounds is not None else {},
        "max_shapes": dict(bounds.max) if bounds is not None else {},
    }


def read_samples(sources: Iterable[SampleSource], bounds: ShapeBounds | None) -> Digests:
    """Read every sample once, so that a bad one is found before anything runs or is written.

    Returns:
        For each sample id the digests of its inputs and of its golden outputs, if it has any.

    Raises:
        SampleError: A sample is damaged, does not fit the model, or lies outside ``bounds``.
    """
    return {source.id: _checked(source, bounds) for source in sources}


def make_problem(
    model: Model,
    engine: Engine,
    precision: Precision,
    sources: Sequence[SampleSource],
    held: Sequence[SampleSource],
    settings: Settings,
    store: Store,
    digests: Digests,
    *,
    golden: Callable[[], Runnable] | None = None,
    proposer: Engine | None = None,
    proposers: Callable[[Habit], Engine] | None = None,
    team: Team | None = None,
) -> Problem:
    """Put a problem together.

    Args:
        model: The model.
        engine: Runs it.
        precision: The low format.
        sources: The samples to search with.
        held: Samples that only check the answer.
        settings: The rule.
        store: Remembers results between runs.
        digests: What :func:`read_samples` returned for all of them.
        golden: Opens what computes golden outputs that were not given; the engine in fp32 if
            None.
        proposer: Is searched for plans that the engine verifies; None to search the engine.
        proposers: Opens it with a habit; only the definition is tried if None.
        team: Who runs the search's plans on samples; this process if None.
    """
    if engine.capabilities().dear:
        engine = CountedEngine(engine)

    def journal(of: Engine) -> Journal:
        about = {
            "model": model.digest,
            "engine": of.identity().to_json(),
            "samples": {str(s.id): digests[s.id] for s in sources},
            "version": topsideas.__version__,
        }
        if isinstance(engine, OwnOps):  # the same ids stand for other ops than the model's
            about["numbers"] = engine.identity().to_json()
        return Journal(store, about, settings.judging())

    own, fp32 = golden is None, golden or (lambda: fp32_runner(engine, model.candidates))

    def references(of: Sequence[SampleSource]) -> References:
        return References(of, fp32, own=own, digests=digests, limit=settings.sample_bytes)

    return Problem(
        model=model,
        engine=engine,
        precision=precision,
        settings=settings,
        references=references(sources),
        held=references(held) if held else None,
        journal=journal(engine),
        proposer=_proposer(proposer, proposers, journal),
        team=team,
    )


def _proposer(
    engine: Engine | None,
    opener: Callable[[Habit], Engine] | None,
    journal: Callable[[Engine], Journal],
) -> Proposer | None:
    if engine is None:
        return None

    def opened(habit: Habit) -> Engine:
        plain = habit.fuses is None and not habit.options
        if plain:
            return engine
        if opener is None:
            raise EngineError(f"no emulator that {habit.name} is at hand")
        return opener(habit)

    return Proposer(engine, opened, journal(engine))


def _checked(source: SampleSource, bounds: ShapeBounds | None) -> list[str | None]:
    sample = source.load()
    if bounds is not None:
        bounds.check(sample)
    return [sample.inputs_digest, sample.golden_digest]
