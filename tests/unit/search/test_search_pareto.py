from __future__ import annotations

import math
import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from topsideas.prices import Items
from topsideas.search.pareto import Point, in_order, nested, undominated
from topsideas.verdict import Verdict

quick = settings(deadline=None, max_examples=60)
VERDICTS = st.one_of(
    st.sampled_from([0.0, 0.5, 1.0, 2.0, math.inf]).map(lambda m: Verdict(m <= 1, m)),
    st.booleans().map(lambda passed: Verdict(passed, None)),
)
POINTS = st.lists(
    st.builds(Point, st.frozensets(st.integers(0, 5)), st.integers(-2, 4).map(float), VERDICTS),
    max_size=9,
    unique_by=lambda p: p.items,
)


def _beaten(point: Point, others: list[Point]) -> bool:
    """Whether the point is on neither front: for each, another is better or comes before it."""

    def key(p: Point) -> tuple[int, float, list[int]]:
        return len(p.items), p.cost, sorted(p.items)

    def is_beaten(respect: str) -> bool:
        def at(p: Point) -> tuple[float, float]:
            return (p.cost if respect == "cost" else len(p.items)), p.badness

        return any(
            all(x <= y for x, y in zip(at(o), at(point), strict=True))
            and (at(o) != at(point) or key(o) < key(point))
            for o in others
        )

    return is_beaten("cost") and is_beaten("size")


@quick
@given(POINTS)
def test_what_stays_is_what_nothing_beats(points: list[Point]) -> None:
    others = {p.items: [o for o in points if o is not p] for p in points}
    expected = [p for p in points if not _beaten(p, others[p.items])]
    assert undominated(points) == in_order(expected)


@quick
@given(POINTS, st.integers(0, 9))
def test_the_front_depends_on_the_points_alone(points: list[Point], seed: int) -> None:
    front = undominated(points)
    random.Random(seed).shuffle(points)
    assert undominated(points) == front
    assert undominated(front) == front


@quick
@given(POINTS)
def test_the_best_in_each_respect_stays(points: list[Point]) -> None:
    front = undominated(points)
    for respect in (lambda p: p.cost, lambda p: len(p.items), lambda p: p.badness):
        assert min(map(respect, front), default=0) == min(map(respect, points), default=0)


def test_a_verdict_without_a_margin_is_good_or_bad() -> None:
    passed, failed = (Point(frozenset(), 0.0, Verdict(p, None)) for p in (True, False))
    assert (passed.badness, failed.badness) == (0.0, math.inf)
    assert Point(frozenset(), 0.0, Verdict(False, 3.0)).badness == 3.0


@st.composite
def answers(draw: st.DrawFn) -> tuple[Items, Items, list[int]]:
    """An answer, the items of it that are fixed, and a ranking that may lack some of it."""
    fixed = draw(st.frozensets(st.integers(0, 3), max_size=3))
    ranking = draw(st.permutations(range(4, 14)))
    chosen = draw(st.frozensets(st.sampled_from([*ranking, 20, 21])))
    return fixed | chosen, fixed, ranking


@quick
@given(answers())
def test_a_chain_leads_from_what_is_fixed_through_the_answer(
    case: tuple[Items, Items, list[int]],
) -> None:
    answer, fixed, ranking = case
    chain = nested(answer, fixed, ranking)
    assert all(a < b for a, b in pairwise(chain))
    assert chain[0] == fixed
    assert answer in chain
    size = len(answer - fixed)
    assert len(chain[-1] - fixed) == min(2 * size, len(answer - fixed | set(ranking)))
    assert len(chain) <= 7


def test_the_most_needed_stay_longest_and_come_in_first() -> None:
    chain = nested(frozenset({9, 1, 2, 3, 4}), frozenset({9}), [5, 4, 3, 6, 2, 1, 7, 8])
    assert [sorted(s - {9}) for s in chain] == [
        [],
        [4],
        [3, 4],
        [2, 3, 4],
        [1, 2, 3, 4],
        [1, 2, 3, 4, 5, 6],
        [1, 2, 3, 4, 5, 6, 7, 8],
    ]
