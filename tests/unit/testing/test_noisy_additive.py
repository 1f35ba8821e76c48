"""The planted rule itself: what it says of itself is so."""

from __future__ import annotations

import numpy as np
import pytest

from topsideas.testing.noisy_additive import NoisyAdditive

COUNT = 60
EVERYTHING = frozenset(range(COUNT))


def _sets(seed: int, size: int, draws: int) -> list[frozenset[int]]:
    rng = np.random.default_rng(seed)
    return [frozenset(rng.choice(COUNT, size, replace=False).tolist()) for _ in range(draws)]


def test_one_set_has_one_margin_and_keeping_everything_leaves_none() -> None:
    rules = [NoisyAdditive.planted(COUNT, 10, seed=3) for _ in range(2)]
    for kept in _sets(0, 20, 10):
        assert rules[0].margin(kept) == rules[1].margin(kept) > 0
    assert rules[0].margin(EVERYTHING) == 0
    assert rules[0].judge(EVERYTHING).passed
    assert not NoisyAdditive(np.full(4, 1e6)).judge(frozenset()).passed


def test_errors_have_the_variance_that_is_left() -> None:
    """One probe, so that the margin is one absolute draw: its mean square is the variance."""
    rule = NoisyAdditive(np.full(COUNT, 0.25), probes=1)
    margins = np.array([rule.margin(kept) for kept in _sets(1, 20, 4000)])
    assert np.mean(margins**2) == pytest.approx(40 * 0.25, rel=0.1)
    assert np.mean(margins**4) == pytest.approx(3 * 100, rel=0.2)  # normal
    assert rule.errors(range(COUNT))[20] ** 2 == pytest.approx(40 * 0.25)


def test_a_change_upstream_draws_all_that_follows_anew_and_nothing_before() -> None:
    loud = np.zeros(COUNT)
    loud[30] = 1.0
    rule = NoisyAdditive(loud, probes=1)
    nothing = rule.margin(frozenset())
    assert all(rule.margin(frozenset({item})) == nothing for item in range(31, COUNT))
    upstream = {rule.margin(frozenset({item})) for item in range(30)}
    assert len(upstream | {nothing}) == 31


@pytest.mark.parametrize(("probes", "varies"), [(4, 0.39), (16, 0.24), (32, 0.19)])
def test_sets_of_equal_promise_pass_half_the_time(probes: int, varies: float) -> None:
    rules = (NoisyAdditive.planted(COUNT, 10, probes=probes, seed=s) for s in range(1000))
    margins = np.array([rule.margin(frozenset(rule.ranking()[:10])) for rule in rules])
    assert np.mean(margins <= 1) == pytest.approx(0.5, abs=0.05)
    assert margins.std() / margins.mean() == pytest.approx(varies, abs=0.03)


def test_predicted_errors_fall_to_nothing_and_the_loudest_come_first() -> None:
    rule = NoisyAdditive.planted(COUNT, 10)
    order = rule.ranking()
    errors = rule.errors(order)
    assert sorted(order) == list(range(COUNT))
    assert len(errors) == COUNT + 1
    assert errors[-1] == 0
    assert (np.diff(errors) < 0).all()
    assert (np.diff(rule.variances[order]) <= 0).all()
