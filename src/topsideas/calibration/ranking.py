"""Which ops most likely need fp32: those that overflow, then those whose rounding is felt most."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from topsideas.calibration.felt import Felt, Items, View
from topsideas.engines.base import Blocks, Engine
from topsideas.plan import PrecisionPlan
from topsideas.search.variance import (
    errors_left,
    expected_length,
    greedy_order,
    worst_weights,
)
from topsideas.stats.calc import beyond
from topsideas.stats.probes import BROKEN
from topsideas.verdict import Verdict

# How many of the failing samples ops are measured on: errors that add up on one sample are not
# those that do on another, yet a third one was measured to change little. They are chosen among
# so many, the worst first, whose margin is at least this part of the worst.
_SAMPLES, _LOOKED_AT, _CLOSE = 2, 8, 0.5
# Full passes over the samples that ranking may cost, and more per op that is expected in the
# answer: a large answer asks for many evaluations anyway, and a good order saves more of them.
_PASSES, _PASSES_PER_OP = 10.0, 1.0
# Passes over one sample that may always be spent, however few samples there are; and so many
# that measuring groups first would save little and leave guesses.
_LEAST_PASSES, _FEW = 32.0, 64.0
# Groups split side by side; and the part of what is allowed to be left that groups may add
# together without being split any more.
_SPLITS = 8
_QUIET = 0.05
# Ops are ordered anew, which tells how many more runs pay, when so many times more were made.
_ANEW = 1.1
# So many times the usual effort is spent once an op turned out to have been overlooked.
_THOROUGH = 2.0
# Of what a group adds, each half is taken to add this part at least.
_LEAST_HALF = 0.1
# Ops per block on engines that tell of none.
_BLOCK = 16


def overflowing(
    engine: Engine,
    candidates: frozenset[int],
    feeds: Iterable[dict[str, np.ndarray]],
    limit: float,
) -> frozenset[int]:
    """Ops that write or read finite values beyond ``limit`` in fp32, on any of the samples.

    Args:
        engine: Traces the model with every op in fp32.
        candidates: The ops that may run low.
        feeds: The samples' inputs.
        limit: The largest magnitude of the low format.
    """
    executable = engine.compile(PrecisionPlan(candidates))
    found: set[int] = set()
    for inputs in feeds:
        for record in executable.trace(inputs):
            seen = (*record.outputs, *record.slot_inputs)
            if record.id in candidates - found and any(_exceeds(a, limit) for a in seen):
                found.add(record.id)
    return frozenset(found)


def _exceeds(array: object, limit: float) -> bool:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        return False
    return beyond(array, limit) > 0


def telling(verdicts: Sequence[Verdict], size: Callable[[int], int]) -> list[int]:
    """The samples that ops are measured on.

    Those whose margin is far below the worst hardly decide. Of the others the smallest tell as
    much as the largest and take less time.

    Args:
        verdicts: Of each sample, the worst first.
        size: How many bytes a sample holds.
    """
    failing = [v for v in verdicts if not v.passed and v.sample is not None]
    worst = failing[0].margin_or_worst if failing else 0.0
    close = [v.sample for v in failing[:_LOOKED_AT] if v.margin_or_worst >= _CLOSE * worst]
    samples = [sample for sample in close if sample is not None]
    others = sorted(samples[1:], key=lambda sample: size(sample).bit_length())
    return (samples[:1] + others)[:_SAMPLES]


@dataclass(frozen=True, eq=False)
class _Group:
    """Neighbouring ops and what they together add to the squared error at each probe."""

    ops: tuple[int, ...]
    variance: np.ndarray
    measured: bool

    @property
    def exact(self) -> bool:
        """Whether this is the measured effect of one op."""
        return self.measured and len(self.ops) == 1


@dataclass
class Ranking:
    """Orders ops by what their rounding does to the outputs, at a cost that pays off.

    Groups of neighbours run low, all else in fp32. Those that matter are split, again and again,
    until the effort is spent or only single ops are left; the rest share what their group adds.

    Args:
        engine: Runs plans; tells of its blocks if it can.
        felt: Measures.
        items: The ops to rank.
        views: Where to measure.
        worst: The margin of the worst; None where a validator judges.
        bound: The margin allowed.
        count: How many samples there are.
        watch: Called with (runs done, runs that are certain).
        thorough: Spend more, and leave no group alone that matters at any probe, not only at
            the worst ones: once what matters there is kept, others are the worst.
        hurry: Whether time is so short that no more is to be measured; what was not is then taken
            to add what ops add on average.

    Attributes:
        expected: How many ops of the order are expected to be needed.
        errors: The errors predicted when the first 0, 1, 2, … ops of the order are kept.
    """

    engine: Engine
    felt: Felt
    items: Sequence[int]
    views: Sequence[View]
    worst: float | None
    bound: float
    count: int
    watch: Callable[[int, int], None]
    thorough: bool = False
    hurry: Callable[[], bool] = lambda: False
    expected: int = 1
    errors: np.ndarray = field(default_factory=lambda: np.zeros(1))
    _groups: list[_Group] = field(default_factory=list)
    _spent: float = 0.0
    _runs: int = 0

    def __post_init__(self) -> None:
        blocks = _blocks(self.engine, self.items)
        # What an op changes lies downstream of it, so later ones cost less to measure.
        self._cost = {op: 1 - at / len(blocks) for at, block in enumerate(blocks) for op in block}
        chosen = (block & frozenset(self.items) for block in blocks)
        self._start = [tuple(sorted(block)) for block in chosen if block]

    @property
    def breaking(self) -> int:
        """How many ops at the beginning of the order leave outputs without a number."""
        return int((self.errors >= BROKEN / 2).sum())

    def is_exact(self, op: int) -> bool:
        """Whether an op was measured alone, not as one of a group."""
        return any(group.exact and op in group.ops for group in self._groups)

    def order(self) -> list[int]:
        """The ops, those most likely needed first. Raises whatever measuring raises."""
        singles = [(op,) for op in self.items]
        # What leaves outputs without a number stands out of a group as it does alone.
        if self._price(singles) <= _FEW and self.worst != math.inf:
            self._groups = self._measure(singles)
            return self._ordered()
        self._groups = self._measure(self._start)
        self._ordered()
        ordered = self._spent
        while self._may_measure() and (self._complete() or self._split()):
            if self._spent > _ANEW * ordered:  # to order thousands takes seconds
                self._ordered()
                ordered = self._spent
        return self._ordered()

    def _complete(self) -> bool:
        """Measure all ops of the groups that matter, if that fits what may be spent."""
        loud = self._loud()
        singles = [(op,) for g in loud for op in g.ops]
        if not singles or self._spent + self._price(singles) > self._effort():
            return False
        self._groups = [g for g in self._groups if g not in loud] + self._measure(singles)
        return True

    def _ordered(self) -> list[int]:
        row = {op: at for at, op in enumerate(self.items)}
        variances = np.zeros((len(self.items), self._groups[0].variance.size))
        for group in self._groups:
            variances[[row[op] for op in group.ops]] = group.variance / len(group.ops)
        order = greedy_order(self.items, variances)
        self.errors = errors_left(self.items, order, variances)
        if self.worst is not None:
            self.expected = expected_length(self.errors, self.worst, self.bound)
        return order

    def _may_measure(self) -> bool:
        return self._spent < self._effort() and not self.hurry()

    def _effort(self) -> float:
        """Passes over one sample that may be spent."""
        usual = max(_LEAST_PASSES, self.count * (_PASSES + _PASSES_PER_OP * self.expected))
        return _THOROUGH * usual if self.thorough else usual

    def _price(self, sets: Sequence[tuple[int, ...]]) -> float:
        return sum(self._cost[ops[0]] for ops in sets) * len(self.views)

    def _split(self) -> bool:
        """Look into the groups that matter most; says whether there were any.

        A group is halved, and of the halves one is measured. An op whose effect is only known as
        what its neighbours leave of their group's is measured itself.
        """
        chosen = self._loud()[:_SPLITS]
        first = [g.ops[: max(1, len(g.ops) // 2)] for g in chosen]
        halves = self._measure(first)
        pairs = zip(chosen, halves, strict=True)
        rest = [_without(g, half) for g, half in pairs if len(g.ops) > 1]
        self._groups = [g for g in self._groups if g not in chosen] + halves + rest
        return bool(chosen)

    def _loud(self) -> list[_Group]:
        """The groups that are not known exactly, those first that add most.

        Those that may all run low together are left alone.
        """
        loudness, allowed = self._loudness()
        open_ = sorted((g for g in self._groups if not g.exact), key=lambda g: loudness[g].max())
        if not open_:
            return []
        together = np.cumsum([loudness[g] for g in open_], axis=0).max(axis=1)
        first = int(np.searchsorted(together, _QUIET * allowed, side="right"))
        return open_[first:][::-1]

    def _loudness(self) -> tuple[dict[_Group, np.ndarray], float]:
        """What each group adds to the worst probes, or to each, and how much may be left there."""
        each = {g: np.append(g.variance, 0.0) for g in self._groups}
        if self.worst == math.inf:  # probes without a number drown all others
            return each, BROKEN**2
        total = np.sum([g.variance for g in self._groups], axis=0)
        worst = math.sqrt(total.max(initial=0.0)) if self.worst is None else self.worst
        part = (self.bound / max(worst, self.bound)) ** 2
        if self.thorough:
            return each, part * float(total.max(initial=0.0))
        weights = worst_weights(total)
        weighed = {g: np.atleast_1d(g.variance @ weights) for g in self._groups}
        return weighed, part * float(total @ weights)

    def _measure(self, sets: Sequence[tuple[int, ...]]) -> list[_Group]:
        self._spent += self._price(sets)
        questions = [(view, frozenset(ops)) for ops in sets for view in self.views]
        found, each = [], len(self.views)
        with contextlib.closing(self.felt.variances(questions)) as variances:
            for variance in variances:
                found.append(variance)
                self._runs += 1
                self.watch(self._runs, self._runs + len(questions) - len(found))
                if len(found) % each == 0 and self.hurry():
                    break
        measured = [
            _Group(ops, np.concatenate(found[at * each : (at + 1) * each]), measured=True)
            for at, ops in enumerate(sets[: len(found) // each])
        ]
        return measured + [_average(ops, measured) for ops in sets[len(measured) :]]


def _average(ops: tuple[int, ...], measured: Sequence[_Group]) -> _Group:
    """A group that was not measured, as if its ops were like those that were."""
    known = sum(len(group.ops) for group in measured)
    total = np.sum([group.variance for group in measured], axis=0)
    return _Group(ops, total * (len(ops) / known), measured=False)


def _without(group: _Group, half: _Group) -> _Group:
    """The other half of a group, which was not measured: variances add up, roughly."""
    rest = np.maximum(group.variance - half.variance, _LEAST_HALF * group.variance)
    return _Group(group.ops[len(half.ops) :], rest, measured=False)


def _blocks(engine: Engine, items: Sequence[int]) -> Sequence[Items]:
    if isinstance(engine, Blocks):
        return engine.blocks()
    return [frozenset(items[i : i + _BLOCK]) for i in range(0, len(items), _BLOCK)]
