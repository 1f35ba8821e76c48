"""Gives jobs to workers: what is needed first, then what may be asked for next.

A job is a pure function of its plan and sample, so an answer is worth the same whoever gives it
and whenever. What is done with answers, and in which order, is up to the search, which goes its
way as it would alone; here it is only made sure that they are there when it asks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import Any

from topsideas.calibration.crew import Crew
from topsideas.calibration.jobs import OVERFLOW, VERDICT, Answer, Job
from topsideas.calibration.pace import Pace
from topsideas.calibration.requests import Flight, Request
from topsideas.errors import EngineError
from topsideas.executors.base import Done, Event, Joined, Left, Lost, Pool

Sources = Callable[[int], tuple[Any, Any]]
"""The inputs and golden outputs of a sample."""

# A job that so many workers in a row died of is given up.
_DEATHS = 8
# Seconds until workers that are late are looked at again, at least and at most.
_SOON, _LATER = 0.05, 1.0
# Answers that are remembered, and guesses that are looked at, per worker.
_REMEMBERED, _GUESSES = 200_000, 4


class Dispatcher:
    """See the module.

    Args:
        opener: Starts the workers, when they are first needed.
        sources: Reads samples; each is shared with the workers once.
        prepare: Called before the first verdict is asked for.

    Attributes:
        watch: Told of what workers did.
        ahead: Gives the jobs that may be asked for after a plan, likeliest first, while it is set.
        crew: What workers did so far.
        trial: A job that each worker is given first, and what is called with its answer and with
            where it comes from; that may raise.
    """

    def __init__(
        self,
        opener: Callable[[], Pool],
        sources: Sources,
        prepare: Callable[[Dispatcher], None] = lambda _: None,
    ) -> None:
        self._opener, self._sources = opener, sources
        self._prepare: Callable[[Dispatcher], None] | None = prepare
        self._opened: Pool | None = None
        self._began = False
        self.watch: Callable[[Crew], None] = lambda _: None
        self.ahead: Callable[[frozenset[int]], Iterator[Sequence[Job]]] | None = None
        self.crew = Crew()
        self._known: dict[Job, Any] = {}
        self._flights: dict[int, Flight] = {}
        self._tickets = count()
        self._idle: dict[int, Job | None] = {}  # seats without a task, and what they did last
        self._requests: list[Request] = []
        self._shared: dict[tuple[int, bool], Any] = {}
        self._ahead: set[frozenset[int]] = set()
        self._deaths: Counter[Job] = Counter()
        self._given: Counter[Job] = Counter()  # how many workers are at a job
        self._inbox: list[Event] = []
        self._pace = Pace()
        self._places: dict[int, str] = {}
        self._near: set[int] = set()
        self.trial: tuple[Job, Callable[[Any, str], None]] | None = None
        self._tries: set[int] = set()
        self._tried = 0

    def close(self) -> None:
        """End the workers."""
        if self._opened is not None:
            self._opened.close()

    @property
    def _pool(self) -> Pool:
        if self._opened is None:
            if self._began:  # Ctrl-C ended that: what is still asked for then is not worth it
                raise KeyboardInterrupt
            self._began = True
            self._opened = self._opener()
        return self._opened

    def known(self, job: Job) -> Any | None:
        """An answer that is there already."""
        return self._known.get(job)

    def results(
        self, jobs: Sequence[Job], ends: Callable[[Any], bool] | None = None
    ) -> Iterator[Any]:
        """The answers to jobs, in order. Whoever stops iterating stops the workers.

        Args:
            jobs: The jobs, which differ in their sample only, or in what they like.
            ends: Whether an answer is the last one needed; all are if None.

        Raises:
            EngineError: Workers cannot start, or die of a job again and again.
        """
        if self._prepare is not None and any(job.what == VERDICT for job in jobs):
            prepare, self._prepare = self._prepare, None
            prepare(self)
        self._note_use(jobs)
        request = Request(jobs, ends, self._known)
        self._requests.append(request)
        try:
            for at, job in enumerate(jobs):
                if at > request.cut:
                    return
                while job not in self._known:
                    self._turn()
                # Outputs are large: they are gone with the last who asked for them.
                keep = job.what == VERDICT or request.place(job) > at
                yield self._known[job] if keep else self._known.pop(job)
        finally:
            self._requests.remove(request)
            self._stop_needless()

    def wait_for_trials(self, count: int) -> None:
        """Wait until so many trials were answered; a worker that is alone is tried again."""
        while self._tried < count:
            if self._idle and len(self._tries) + self._tried < count:
                self._try(next(iter(self._idle)))
            self._collect()

    def _try(self, seat: int) -> None:
        assert self.trial is not None
        self._tries.add(self._start(seat, [self.trial[0]]))

    def forget(self, kept: frozenset[int]) -> None:
        """Forget the answers on a plan, so that it is run again."""
        self._known = {job: found for job, found in self._known.items() if job.kept != kept}

    # --- one turn ------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Give idle workers something to do, and wait until something happens."""
        self._give_needed()
        self._give_again()
        if self._idle and self._requests and self.ahead is not None:
            self._give_ahead(self.ahead(self._requests[-1].asked))
        self._collect()

    def _give_needed(self) -> None:
        for request in self._requests:
            while self._idle and request.waiting:
                seat, jobs = self._dealt(request.waiting)
                del request.waiting[: len(jobs)]
                # Some may have been answered ahead meanwhile, or are being.
                jobs = [j for j in jobs if j not in self._known and not self._in_flight(j)]
                if jobs:
                    self._start(seat, jobs, every=request.every)

    def _give_again(self) -> None:
        """Let idle workers try what others take too long for."""
        now = self._pool.now()
        for flight in list(self._flights.values()):
            if not self._idle:
                return
            late = now - flight.start > self._pace.patience(len(flight.jobs))
            if late and self._needed(flight):
                jobs = [j for j in flight.jobs if j not in self._known]
                if jobs and self._given[jobs[0]] == 1:
                    self.crew = replace(self.crew, again=self.crew.again + len(jobs))
                    self._start(self._best_seat(jobs[0]), jobs)

    def _give_ahead(self, guesses: Iterator[Sequence[Job]]) -> None:
        if not self._pace.guessing_pays:
            return
        start = self._pool.now()
        for jobs in islice(guesses, _GUESSES * len(self._pool.seats)):
            self._pace.guessed(self._pool.now() - start)
            jobs = [j for j in jobs if j not in self._known and not self._in_flight(j)]
            if jobs:
                seat, jobs = self._dealt(jobs)
                self._ahead.add(jobs[0].kept)
                self._start(seat, jobs)
            if not self._idle:
                break
            start = self._pool.now()

    def _collect(self) -> None:
        """Wait until something happens."""
        self._inbox += self._pool.wait(self._next_look())
        while self._inbox:  # one by one, so that Ctrl-C loses none
            event = self._inbox.pop(0)
            if isinstance(event, Done):
                self._take(event)
            elif isinstance(event, Lost):
                self._mourn(event)
            elif isinstance(event, Left):
                self._idle.pop(event.seat, None)
            elif isinstance(event, Joined):
                self._idle[event.seat] = None
                self._places[event.seat] = event.where
                if event.near:
                    self._near.add(event.seat)
                if self.trial is not None:
                    self._try(event.seat)
        self._tell()

    def _take(self, done: Done) -> None:
        flight = self._land(done.ticket)
        if flight is None:
            return
        answers: Sequence[Answer] = done.result
        self._deaths.pop(flight.jobs[0], None)
        self._idle[done.seat] = flight.jobs[-1]
        if done.ticket in self._tries and self.trial is not None:
            self._tried += 1
            self._tries.discard(done.ticket)
            self.trial[1](answers[0].value, self._places[done.seat])
            self._want(flight.jobs)  # a search may ask the same
            return
        # By the clock of the workers, which also counts how long they were waited for.
        part = (self._pool.now() - flight.start) / max(1e-9, sum(a.seconds for a in answers))
        for job, answer in zip(flight.jobs, answers, strict=False):
            self._known[job] = answer.value
            for request in self._requests:
                request.see(job, answer.value)
            self._pace.see(answer, part)
        self._want(flight.jobs[len(answers) :])
        self._stop_needless()
        if len(self._known) > _REMEMBERED:
            for job in list(islice(self._known, _REMEMBERED // 2)):
                del self._known[job]

    def _mourn(self, lost: Lost) -> None:
        for ticket in lost.tickets:
            flight = self._land(ticket)
            self._tries.discard(ticket)
            if flight is None:
                continue
            self.crew = replace(self.crew, again=self.crew.again + len(flight.jobs))
            self._deaths[flight.jobs[0]] += 1
            if self._deaths[flight.jobs[0]] >= _DEATHS:
                raise EngineError(
                    f"{_DEATHS} workers died of one plan, the last one like this: {lost.why}. "
                    "Remedy: --isolate turns a crash of the engine into a verdict; fewer "
                    "--workers leave more memory to each"
                )
            self._want(flight.jobs)
        if lost.alive:
            self._idle[lost.seat] = None
        else:
            self._idle.pop(lost.seat, None)
            self.crew = replace(self.crew, lost=self.crew.lost + 1)

    def _land(self, ticket: int) -> Flight | None:
        flight = self._flights.pop(ticket, None)
        if flight is not None:
            self._given -= Counter(flight.jobs)
        return flight

    # --- what is needed ------------------------------------------------------------------------

    def _want(self, jobs: Sequence[Job]) -> None:
        """Queue again what was not done, if somebody waits for it."""
        for request in self._requests:
            request.waiting[:0] = [
                j for j in jobs if request.needs(j) and j not in self._known and not self._given[j]
            ]

    def _needed(self, flight: Flight) -> bool:
        return any(request.needs(job) for request in self._requests for job in flight.jobs)

    def _stop_needless(self) -> None:
        """Stop workers amid samples that nobody waits for; a single run is left alone."""
        for ticket, flight in self._flights.items():
            if len(flight.jobs) > 1 and not flight.stopped and not self._needed(flight):
                flight.stopped = True
                self._pool.stop(ticket)

    def _in_flight(self, job: Job) -> bool:
        return self._given[job] > 0

    # --- giving --------------------------------------------------------------------------------

    def _start(self, seat: int, jobs: Sequence[Job], *, every: bool = False) -> int:
        del self._idle[seat]
        ticket = next(self._tickets)
        self._flights[ticket] = Flight(seat, jobs, self._pool.now())
        self._given.update(jobs)
        shared = [part for job in jobs for part in self._shares(job)]
        self._pool.submit(seat, ticket, (jobs, every), shared, _title(jobs))
        return ticket

    def _shares(self, job: Job) -> list[Any]:
        return [
            self._share(job.sample, golden=False),
            self._share(job.sample, golden=True) if job.what == VERDICT else None,
        ]

    def _share(self, sample: int, *, golden: bool) -> Any:
        key = sample, golden
        if key not in self._shared:
            self._shared[key] = self._pool.share(self._sources(sample)[golden])
        return self._shared[key]

    def _dealt(self, jobs: Sequence[Job]) -> tuple[int, list[Job]]:
        """Who is given how many of the first of these jobs."""
        seat = self._best_seat(jobs[0])
        return seat, self._pace.chunk(jobs, len(self._idle), near=seat in self._near)

    def _best_seat(self, job: Job) -> int:
        """A worker that ran the same plan last, or any."""
        for seat, last in self._idle.items():
            if last is not None and (last.kept, last.way) == (job.kept, job.way):
                return seat
        return next(iter(self._idle))

    def _next_look(self) -> float | None:
        """When somebody may have to be tried again."""
        if not self._flights:
            return None
        now = self._pool.now()
        waits = ((f.start, self._pace.patience(len(f.jobs))) for f in self._flights.values())
        due = (start + patience - now for start, patience in waits)
        return max(_SOON, min((d for d in due if d > 0), default=_LATER))

    # --- telling -------------------------------------------------------------------------------

    def _note_use(self, jobs: Sequence[Job]) -> None:
        used = {job.kept for job in jobs} & self._ahead
        self._ahead -= used
        used_so_far = self.crew.used + len(used)
        self.crew = replace(self.crew, used=used_so_far, ahead=len(self._ahead))

    def _tell(self) -> None:
        there = len(self._idle) + len({f.seat for f in self._flights.values()})
        crew = replace(self.crew, workers=there, ahead=len(self._ahead))
        if crew != self.crew:
            self.crew = crew
            self.watch(crew)


def _title(jobs: Sequence[Job]) -> str:
    """What to call a task where workers are looked at."""
    job = jobs[0]
    which = f"sample {job.sample}" if len(jobs) == 1 else f"{len(jobs)} samples"
    if job.what == OVERFLOW:
        return f"trace ranges, {which}"
    return f"{'judge' if job.what == VERDICT else 'run'} {len(job.kept)} kept ops, {which}"
