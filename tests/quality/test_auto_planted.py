"""The whole search on planted models: the answer is the smallest there is, and proved."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from planted_problem import problem_of

from topsideas.calibration.journal import MemoryStore
from topsideas.calibration.judge import Judge
from topsideas.calibration.progress import Progress, Silent
from topsideas.calibration.result import SearchResult
from topsideas.calibration.settings import Settings
from topsideas.errors import BaselineError, EngineError, SampleError
from topsideas.precision import BF16, FP16, Numerics, Overflow
from topsideas.search.oracle import Budget, Oracle
from topsideas.testing.planted import (
    Planted,
    accumulation,
    counts,
    harmless,
    many_readers,
    one_of_many_samples,
    overflow,
    parse,
    planted_models,
    ramp,
)

each_planted = pytest.mark.parametrize("planted", planted_models(), ids=lambda p: p.name)


def _search(planted: Planted, **options: Any) -> SearchResult:
    return problem_of(planted, **options).search(Silent())


@each_planted
def test_the_answer_is_the_smallest_there_is(planted: Planted) -> None:
    """By trying every smaller set, and every other set of the same size."""
    problem = problem_of(planted)
    judge = Judge(problem.engine, problem.references, problem.settings)
    size = len(planted.answer)
    passing = [
        frozenset(kept)
        for k in range(size + 1)
        for kept in combinations(sorted(problem.model.candidates), k)
        if judge.judge(frozenset(kept)).passed
    ]
    assert passing == [planted.answer]


@each_planted
def test_the_search_finds_it_and_proves_each_op_needed(planted: Planted) -> None:
    found = _search(planted)
    assert found.plan.kept == planted.answer
    assert found.one_minimal
    assert found.after.passed
    assert set(found.witnesses) == planted.answer
    assert not any(v.passed for v in found.witnesses.values())
    assert found.before.passed == (not planted.answer)
    assert found.evaluations <= 3 * len(planted.answer) + 25
    assert found.refuted == 0


@each_planted
def test_a_second_search_on_the_same_store_evaluates_nothing(planted: Planted) -> None:
    store = MemoryStore()
    first, second = (_search(planted, store=store) for _ in range(2))
    assert second.evaluations == 0
    assert second.plan == first.plan
    assert second.witnesses == first.witnesses
    assert second.one_minimal == first.one_minimal
    assert (second.before, second.after) == (first.before, first.after)


@each_planted
@pytest.mark.parametrize("threads", [1, 3])
def test_given_golden_outputs_and_threads_change_nothing(planted: Planted, threads: int) -> None:
    reference = problem_of(planted).references
    golden = [reference.golden(i) for i in reference.ids]
    found = _search(planted, golden=golden, settings=Settings(threads=threads))
    assert found.plan.kept == planted.answer


def test_fp16_that_passes_takes_one_evaluation() -> None:
    found = _search(harmless())
    assert (found.plan.ids, found.evaluations, found.felt) == ([], 1, {})


def test_overflow_is_found_without_measuring_the_rest() -> None:
    found = _search(many_readers())
    assert found.overflowing >= many_readers().answer
    assert set(found.felt) == set(found.overflowing)


@pytest.mark.parametrize("numerics", [Numerics(overflow=Overflow.SATURATE), Numerics(BF16)])
def test_another_target_has_another_answer(numerics: Numerics) -> None:
    """Saturation keeps an overflow finite but wrong; bf16 does not overflow, it is coarse."""
    base = overflow()
    found = _search(Planted("other", base.model, base.samples, frozenset(), numerics))
    assert found.one_minimal
    if numerics.precision is FP16:
        assert found.plan.kept == base.answer
    else:
        assert not found.overflowing


def test_a_mean_overflows_only_where_sums_are_held_low() -> None:
    planted = accumulation()
    assert _search(planted).plan.kept == planted.answer
    plain = Planted(planted.name, planted.model, planted.samples, frozenset())
    assert _search(plain).plan.ids == []


def test_must_keep_is_honoured() -> None:
    found = _search(many_readers(), settings=Settings(must_keep=frozenset({5, 0})))
    assert found.plan.ids == [0, 1, 2, 3, 5]
    assert set(found.witnesses) == {1, 2, 3}


def test_the_sample_that_decides_is_named() -> None:
    planted = one_of_many_samples()
    found = _search(planted)
    assert found.before.sample == 2
    assert {v.sample for v in found.witnesses.values()} == {2}


def test_a_sample_that_was_held_out_can_refuse_the_answer() -> None:
    base = one_of_many_samples()
    last = (*base.samples[:2], *base.samples[3:], base.samples[2])
    found = _search(Planted("held", base.model, last, base.answer), held=1)
    assert found.plan.ids == []
    assert found.holdout is not None
    assert (found.holdout.passed, found.holdout.sample) == (False, 4)


@pytest.mark.parametrize("change", [1.0, np.inf])
def test_golden_outputs_of_another_model_are_refused(change: float) -> None:
    planted = harmless()
    reference = problem_of(planted).references.golden(0)
    with pytest.raises(BaselineError, match=r"even with every op in fp32.*golden files come from"):
        _search(planted, golden=[{"y": reference["y"] + np.float32(change)}])


def test_whole_numbers_must_be_equal() -> None:
    planted = counts()
    reference = problem_of(planted).references.golden(0)
    off_by_one = {**reference, "n": reference["n"] + 1}
    with pytest.raises(BaselineError, match="in output 'n', margin inf"):
        _search(planted, golden=[off_by_one])


def test_a_model_that_gives_nan_in_fp32_has_no_reference() -> None:
    model = parse("g (float[2] x) => (float[2] y) { y = Log (x) }")
    planted = Planted("nan", model, ({"x": ramp(-2, -1, 2)},), frozenset())
    with pytest.raises(SampleError, match="NaN in output 'y' even in fp32"):
        _search(planted)


def test_infinity_in_the_reference_is_a_value_like_others() -> None:
    text = """g (float[3] x) => (float[3] y) <float c = {100000.0}> {
        l = Log (x)
        y = Div (l, c)
    }"""
    sample = {"x": np.array([0.0, 3e4, 5e4], np.float32)}
    found = _search(
        Planted("inf", parse(text), (sample,), frozenset()),
        settings=Settings(criterion=_strict()),
    )
    assert found.plan.ids == [1]
    assert found.after.passed


def _strict() -> Any:
    return Settings().criterion.__class__(rtol=1e-2, atol=1e-7)


def test_random_ops_are_refused() -> None:
    text = """g (float[4] x) => (float[4] y) <float c = {100.0}, float d = {0.01}> {
        r = RandomNormalLike <dtype = 1> (x)
        b = Mul (x, c)
        s = Mul (b, d)
        y = Add (s, r)
    }"""
    planted = Planted("random", parse(text), ({"x": ramp(1, 1000, 4)},), frozenset())
    with pytest.raises(EngineError, match=r"two runs of the same plan .* random ops a seed"):
        _search(planted)


@pytest.mark.parametrize("limit", range(9))
def test_a_budget_of_evaluations_gives_the_best_valid_plan(limit: int) -> None:
    planted = many_readers()
    needed = _search(planted).evaluations
    found = _search(planted, settings=Settings(budget=Budget(evaluations=limit)))
    assert found.evaluations <= limit
    assert found.after.passed
    assert found.plan.kept >= planted.answer
    assert (found.stopped == "") == (limit >= needed) == found.one_minimal


class _CtrlC(Silent):
    def __init__(self, at: str) -> None:
        self.at = at

    def phase(self, text: str) -> None:
        if text.startswith(self.at):
            raise KeyboardInterrupt

    def measured(self, done: int, total: int) -> None:
        if self.at == "measured" and done == 2:
            raise KeyboardInterrupt

    def asked(self, oracle: Oracle) -> None:
        if self.at == oracle.phase:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "at",
    ["all low", "all fp32", "tracing", "measuring", "measured", "prefix", "certify"],
)
def test_ctrl_c_at_any_time_keeps_the_best_valid_plan(at: str) -> None:
    planted = many_readers()
    progress: Progress = _CtrlC(at)
    found = problem_of(planted).search(progress)
    assert found.stopped == "interrupted"
    assert found.after.passed
    assert found.plan.kept >= planted.answer
    assert not found.one_minimal
