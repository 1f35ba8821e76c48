"""Ranked search: find the prefix of a ranking that passes, shrink it, then try swaps.

Guarantees: the set returned passes; every single removal from it was asked about and fails
(1-minimal), whatever the oracle is like, monotone or not. Cost on a monotone oracle whose
ranking puts the k needed items first: about 2 log2 k for the prefix, k for the certificate and a
few for swaps. A poor ranking costs more questions and may cost size, never validity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, zip_longest

from topsideas.search.draws import BEYOND_CHANCE, smaller_by_draws
from topsideas.search.oracle import Items, Oracle, questions_for
from topsideas.search.prefix import passing_prefix

# Windows begin at this part of the prefix and get smaller by the second factor. Measured on real
# models: answers 5 to 15 % smaller for a fifth fewer questions than runs alone.
_FIRST_WINDOW, _SMALLER = 8, 3
# If less than this part is left after a round of windows, runs take over; they grow by the factor.
# Measured on planted answers, 80 % of them ranked first: 2 asks up to 15 % more, 8 is no better.
_JUNK, _GROWTH = 0.8, 4
# Swaps end after so many that failed, if not before. Measured: those that succeed mostly do
# within ten.
_SWAPS = 16
# Swaps are tried among so many items that are needed least, and so many that come next.
_LEAST, _NEXT = 8, 8
# How much further behind in the ranking an item makes a swap less likely.
_FURTHER = 0.1


def ranked_search(
    oracle: Oracle,
    fixed: Items,
    ranking: Sequence[int],
    start: int = 1,
    errors: Sequence[float] = (),
) -> Items:
    """The smallest set found that passes, ``fixed`` included.

    Args:
        oracle: Answers questions; must accept ``fixed`` with the whole ranking.
        fixed: Items that are in every set.
        ranking: The other items, those most likely needed first.
        start: The first prefix length to try.
        errors: Predicted errors when the first 0, 1, 2, … items of the ranking are kept, if they
            are known; see :mod:`topsideas.search.draws`.

    Returns:
        ``fixed`` and a 1-minimal choice of the ranking.

    Raises:
        BudgetSpent: ``oracle.best`` then holds the best set so far.
    """
    oracle.phase = "prefix"
    prefix = passing_prefix(oracle, fixed, ranking, start)
    kept, ranking = fixed | prefix.items, [*prefix.first, *prefix.others]
    drawn = kept
    if errors:
        drawn = smaller_by_draws(oracle, fixed.union(prefix.first), prefix.others, kept, errors)
    if drawn == kept:
        oracle.phase = "shrink"
        drawn = fixed.union(_drop_windows(oracle, fixed, [i for i in ranking if i in kept]))
    return refined(oracle, fixed, ranking, drawn)


def refined(oracle: Oracle, fixed: Items, ranking: Sequence[int], start: Items) -> Items:
    """A 1-minimal set from one that passes: its best subset, or one that a swap leads to.

    Args:
        oracle: Answers questions.
        fixed: Items that are in every set.
        ranking: The other items, those most likely needed first.
        start: A set that passes. Raises BudgetSpent.
    """
    better: Items | None = start
    while better is not None:
        oracle.phase = "certify"
        kept = fixed | _certified(oracle, fixed, [i for i in ranking if i in better])
        better = _swapped(oracle, fixed, kept, ranking)
    return kept


def _drop_windows(oracle: Oracle, fixed: Items, remaining: list[int]) -> list[int]:
    """Drop neighbours in the ranking together, from the end, in smaller and smaller windows.

    Where many small errors add up, sets near the limit pass or fail by chance: what a window can
    spare at once costs one question, item by item one or more each. Where most of the prefix is
    not needed at all, runs find that out sooner.
    """
    width = len(remaining) // _FIRST_WINDOW
    while width > 1:
        before = len(remaining)
        windows = [remaining[at : at + width] for at in range(0, before, width)]
        remaining = _without_windows(oracle, fixed, remaining, windows[::-1])
        if len(remaining) < _JUNK * before:
            return _drop_runs(oracle, fixed, remaining)
        width //= _SMALLER
    return remaining


def _without_windows(
    oracle: Oracle, fixed: Items, kept: list[int], windows: list[list[int]]
) -> list[int]:
    left = fixed | set(kept)
    for at, window in enumerate(windows):
        oracle.expected = len(kept) + len(windows) - at
        following = windows[at + 1 : at + 2]
        then = left.difference(*following) if following else None
        if oracle.passes(left.difference(window), then):
            left = left.difference(window)
    return [item for item in kept if item in left]


def _drop_runs(oracle: Oracle, fixed: Items, remaining: list[int]) -> list[int]:
    """Drop from the end in runs that grow while they succeed.

    A run that fails is halved until the last item that cannot go is found. The next run is as
    long as what could be dropped behind that item: neighbours in a ranking are alike.
    """
    end, run = len(remaining), 1
    while end > 0:
        oracle.expected = end
        start = max(0, end - run)
        if _passes_without(oracle, fixed, remaining, start, end):
            del remaining[start:end]
            end, run = start, _GROWTH * run
            continue
        needed, free = start, end
        while free - needed > 1:
            middle = (needed + free) // 2
            if _passes_without(oracle, fixed, remaining, middle, end):
                free = middle
            else:
                needed = middle
        run = max(1, end - free)
        del remaining[free:end]
        end = needed
    return remaining


def _passes_without(
    oracle: Oracle, fixed: Items, remaining: list[int], start: int, end: int
) -> bool:
    """Whether a run can go; if not, its latter half is asked about next, or the item before."""
    half = (start + end) // 2 if end - start > 1 else start - 1
    until = end if end - start > 1 else start
    then = fixed.union(remaining[:half], remaining[until:]) if half >= 0 else None
    return oracle.passes(fixed.union(remaining[:start], remaining[end:]), then)


def _certified(oracle: Oracle, fixed: Items, remaining: Sequence[int]) -> Items:
    """Ask about every single removal, dropping what can go after all.

    A drop changes the set that earlier answers were about, so all are asked again: first those
    that failed by least, which are the ones that the next set may not need. On a monotone oracle
    no drop succeeds here.
    """
    kept = set(remaining)
    position = {item: at for at, item in enumerate(remaining)}
    failed_by = dict.fromkeys(remaining, 0.0)
    while True:
        waiting = sorted(kept, key=lambda i: (failed_by[i], -position[i]))
        spared = _first_spared(oracle, fixed | kept, waiting, failed_by)
        if spared is None:
            return frozenset(kept)
        kept.discard(spared)


def _first_spared(
    oracle: Oracle, kept: Items, waiting: list[int], failed_by: dict[int, float]
) -> int | None:
    """The first item that can go; notes by how much the set failed without those before it."""
    for at, item in enumerate(waiting):
        oracle.expected = len(waiting) - at
        following = waiting[at + 1 : at + 2]
        verdict = oracle.ask(kept - {item}, kept - {*following} if following else None)
        if verdict.passed:
            return item
        failed_by[item] = verdict.margin_or_worst
    return None


def _swapped(oracle: Oracle, fixed: Items, kept: Items, ranking: Sequence[int]) -> Items | None:
    """A set that passes with one item for two, while enough questions are left to certify it."""
    left = questions_for(len(kept)) - len(oracle.ledger) - len(kept)
    others = [item for item in ranking if item not in kept]
    oracle.phase = "swap"
    trials = _swaps(oracle, kept, kept - fixed, others)[: min(max(0, left), _SWAPS)]
    for trial, then in zip_longest(trials, trials[1:]):
        oracle.expected = len(trials)
        if oracle.passes(trial, then):
            return trial
    return None


def _swaps(oracle: Oracle, kept: Items, movable: Items, others: Sequence[int]) -> list[Items]:
    """Two out, one in: out goes what is needed least, in comes what is next in the ranking."""
    needed = {item: _margin(oracle, kept - {item}) for item in movable}
    spare = [i for i in movable if not BEYOND_CHANCE < needed[i] < math.inf]
    least = sorted(spare, key=lambda i: (needed[i], i))[:_LEAST]
    found = [
        ((needed[a] + needed[b]) * (1 + _FURTHER * at), at, (a, b), item)
        for a, b in combinations(least, 2)
        for at, item in enumerate(others[:_NEXT])
    ]
    return [(kept - {*out}) | {item} for _, _, out, item in sorted(found)]


def _margin(oracle: Oracle, items: Items) -> float:
    """By how much a set is known to fail; infinite where that is no number."""
    verdict = oracle.known(items)
    return math.inf if verdict is None else verdict.margin_or_worst
