"""Ops that a ranking would overlook: behind infinities, other samples, elements, and groups."""

from __future__ import annotations

import math

import numpy as np
from arithmetic import Engine, additive, search

from topsideas.calibration.felt import View
from topsideas.calibration.ranking import Ranking

Kept = frozenset[int]


def test_ops_that_leave_no_number_are_kept_first_and_the_others_then_ranked() -> None:
    """In numbers the five loud ops are what matters, but two others drown them."""
    errors = [0.3 if i in range(10, 15) else 1e-4 for i in range(60)]
    broken = {20, 41}
    plain = additive(errors)

    def error(kept: Kept, x: float) -> float:
        return plain(kept, x) if broken <= kept else math.nan

    found = search(Engine(error), 60).run()
    assert broken < set(found.plan.ids)
    assert len(found.plan.ids) == 4  # of the five, two must be kept
    assert found.one_minimal
    assert [q.phase for q in found.ledger][2] == "overflow"
    assert found.ledger[2].items == broken
    assert found.evaluations <= 3 * 4 + 25


def test_ops_that_leave_no_number_on_another_sample_are_found_too() -> None:
    """Each of three samples has an op of its own without which there is no number."""
    needs = {1.0: 5, 2.0: 33, 3.0: 50}

    def error(kept: Kept, x: float) -> float:
        return 0.1 if needs[x] in kept else math.inf

    found = search(Engine(error), 60, values=(1.0, 2.0, 3.0)).run()
    assert found.plan.ids == [5, 33, 50]
    assert found.evaluations <= 12


def test_an_op_that_only_an_unwatched_sample_needs_is_found_by_measuring_on_it() -> None:
    """Ops are measured on two of four samples; op 90 matters on another one."""
    errors = [2.0 if i == 7 else 1e-3 * (i % 5) for i in range(100)]
    plain = additive(errors)

    def error(kept: Kept, x: float) -> float:
        if x == 4.0:
            return 1.3 * (90 not in kept) + 0.1 * plain(kept, 1.0)
        return plain(kept, 1.0) * (1 + x / 100)

    engine = Engine(error)
    found = search(engine, 100, values=(1.0, 2.0, 3.0, 4.0)).run()
    assert found.plan.ids == [7, 90]
    assert any(x == 4.0 and len(kept) >= 95 for kept, x in engine.runs)  # few low, on it
    assert found.evaluations <= 3 * 2 + 25


def test_a_group_that_is_quiet_where_others_are_loud_is_split_once_it_matters() -> None:
    """``thorough`` looks at every probe, not only at the worst ones."""
    count = 256
    engine = _TwoOutputs(lambda kept, x: 0.0)
    auto = search(engine, count)
    view = View(0, frozenset())
    auto._felt.watch(view)

    def ranking(thorough: bool) -> Ranking:
        return Ranking(
            engine,
            auto._felt,
            range(count),
            [view],
            50.0,
            1.0,
            1,
            lambda *_: None,
            thorough=thorough,
        )

    quick, thorough = ranking(False), ranking(True)
    quick.order()
    order = thorough.order()
    assert not quick.is_exact(200)
    assert thorough.is_exact(200)
    assert set(order[:2]) == {3, 200}


class _TwoOutputs(Engine):
    """Op 3 disturbs the first element by far; op 200 the second one, beyond what is allowed."""

    def compile(self, plan):  # type: ignore[no-untyped-def]
        class Run:
            def run(self, feeds: object) -> dict[str, np.ndarray]:
                low = frozenset(range(256)) - plan.kept
                return {"y": np.array([50.0 * (3 in low), 1.4 * (200 in low)], np.float32)}

        return Run()
