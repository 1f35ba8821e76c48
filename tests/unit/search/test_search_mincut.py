"""Minimum cuts against all cuts of small networks."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from topsideas.search.mincut import UNCUT, Network

quick = settings(deadline=None, max_examples=60)
Edge = tuple[int, int, float]
SOURCE, SINK = 0, 1

# Whole numbers, so that sums are exact and ties are ties.
CAPACITIES = st.one_of(st.integers(0, 6).map(float), st.just(UNCUT))


@st.composite
def networks(draw: st.DrawFn) -> tuple[int, list[Edge]]:
    """The number of nodes besides source and sink, and edges among all of them."""
    inner = draw(st.integers(0, 5))
    ends = st.integers(0, inner + 1)
    return inner, draw(st.lists(st.tuples(ends, ends, CAPACITIES), max_size=14))


def _side(inner: int, edges: list[Edge]) -> set[int]:
    network = Network()
    nodes = [network.source, network.sink, *(network.node() for _ in range(inner))]
    for tail, head, capacity in edges:
        network.edge(nodes[tail], nodes[head], capacity)
    side = network.source_side()
    return {at for at, node in enumerate(nodes) if node in side}


def _capacity(edges: list[Edge], side: set[int]) -> float:
    return sum(c for tail, head, c in edges if tail in side and head not in side)


def _all_sides(inner: int) -> list[set[int]]:
    """Every set with the source and without the sink, the smaller ones first."""
    others = range(2, inner + 2)
    return [{SOURCE, *c} for k in range(inner + 1) for c in combinations(others, k)]


@quick
@given(networks())
def test_the_cut_is_the_cheapest_and_of_equals_the_one_with_the_fewest_nodes(
    network: tuple[int, list[Edge]],
) -> None:
    inner, edges = network
    capacities = [(_capacity(edges, side), side) for side in _all_sides(inner)]
    least = min(capacity for capacity, _ in capacities)
    assume(least < UNCUT)
    smallest = next(side for capacity, side in capacities if capacity == least)
    assert _side(inner, edges) == smallest


@quick
@given(networks(), st.integers(1, 7))
def test_the_unit_of_capacities_does_not_matter(
    network: tuple[int, list[Edge]], unit: int
) -> None:
    """The same cut in bytes and in kilobytes: powers of two, so that sums stay exact."""
    inner, edges = network
    assume(min(_capacity(edges, side) for side in _all_sides(inner)) < UNCUT)
    scaled = [(tail, head, c * 2.0**-unit) for tail, head, c in edges]
    assert _side(inner, scaled) == _side(inner, edges)


def test_nothing_but_the_source_is_reached_without_edges() -> None:
    assert _side(3, []) == {SOURCE}


def test_flow_is_sent_back_where_the_first_path_was_a_poor_choice() -> None:
    """Both ways from source to sink are full only if nothing flows from 2 to 3."""
    edges = [(0, 2, 1.0), (0, 3, 1.0), (2, 3, 1.0), (2, 1, 1.0), (3, 1, 1.0)]
    assert _side(2, edges) == {SOURCE}
    assert _side(2, [*edges, (0, 2, 1.0)]) == {SOURCE, 2, 3}


def test_edges_that_cannot_be_cut_hold_their_ends_together() -> None:
    edges = [(0, 2, 5.0), (2, 3, UNCUT), (3, 1, 4.0), (2, 1, 0.5)]
    assert _side(2, edges) == {SOURCE, 2, 3}


def test_a_long_chain_needs_no_deep_recursion() -> None:
    count = 5000
    chain = [(0 if at == 2 else at - 1, at, 2.0) for at in range(2, count)]
    assert _side(count - 2, [*chain, (count - 1, 1, 1.0)]) == set(range(count)) - {SINK}


@pytest.mark.parametrize("capacity", [0.0, -3.0])
def test_edges_without_capacity_count_for_nothing(capacity: float) -> None:
    assert _side(1, [(0, 2, capacity), (2, 1, 1.0)]) == {SOURCE}
