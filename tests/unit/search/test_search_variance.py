from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topsideas.search.variance import (
    errors_left,
    expected_length,
    greedy_order,
    worst_weights,
)

MATRICES = st.integers(1, 12).flatmap(
    lambda n: st.lists(
        st.lists(st.floats(0, 1e6), min_size=3, max_size=3), min_size=n, max_size=n
    ).map(np.array)
)


def test_the_worst_probe_decides() -> None:
    variances = np.array([[0.0, 5.0], [9.0, 0.0], [1.0, 1.0]])
    assert greedy_order([7, 8, 9], variances) == [8, 7, 9]


def test_what_is_relieved_already_counts_no_more() -> None:
    """After 0, the second probe is the worst, though 1 adds more to the first than 2 to it."""
    variances = np.array([[10.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    assert greedy_order([0, 1, 2], variances) == [0, 2, 1]


def test_of_equals_the_first_comes_first() -> None:
    assert greedy_order([5, 6, 7], np.ones((3, 2))) == [5, 6, 7]
    assert greedy_order([5, 6], np.zeros((2, 2))) == [5, 6]


def test_thousands_are_ordered_as_well_as_a_few() -> None:
    variances = np.random.default_rng(0).lognormal(0, 2, (3000, 1))
    order = greedy_order(range(3000), variances)
    assert order == np.argsort(-variances[:, 0]).tolist()


@given(MATRICES)
def test_errors_fall_from_that_of_all_to_nothing(variances: np.ndarray) -> None:
    items = list(range(len(variances)))
    errors = errors_left(items, greedy_order(items, variances), variances)
    assert len(errors) == len(items) + 1
    assert errors[0] == pytest.approx(np.sqrt(variances.sum(axis=0).max()))
    assert errors[-1] == 0
    assert (np.diff(errors) <= 1e-9 * errors[0]).all()


@given(MATRICES)
def test_an_order_holds_every_item_once(variances: np.ndarray) -> None:
    items = list(range(100, 100 + len(variances)))
    assert sorted(greedy_order(items, variances)) == items


@given(MATRICES, st.floats(0.1, 1e3), st.floats(0.01, 1))
def test_what_is_expected_to_be_left_is_within_the_bound(
    variances: np.ndarray, worst: float, bound: float
) -> None:
    items = list(range(len(variances)))
    order = greedy_order(items, variances)
    length = expected_length(errors_left(items, order, variances), worst, bound)
    assert 0 <= length <= len(items)
    total = variances.sum(axis=0).max()
    left = variances[order[length:]].sum(axis=0).max(initial=0.0)
    if total > 0 and length < len(items) - 1:
        assert worst * np.sqrt(left / total) <= bound * (1 + 1e-9)


@pytest.mark.parametrize("worst", [np.inf, np.nan])
def test_without_a_number_one_item_is_expected(worst: float) -> None:
    assert expected_length(np.array([2.0, 1.0, 0.0]), worst, 1.0) == 1


def test_weights_are_1_at_the_worst_probe_and_0_where_nothing_is_added() -> None:
    assert worst_weights(np.array([0.0, 1.0, 2.0])) == pytest.approx([0, 1 / 8, 1])
    assert worst_weights(np.zeros(2)) == pytest.approx([0, 0])
