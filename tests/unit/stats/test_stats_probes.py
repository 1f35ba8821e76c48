from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from topsideas.stats.criteria import Cosine, Tolerance
from topsideas.stats.probes import Probes

ZEROS = {"y": np.zeros(4, np.float32)}


def test_small_outputs_are_watched_whole() -> None:
    probes = Probes.choose({"y": np.ones(4, np.float32)}, ZEROS)
    assert probes.indices["y"].tolist() == [0, 1, 2, 3]
    assert probes.deviations({"y": np.array([0, 1, -2, 0], np.float32)}).tolist() == [0, 1, -2, 0]


def test_of_large_outputs_the_worst_elements_are_watched() -> None:
    reference = np.ones(10_000, np.float32)
    output = reference.copy()
    output[[17, 4000]] = 5.0
    probes = Probes.choose({"y": output}, {"y": reference})
    assert {17, 4000} <= set(probes.indices["y"].tolist())
    assert len(probes.indices["y"]) <= 256


def test_shares_are_those_of_the_tolerance() -> None:
    reference = {"y": np.array([0.0, 10.0], np.float32)}
    probes = Probes.choose(reference, reference)
    shares = probes.shares(np.array([0.5, 0.5], np.float32), Tolerance(rtol=0.1, atol=0.5))
    assert shares == pytest.approx([1.0, 0.5 / 1.5])


def test_without_an_allowance_per_element_the_scale_is_that_of_the_output() -> None:
    reference = {"y": np.array([3.0, -3.0], np.float32)}
    shares = Probes.choose(reference, reference).shares(np.array([3.0, 0.0]), Cosine(0.99))
    assert shares == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize(
    "output",
    [
        np.array([np.nan] * 4, np.float32),
        np.array([np.inf] * 4, np.float32),
        np.zeros(3, np.float32),
        None,
        [],
    ],
    ids=["nan", "inf", "shape", "missing", "sequence"],
)
def test_what_is_no_number_counts_most(output: Any) -> None:
    probes = Probes.choose({}, ZEROS)
    shares = probes.shares(probes.deviations({"y": output}), Tolerance(0.0, 1.0))
    assert shares.tolist() == [1e6] * 4


def test_nan_where_the_reference_has_it_is_no_deviation() -> None:
    reference = {"y": np.array([np.nan, np.inf], np.float32)}
    assert Probes.choose(reference, reference).deviations(reference).tolist() == [0, 0]


def test_integers_that_differ_count_most_and_strings_are_compared() -> None:
    reference = {"i": np.array([1, 2]), "s": np.array(["a", "b"], object)}
    probes = Probes.choose(reference, reference)
    found = probes.deviations({"i": np.array([1, 3]), "s": np.array(["a", "c"], object)})
    assert found.tolist() == [0, np.inf, 0, np.inf]


def test_an_empty_output_has_nothing_to_watch() -> None:
    probes = Probes.choose({}, {"y": np.zeros(0, np.float32)})
    assert probes.deviations({"y": np.zeros(0, np.float32)}).size == 0


def test_probes_survive_json_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    reference = {"y": rng.normal(size=500).astype(np.float32), "b": np.array([np.nan, 1e300])}
    probes = Probes.choose({}, reference)
    text = json.dumps(probes.to_json(), allow_nan=False, sort_keys=True)  # as journals do
    again = Probes.from_json(json.loads(text))
    outputs = {"y": reference["y"] * np.float32(1.01), "b": np.array([0.0, 1e300])}
    assert np.array_equal(again.deviations(outputs), probes.deviations(outputs))
    assert np.array_equal(again.scale, probes.scale)
