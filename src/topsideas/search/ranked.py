"""Ranked search: gallop over a ranking, binary search the prefix, then shrink it.

Guarantees: the set returned passes; every single removal from it was asked about and fails
(1-minimal), whatever the oracle is like, monotone or not. Cost on a monotone oracle whose
ranking puts the k needed items first: about 2 log2 k for the prefix and k for the certificate.
A poor ranking costs more questions and may cost size, never validity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from topsideas.search.oracle import Items, Oracle

# Measured on planted answers, 80 % of them ranked first: 2 asks up to 15 % more, 8 is no better.
_GROWTH = 4


def ranked_search(oracle: Oracle, fixed: Items, ranking: Sequence[int], start: int = 1) -> Items:
    """The smallest set found that passes, ``fixed`` included.

    Args:
        oracle: Answers questions; must accept ``fixed`` with the whole ranking.
        fixed: Items that are in every set.
        ranking: The other items, those most likely needed first.
        start: The first prefix length to try.

    Returns:
        ``fixed`` and a 1-minimal choice of the ranking.

    Raises:
        BudgetSpent: ``oracle.best`` then holds the best set so far.
    """
    oracle.phase = "prefix"
    prefix = list(ranking[: _prefix_length(oracle, fixed, ranking, start)])
    return shrink(oracle, fixed, prefix)


def _prefix_length(oracle: Oracle, fixed: Items, ranking: Sequence[int], start: int) -> int:
    failing, length = 0, min(max(1, start), len(ranking))
    step = 1
    oracle.expected = len(ranking).bit_length() + length
    while length < len(ranking) and not oracle.passes(fixed | set(ranking[:length])):
        failing, length, step = length, min(len(ranking), length + step), 2 * step
    while length - failing > 1:
        oracle.expected = (length - failing).bit_length() + length
        middle = (failing + length) // 2
        if oracle.passes(fixed | set(ranking[:middle])):
            length = middle
        else:
            failing = middle
    return length


def shrink(oracle: Oracle, fixed: Items, kept: Sequence[int]) -> Items:
    """Drop items from ``kept``, the last ones first, until no single one can go.

    Args:
        oracle: Answers questions; ``fixed`` with ``kept`` passes.
        fixed: Items that stay.
        kept: Items to drop from, those most likely needed first.
    """
    oracle.phase = "shrink"
    remaining = _drop_runs(oracle, fixed, list(kept))
    oracle.phase = "certify"
    return fixed | _certified(oracle, fixed, remaining)


def _certified(oracle: Oracle, fixed: Items, remaining: Sequence[int]) -> Items:
    """Ask about every single removal, dropping what can go after all.

    A drop changes the set that earlier answers were about, so all are asked again: first those
    that failed by least, which are the ones that the next set may not need. On a monotone oracle
    no drop succeeds here.
    """
    kept = set(remaining)
    unproved, failed_by = set(remaining), dict.fromkeys(remaining, 0.0)
    position = {item: at for at, item in enumerate(remaining)}
    while unproved:
        oracle.expected = len(unproved)
        item = min(unproved, key=lambda i: (failed_by[i], -position[i]))
        verdict = oracle.ask(fixed | (kept - {item}))
        unproved.discard(item)
        if verdict.passed:
            kept.discard(item)
            unproved = set(kept)
        else:
            failed_by[item] = math.inf if verdict.margin is None else verdict.margin
    return frozenset(kept)


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
    return oracle.passes(fixed | set(remaining[:start]) | set(remaining[end:]))
