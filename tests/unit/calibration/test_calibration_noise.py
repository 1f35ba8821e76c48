"""Engines that are not deterministic: found, told, judged again and again."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from arithmetic import Engine, additive, search

from topsideas.calibration.journal import MemoryStore
from topsideas.engines.base import Identity
from topsideas.errors import BaselineError, EngineError

ERRORS = [0.05, 0.9, 0.05, 0.7, 0.05, 0.05, 0.05, 0.05]


class Device(Engine):
    """Measures, so that it may differ from run to run."""

    def identity(self) -> Identity:
        return Identity("device", "1", "card", "measured")


def noisy(errors: list[float], noise: Callable[[int], float]) -> Device:
    """Adds ``noise(n)`` to the nth run."""
    count, plain = itertools.count(), additive(errors)
    return Device(lambda kept, x: plain(kept, x) + noise(next(count)))


def test_a_deterministic_device_is_judged_once() -> None:
    found = search(Device(additive(ERRORS)), 8).run()
    assert (found.plan.ids, found.noise) == ([1], "")


def test_noise_is_told_and_every_run_must_pass() -> None:
    """Keeping op 1 uses 1.0 with luck only; ops 1 and 3 pass whatever the noise."""
    found = search(noisy(ERRORS, lambda n: 0.2 * (n % 3 == 0)), 8).run()
    assert found.plan.ids == [1, 3]
    assert found.after.passed
    assert found.one_minimal
    assert found.noise == (
        "the engine is not deterministic: two runs of one plan on one sample differ in output "
        "'y'; each sample was judged 5 times, and every run had to pass"
    )


def test_a_plan_that_passed_by_luck_is_no_answer() -> None:
    """All low passes at first; every second run does not."""
    found = search(noisy([0.3] * 3, lambda n: 0.5 * (n % 2)), 3).run()
    assert found.plan.ids
    assert found.after.passed
    assert found.noise


def test_noise_that_shows_only_in_the_end_is_found_when_the_answer_is_judged_again() -> None:
    runs = itertools.count()
    plain = additive(ERRORS)

    def late(kept: frozenset[int], x: float) -> float:
        return plain(kept, x) + (0.2 if kept == {1} and next(runs) % 2 else 0.0)

    found = search(Device(late), 8).run()
    assert found.after.passed
    assert found.plan.ids != [1]
    assert "two runs of one plan on one sample disagree whether it passes" in found.noise


def test_fp32_that_is_too_noisy_is_refused() -> None:
    with pytest.raises(BaselineError, match="even with every op in fp32, sample 0 misses"):
        search(noisy(ERRORS, lambda n: 1.5 * (n % 3 == 2)), 8).run()


def test_an_engine_that_is_deterministic_by_definition_shows_that_the_model_is_not() -> None:
    count = itertools.count()
    with pytest.raises(EngineError, match="give the model's random ops a seed"):
        search(Engine(lambda kept, x: 2.0 * (len(kept) < 3) + 1e-3 * next(count)), 3).run()


def test_what_was_found_of_an_engine_is_remembered() -> None:
    store = MemoryStore()
    first = search(noisy(ERRORS, lambda n: 0.2 * (n % 3 == 0)), 8, store=store).run()
    engine = noisy(ERRORS, lambda n: 0.0)
    again = search(engine, 8, store=store).run()
    assert (again.plan, again.noise, again.evaluations) == (first.plan, first.noise, 0)
