"""The shortest prefix of a ranking that passes, after items that turned out to decide moved up.

A ranking can miss an item that is needed, since it was measured on few samples. Then the shortest
prefix that passes ends with that item, however far behind it stands, and without it the prefix
fails by far. Moved to the front it no longer drags along all that was ranked before it, so the
next prefix is shorter, or ends with the next such item: each costs about log2 n questions, as in
U. Junker, "QuickXplain: Preferred explanations and relaxations for over-constrained problems",
2004.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from topsideas.search.oracle import Items, Oracle
from topsideas.verdict import Verdict

# The last item decides if the margin without it is so many times the margin with it. Where many
# small errors add up, one item more or less changes it by less.
_DECIDES = 1.5
# Margins this close are the same: all that was kept besides changed nothing, if that is a tenth
# of the prefix at least.
_SAME, _SHORT = 1e-3, 0.9
# A move is worth more questions if this part of the prefix still passes after it.
_SHORTER = 0.75


@dataclass(frozen=True)
class Prefix:
    """A prefix that passes.

    Attributes:
        first: Items that were found to decide; all sets to come hold them.
        others: The other items of the ranking, in its order.
        length: How many of ``others`` the prefix holds.
    """

    first: tuple[int, ...]
    others: list[int]
    length: int

    @property
    def items(self) -> Items:
        """What it holds."""
        return frozenset((*self.first, *self.others[: self.length]))


def passing_prefix(oracle: Oracle, fixed: Items, ranking: Sequence[int], start: int) -> Prefix:
    """The shortest prefix that passes, after what decides has moved to the front.

    Args:
        oracle: Answers questions; must accept ``fixed`` with the whole ranking.
        fixed: Items that are in every set.
        ranking: The other items, those most likely needed first.
        start: The first prefix length to try. Raises BudgetSpent.
    """
    found = shortest_prefix(oracle, fixed, ranking, start)
    while found.length > 1 and decisive(oracle, fixed, found) is not None:
        moved = _moved(oracle, fixed, found)
        if moved is None:
            break
        found = moved
    return found


def shortest_prefix(oracle: Oracle, fixed: Items, ranking: Sequence[int], start: int) -> Prefix:
    """The shortest prefix that passes; see :func:`passing_prefix`."""
    return Prefix((), list(ranking), _shortest(oracle, fixed, ranking, start))


def decisive(oracle: Oracle, fixed: Items, prefix: Prefix) -> Verdict | None:
    """The verdict without the last item of a prefix, if that item and no chance made it pass.

    It does if the margin without it is far larger, or the same as with fewer items.

    Args:
        oracle: Was asked about the prefix.
        fixed: Items that are in every set.
        prefix: The prefix.
    """
    failed = oracle.known(fixed | prefix.items - {*prefix.others[prefix.length - 1 :]})
    passed = oracle.known(fixed | prefix.items)
    if passed is None or failed is None:
        return None
    if passed.margin is None or failed.margin is None:
        return failed
    before = _verdicts_before(oracle, fixed, prefix)
    same = any(_alike(v.margin, failed.margin) for v in before)
    return failed if same or failed.margin > _DECIDES * passed.margin else None


def _verdicts_before(oracle: Oracle, fixed: Items, prefix: Prefix) -> Iterator[Verdict]:
    """Those on prefixes that are shorter by a tenth, and by two items at least."""
    known = fixed.union(prefix.first)
    longest = min(prefix.length - 2, int(_SHORT * prefix.length))
    for question in oracle.ledger:
        length = len(question.items) - len(known)
        if 1 <= length <= longest and question.items == known.union(prefix.others[:length]):
            verdict = oracle.known(question.items)
            if verdict is not None:
                yield verdict


def _alike(one: float | None, other: float) -> bool:
    return one is not None and math.isfinite(other) and abs(one - other) <= _SAME * other


def _moved(oracle: Oracle, fixed: Items, prefix: Prefix) -> Prefix | None:
    """The shortest prefix once the last item is first; None if it is hardly shorter."""
    others = list(prefix.others)
    first = (*prefix.first, others.pop(prefix.length - 1))
    known, length = fixed.union(first), int(_SHORTER * (prefix.length - 1))
    if not oracle.passes(known.union(others[:length])):
        return None
    if oracle.passes(known):
        return Prefix(first, others, 0)
    return Prefix(first, others, _between(oracle, known, others, 0, length))


def _shortest(oracle: Oracle, fixed: Items, ranking: Sequence[int], start: int) -> int:
    """The length of the shortest prefix that passes; it is at least 1."""
    failing, length = 0, min(max(1, start), len(ranking))
    step = max(1, length // 4)
    oracle.expected = len(ranking).bit_length() + length
    while length < len(ranking) and not oracle.passes(fixed | set(ranking[:length])):
        failing, length, step = length, min(len(ranking), length + step), 2 * step
    return _between(oracle, fixed, ranking, failing, length)


def _between(
    oracle: Oracle, fixed: Items, ranking: Sequence[int], failing: int, passing: int
) -> int:
    """The length of the shortest prefix that passes, between one that fails and one that does."""
    while passing - failing > 1:
        oracle.expected = (passing - failing).bit_length() + passing
        middle = (failing + passing) // 2
        if oracle.passes(fixed | set(ranking[:middle])):
            passing = middle
        else:
            failing = middle
    return passing
