"""Where ops are too many to be measured one by one: groups, split where it matters."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest
from arithmetic import Engine, search

from topsideas.calibration.felt import View
from topsideas.calibration.ranking import Ranking

COUNT = 256
BLOCKS = [frozenset(range(at, at + 8)) for at in range(0, COUNT, 8)]
SEEDS = range(2)


class InBlocks(Engine):
    """An engine that tells of its blocks."""

    def blocks(self) -> Sequence[frozenset[int]]:
        return BLOCKS


def _independent(errors: Sequence[float]) -> Callable[[frozenset[int], float], float]:
    """The root of the summed squares of those that are not kept, times the sample's factor."""
    squares = [e**2 for e in errors]
    return lambda kept, x: x * math.sqrt(sum(s for i, s in enumerate(squares) if i not in kept))


def _ranked(
    errors: Sequence[float], count: int = 1, kind: type[Engine] = InBlocks
) -> tuple[Ranking, list[int], list[frozenset[int]]]:
    """The ranking, its order, and the sets that were run low, on the worst of the samples."""
    factors = [1 - 0.01 * at for at in range(count)]
    engine = kind(_independent(errors))
    auto = search(engine, COUNT, values=factors)
    views = [View(sample, frozenset()) for sample in range(count)[:2]]
    for view in views:
        auto._felt.watch(view)
    engine.runs.clear()
    worst = math.sqrt(sum(e**2 for e in errors))

    def watch(done: int, total: int) -> None:
        expected.append(ranking.expected)

    expected: list[int] = []
    ranking = Ranking(engine, auto._felt, range(COUNT), views, worst, 1.0, count, watch)
    order = ranking.order()
    passes = len(views) * sum(1 - min(ops) / COUNT for ops in _low(engine))
    # 10 passes over the samples, one more per op expected on the way, 32 over one sample at
    # least; and the last round of splits.
    assert passes <= max(32, count * (10 + max(expected))) + 8 * len(views)
    assert sorted(order) == list(range(COUNT))
    assert len(set(engine.runs)) == len(engine.runs)  # nothing is run twice
    return ranking, order, _low(engine)


def _low(engine: Engine) -> list[frozenset[int]]:
    return [frozenset(range(COUNT)) - kept for kept, x in engine.runs if x == 1]


def _planted(seed: int, k: int) -> tuple[dict[int, float], list[float]]:
    """``k`` loud ops among quiet ones, which add up to a tenth of what is allowed."""
    chosen = random.Random(seed).sample(range(COUNT), k)
    loud = {op: 3 + 3 * at / k for at, op in enumerate(chosen)}
    return loud, [loud.get(op, 0.1 / math.sqrt(COUNT)) for op in range(COUNT)]


def _of_all_sizes(seed: int, spread: float, total: float) -> list[float]:
    rng = random.Random(seed)
    errors = [rng.lognormvariate(0, spread) for _ in range(COUNT)]
    return [e * total / math.sqrt(sum(e**2 for e in errors)) for e in errors]


@pytest.mark.parametrize(
    ("kind", "k", "count"),
    [(Engine, 1, 1), (Engine, 2, 1), (InBlocks, 1, 1), (InBlocks, 2, 1), (InBlocks, 6, 8)],
)
def test_groups_are_split_until_the_loud_ops_are_known(
    kind: type[Engine], k: int, count: int
) -> None:
    for seed in SEEDS:
        loud, errors = _planted(seed, k)
        ranking, order, low = _ranked(errors, count, kind)
        assert order[:k] == sorted(loud, key=lambda op: -loud[op])
        assert {op: ranking.felt.margins[op] for op in loud} == pytest.approx(loud, rel=1e-3)
        assert ranking.expected == k
        size = 8 if kind is InBlocks else 16
        assert len(low) <= COUNT // size + size * k  # no more than every op of a loud group


def test_groups_that_are_quiet_together_are_left_alone() -> None:
    for seed in SEEDS:
        loud, errors = _planted(seed, 2)
        low = _ranked(errors)[2]
        assert set(low[: len(BLOCKS)]) == set(BLOCKS)
        suspects = [block for block in BLOCKS if not block.isdisjoint(loud)]
        assert all(any(ops < block for block in suspects) for ops in low[len(BLOCKS) :])


@pytest.mark.parametrize("total", [2.0, 100.0], ids=["few needed", "most needed"])
@pytest.mark.parametrize("spread", [0.0, 2.0], ids=["equal errors", "errors of all sizes"])
def test_the_effort_is_bounded_whatever_the_errors_are(spread: float, total: float) -> None:
    """Each ranking here holds to its bound, see ``_ranked``; and no op is run alone twice."""
    ranking, _, low = _ranked(_of_all_sizes(0, spread, total))
    assert len(low) <= len(BLOCKS) + COUNT
    assert 1 <= ranking.expected <= COUNT


def test_more_samples_allow_more_splits() -> None:
    one, eight = (len(_ranked(_of_all_sizes(0, 2.0, 2.0), count)[2]) for count in (1, 8))
    assert len(BLOCKS) < one < eight


def test_what_is_predicted_for_the_order_is_about_what_is_left() -> None:
    """Also where most ops are only known as members of groups: their variances add up."""
    for seed in SEEDS:
        errors = _of_all_sizes(seed, 2.0, 3.0)
        ranking, order, low = _ranked(errors)
        assert sum(len(ops) == 1 for ops in low) < COUNT / 4
        assert len(ranking.errors) == COUNT + 1
        assert ranking.errors[0] == pytest.approx(3.0, rel=0.1)
        for length in range(1, 2 * ranking.expected):
            left = _independent(errors)(frozenset(order[:length]), 1.0)
            assert ranking.errors[length] == pytest.approx(left, rel=0.3)


def test_the_loudest_of_ops_of_all_sizes_come_first() -> None:
    """Of 4 models: at least 4 of 5 of the loudest ops are among the first 8 of 256."""
    hits = 0
    for seed in range(4):
        errors = _of_all_sizes(seed, 2.0, 3.0)
        order = _ranked(errors)[1]
        loudest = sorted(range(COUNT), key=lambda op: -errors[op])[:5]
        hits += len(set(order[:8]) & set(loudest))
    assert hits >= 0.8 * 4 * 5
