"""The search as a whole, on an engine whose errors are known numbers."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from arithmetic import ONE, Engine, TwoMinds, additive, search

from topsideas.calibration.auto import SearchResult
from topsideas.calibration.journal import MemoryStore
from topsideas.calibration.progress import Silent
from topsideas.calibration.settings import Settings, Validator
from topsideas.errors import BaselineError, EngineError, ValidatorError
from topsideas.search.oracle import Budget, Oracle
from topsideas.stats.criteria import Cosine, Tolerance

ERRORS = [0.01, 0.9, 0.02, 0.6, 0.03, 0.01, 0.3, 0.01]  # sum 1.88; dropping 1 leaves 0.98


def test_the_op_that_is_felt_most_is_the_answer() -> None:
    found = search(Engine(additive(ERRORS)), 8).run()
    assert found.plan.ids == [1]
    assert found.one_minimal
    assert found.before.margin == pytest.approx(1.88)
    assert found.after.margin == pytest.approx(0.98)
    assert {op: v.margin for op, v in found.witnesses.items()} == {1: pytest.approx(1.88)}
    assert found.felt == pytest.approx(dict(enumerate(ERRORS)))
    assert (found.stopped, found.refuted, found.holdout) == ("", 0, None)
    assert found.evaluations == len({q.items for q in found.ledger}) <= 3 + 25


def test_fp16_that_passes_is_one_evaluation() -> None:
    engine = Engine(additive([0.1] * 5))
    found = search(engine, 5).run()
    assert (found.plan.ids, found.evaluations, found.one_minimal) == ([], 1, True)
    assert found.before.passed
    assert {kept for kept, _ in engine.runs} == {frozenset()}


@pytest.mark.parametrize("seed", range(5))
def test_answers_are_minimal_and_within_the_budget_of_questions(seed: int) -> None:
    rng = random.Random(seed)
    errors = [rng.lognormvariate(0, 2) for _ in range(80)]
    allowed = sum(sorted(errors)[:-7]) * 1.0001
    error = additive([e / allowed for e in errors])
    found = search(Engine(error), 80).run()
    assert len(found.plan.ids) == 7
    assert found.one_minimal
    assert sorted(found.witnesses) == found.plan.ids
    assert found.evaluations <= 3 * 7 + 25


def test_ops_that_overflow_go_in_at_once_and_the_others_are_not_even_measured() -> None:
    errors = [1e9 if i in (3, 7) else 1e-4 for i in range(40)]
    engine = Engine(additive(errors), large={3: 0.0, 7: 5.0, 9: 5.0, 11: 6.0})
    found = search(engine, 40, values=(1.0, 5.0, 2.0)).run()
    assert found.plan.ids == [3, 7]
    assert found.overflowing == {3, 7, 9}
    assert sorted(found.felt) == [3, 7, 9]


def test_overflow_alone_may_not_be_enough() -> None:
    errors = [1e9, 0.2, 5.0, 0.2, 0.2]
    found = search(Engine(additive(errors), large={0: 0.0}), 5).run()
    assert found.plan.ids == [0, 2]
    assert found.one_minimal


def test_two_ops_that_are_needed_together() -> None:
    found = search(Engine(lambda kept, _: 0.0 if {2, 5} <= kept else 9.0), 12).run()
    assert found.plan.ids == [2, 5]
    assert found.one_minimal


def test_every_sample_counts() -> None:
    """Op 4 fails on the third sample only."""

    def error(kept: frozenset[int], x: float) -> float:
        return 9.0 if 4 not in kept and x == 3 else 0.5

    found = search(Engine(error), 6, values=(1, 2, 3, 4)).run()
    assert found.plan.ids == [4]
    assert found.before.sample == 2


def test_must_keep_is_in_every_plan_and_in_the_answer() -> None:
    engine = Engine(additive(ERRORS))
    settings = Settings(criterion=ONE, must_keep=frozenset({0, 6, 99}))
    found = search(engine, 8, settings=settings).run()
    assert found.plan.ids == [0, 1, 6, 99]
    assert sorted(found.witnesses) == [1]
    assert found.one_minimal
    assert all({0, 6} <= q.items for q in found.ledger)


def test_all_fp32_that_misses_the_golden_outputs_is_refused() -> None:
    with pytest.raises(BaselineError, match=r"sample 0 misses .* in output 'y', margin 2 "):
        search(Engine(lambda kept, _: 2.0), 3).run()


def test_an_engine_that_fails_in_fp32_is_an_engine_error() -> None:
    def broken(kept: frozenset[int], x: float) -> float:
        raise EngineError("no memory on the card")

    with pytest.raises(EngineError, match="even with every op in fp32: no memory on the card"):
        search(Engine(broken), 3).run()


def test_plans_on_which_the_engine_fails_are_plans_that_fail() -> None:
    def crashes(kept: frozenset[int], x: float) -> float:
        if 2 not in kept:
            raise EngineError("compiler crashed")
        return 0.0

    found = search(Engine(crashes), 6).run()
    assert found.plan.ids == [2]
    assert found.before.note == "compiler crashed"
    assert found.witnesses[2].note == "compiler crashed"


def test_an_error_that_is_no_engine_error_is_ours_and_surfaces() -> None:
    def bug(kept: frozenset[int], x: float) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        search(Engine(bug), 3).run()


def test_nan_and_infinity_fail() -> None:
    for bad in (math.nan, math.inf):
        found = search(Engine(lambda kept, _, bad=bad: 0.0 if 1 in kept else bad), 4).run()
        assert found.plan.ids == [1]
        assert found.before.margin == math.inf


def test_the_bound_leaves_a_part_of_the_tolerance() -> None:
    tight = Settings(criterion=ONE, bound=0.5)
    found = search(Engine(additive(ERRORS)), 8, settings=tight).run()
    assert found.plan.ids == [1, 3]
    assert found.after.margin is not None
    assert found.after.margin <= 0.5


def _small(found: Any) -> bool:
    return bool(found.after.passed and not found.one_minimal)


def test_out_of_evaluations_the_best_valid_plan_is_returned() -> None:
    errors = [0.4] * 20
    complete = search(Engine(additive(errors)), 20).run()
    sizes = []
    for limit in range(complete.evaluations + 1):
        settings = Settings(criterion=ONE, budget=Budget(evaluations=limit))
        found = search(Engine(additive(errors)), 20, settings=settings).run()
        assert found.evaluations <= limit
        assert found.after.passed
        finished = limit == complete.evaluations
        assert (found.stopped == "") == finished == found.one_minimal
        assert finished or found.stopped == f"budget: {limit} evaluations used"
        sizes.append(len(found.plan.ids))
    assert sizes[0] == 20
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == len(complete.plan.ids)


def test_out_of_time_the_best_valid_plan_is_returned() -> None:
    settings = Settings(criterion=ONE, budget=Budget(seconds=0.0))
    found = search(Engine(additive(ERRORS)), 8, settings=settings).run()
    assert found.plan.ids == list(range(8))
    assert found.stopped == "budget: 0 s used"
    assert found.evaluations == 0
    assert _small(found)


class _Interrupting(Silent):
    """Ctrl-C while the nth plan is judged."""

    def __init__(self, after: int) -> None:
        self.after = after

    def asked(self, oracle: Oracle) -> None:
        if len(oracle.ledger) == self.after:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 2, 3, 4, 5])
def test_ctrl_c_in_a_callback_keeps_the_best_valid_plan(after: int) -> None:
    engine = Engine(additive([0.4] * 20))
    found = search(engine, 20, progress=_Interrupting(after)).run()
    assert found.stopped == "interrupted"
    assert _small(found)


@pytest.mark.parametrize("run", [1, 3, 10, 25])
def test_ctrl_c_in_the_engine_keeps_the_best_valid_plan(run: int) -> None:
    errors, count = additive([0.4] * 20), 0

    def error(kept: frozenset[int], x: float) -> float:
        nonlocal count
        count += 1
        if count == run:
            raise KeyboardInterrupt
        return errors(kept, x)

    found = search(Engine(error), 20).run()
    assert found.stopped == "interrupted"
    assert _small(found)


def test_a_second_search_with_the_same_store_asks_nothing() -> None:
    store = MemoryStore()
    first = search(Engine(additive(ERRORS)), 8, store=store, held=(1.0,)).run()
    engine = Engine(additive(ERRORS))
    again = search(engine, 8, store=store, held=(1.0,)).run()
    assert (again.plan, again.evaluations) == (first.plan, 0)
    assert (again.before, again.after, again.felt) == (first.before, first.after, first.felt)
    assert again.witnesses == first.witnesses
    assert [q.items for q in again.ledger] == [q.items for q in first.ledger]
    assert all(q.recalled for q in again.ledger)
    assert len({kept for kept, _ in engine.runs}) <= 1  # the held out sample


def test_a_search_goes_on_where_another_was_interrupted() -> None:
    store = MemoryStore()
    whole = search(Engine(additive([0.4] * 20)), 20).run()
    part = search(Engine(additive([0.4] * 20)), 20, store=store, progress=_Interrupting(4)).run()
    rest = search(Engine(additive([0.4] * 20)), 20, store=store).run()
    assert rest.plan == whole.plan
    assert rest.evaluations == whole.evaluations - part.evaluations


def test_another_tolerance_shares_no_verdicts() -> None:
    store = MemoryStore()
    search(Engine(additive(ERRORS)), 8, store=store).run()
    wide = Settings(criterion=Tolerance(rtol=0.0, atol=5.0))
    found = search(Engine(additive(ERRORS)), 8, settings=wide, store=store).run()
    assert (found.plan.ids, found.evaluations) == ([], 1)


def test_what_is_recorded_is_strict_json() -> None:
    class Strict(MemoryStore):
        def put(self, kind: str, key: str, value: Any) -> None:
            super().put(kind, key, json.loads(json.dumps(value, allow_nan=False)))

    store = Strict()

    def error(kept: frozenset[int], _: float) -> float:
        return 0.0 if 1 in kept else math.inf

    first = search(Engine(error), 4, store=store).run()
    again = search(Engine(error), 4, store=store).run()
    assert again.evaluations == 0
    assert again.witnesses == first.witnesses == {1: first.witnesses[1]}
    assert first.witnesses[1].margin == math.inf


def test_samples_held_out_only_check_the_answer() -> None:
    def error(kept: frozenset[int], x: float) -> float:
        return (5.0 if 3 not in kept and x == 7 else 0.0) + (2.0 if 1 not in kept else 0.0)

    found = search(Engine(error), 6, held=(7.0, 1.0)).run()
    assert found.plan.ids == [1]
    assert found.after.passed
    assert found.holdout is not None
    assert (found.holdout.passed, found.holdout.sample) == (False, 0)


def test_an_answer_that_a_second_execution_refutes_is_repaired() -> None:
    """The first execution needs op 1 only; on one sample of many the second needs op 3 as well."""
    first = additive([0.0, 2.0, 0.0, 0.9, 0.0, 0.0])
    other = additive([0.0, 2.0, 0.0, 2.0, 0.0, 0.0])
    engine = TwoMinds(first, lambda kept, x: (other if x < 1 else first)(kept, x))
    found = search(engine, 6, values=(*[1.0] * 9, 0.9)).run()
    assert found.plan.ids == [1, 3]
    assert found.refuted == 1
    assert found.one_minimal
    assert any(q.phase == "refuted" and q.items == {1} for q in found.ledger)


def test_all_low_that_a_second_execution_refutes_is_repaired() -> None:
    engine = TwoMinds(additive([0.1] * 6), additive([0.1, 0.1, 5.0, 0.1, 0.1, 0.1]))
    found = search(engine, 6).run()
    assert found.plan.ids == [2]
    assert found.refuted >= 1


def test_a_second_execution_that_never_agrees_is_a_refusal() -> None:
    engine = TwoMinds(additive([0.0, 2.0, 0.5, 0.4]), lambda kept, _: 9.0)
    with pytest.raises(
        BaselineError, match=r"in a second execution, margin 9 \(expected at most 1"
    ):
        search(engine, 4).run()


def test_executions_that_differ_must_agree_from_the_first_plan_on() -> None:
    """Each op alone would be refuted by the second execution: no such answer is looked for."""
    engine = TwoMinds(additive([0.3] * 6), additive([0.5] * 6))
    store = MemoryStore()
    found = search(engine, 6, store=store).run()
    assert len(found.plan.ids) == 4
    assert (found.refuted, found.confirmed, found.one_minimal) == (0, True, True)
    assert not any(q.verdict.passed for q in found.ledger if len(q.items) < 4)
    again = search(engine, 6, store=store).run()
    assert (again.plan, again.evaluations) == (found.plan, 0)


def test_executions_are_compared_on_more_than_the_sample_that_decides() -> None:
    first, other = additive([0.3] * 6), additive([0.9] * 6)
    engine = TwoMinds(first, lambda kept, x: (other if x < 1 else first)(kept, x))
    found = search(engine, 6, values=(1.0, 0.6)).run()
    assert (len(found.plan.ids), found.refuted) == (5, 0)


def test_executions_that_hardly_differ_are_not_both_asked_each_time() -> None:
    seconds = []

    def second(kept: frozenset[int], x: float) -> float:
        seconds.append(kept)
        return 1.001 * additive(ERRORS)(kept, x)

    found = search(TwoMinds(additive(ERRORS), second), 8).run()
    assert (found.plan.ids, found.confirmed) == ([1], True)
    # Plans that pass, up to the first near the bound; the answer is one of them.
    assert len(seconds) == len(set(seconds)) <= 3


class _Verifying(Silent):
    def phase(self, text: str) -> None:
        if text.startswith("verifying"):
            raise KeyboardInterrupt


def test_an_answer_that_was_compared_on_few_of_the_samples_is_verified_on_all() -> None:
    easiest = 0.09

    def second(kept: frozenset[int], x: float) -> float:
        return additive(ERRORS)(kept, x) + (5 if x < 1.01 * easiest and 3 not in kept else 0)

    engine = TwoMinds(additive(ERRORS), second)
    values = [1.0, *(easiest + k / 100 for k in range(10))]
    found = search(engine, 8, values=values).run()
    assert (found.refuted, found.confirmed, 3 in found.plan.kept) == (1, True, True)
    stopped = search(engine, 8, values=values, progress=_Verifying()).run()
    assert (stopped.stopped, stopped.plan.ids) == ("interrupted", [1])


def test_where_time_is_short_it_is_not_all_spent_on_measuring() -> None:
    errors = [0.01] * 4000
    errors[5] = 3.0
    engine = Engine(additive(errors))
    auto = search(engine, 4000, settings=Settings(criterion=ONE, budget=Budget(seconds=50.0)))
    auto.oracle.clock = lambda: float(len(engine.runs))
    auto.oracle._start = 0.0
    found = auto.run()
    assert found.stopped == "budget: 50 s used"
    assert (found.after.passed, 5 in found.plan.kept) == (True, True)
    assert len(found.plan.kept) < 4000


def test_an_engine_that_answers_at_random_is_refused() -> None:
    numbers = iter(range(1, 1000))
    engine = Engine(lambda kept, _: 0.0 if len(kept) == 2 else 2.0 + next(numbers))
    with pytest.raises(EngineError, match=r"two runs of the same plan .* differ in output 'y'"):
        search(engine, 2).run()


def _validated(function: Callable[[Any, Any], Any], scope: str = "sample") -> Settings:
    return Settings(validator=Validator(function, scope))


def test_a_validator_replaces_the_tolerance() -> None:
    seen = []

    def small(reference: list[Any], outputs: list[Any]) -> bool:
        seen.append((len(reference), len(outputs)))
        return bool(np.abs(outputs[0] - reference[0]).max() <= 1.5)

    found = search(Engine(additive(ERRORS)), 8, settings=_validated(small)).run()
    assert found.plan.ids == [1]
    assert found.one_minimal
    assert found.after.margin is None
    assert set(seen) == {(1, 1)}


def test_a_validator_may_see_the_whole_data_set() -> None:
    def mean(reference: list[Any], outputs: list[Any]) -> bool:
        assert len(reference) == len(outputs) == 3
        return bool(np.mean([np.abs(o[0]).max() for o in outputs]) <= 1.0)

    found = search(
        Engine(additive(ERRORS)),
        8,
        settings=_validated(mean, "dataset"),
        values=(0.5, 1.0, 1.5),
    ).run()
    assert found.plan.ids == [1]


@pytest.mark.parametrize("scope", ["sample", "dataset"])
def test_a_plan_that_cannot_run_fails_whatever_the_validator_says(scope: str) -> None:
    def crashes(kept: frozenset[int], x: float) -> float:
        if 2 not in kept:
            raise EngineError("compiler crashed")
        return 0.0

    settings = _validated(lambda r, o: True, scope)
    assert search(Engine(crashes), 4, settings=settings).run().plan.ids == [2]


@pytest.mark.parametrize("scope", ["sample", "dataset"])
@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda r, o: 1 / 0, "raised ZeroDivisionError on"),
        (lambda r, o: 0.5, r"returned 0\.5 on"),
        (lambda r, o: None, "returned None on"),
        (lambda r, o: np.array([True, True]), "returned array"),
    ],
)
def test_a_validator_that_misbehaves_is_named(
    function: Callable[[Any, Any], Any], text: str, scope: str
) -> None:
    where = "sample 0" if scope == "sample" else "the data set"
    with pytest.raises(ValidatorError, match=rf"(?s){text}.*{where}|{text} {where}"):
        search(Engine(additive(ERRORS)), 8, settings=_validated(function, scope)).run()


def test_a_validator_cannot_spoil_the_outputs() -> None:
    def writes(reference: list[Any], outputs: list[Any]) -> bool:
        fine = bool(np.abs(outputs[0] - reference[0]).max() <= 1.0)
        outputs[0][...] = reference[0][...] = math.nan
        return fine

    found = search(Engine(additive(ERRORS)), 8, settings=_validated(writes)).run()
    assert found.plan.ids == [1]


def test_cosine_is_a_rule_like_others() -> None:
    def error(kept: frozenset[int], x: float) -> float:
        return -1.0 if 1 not in kept else 1.0

    engine = Engine(error)
    task = search(engine, 4, settings=Settings(criterion=Cosine(0.9)))
    for sample in task.references.ids:
        assert task.references.golden(sample)["y"].tolist() == [0.0]
        task.references.golden(sample)["y"] = np.ones(1, np.float32)
    assert task.run().plan.ids == [1]


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_change_no_answer(threads: int) -> None:
    settings = Settings(criterion=ONE, threads=threads)
    values = [0.1 * i for i in range(1, 11)]
    found = search(Engine(additive(ERRORS)), 8, settings=settings, values=values).run()
    assert found.plan.ids == [1]
    assert found.before.margin == pytest.approx(1.88)
    assert [sorted(q.items) for q in found.ledger] == [
        sorted(q.items) for q in search(Engine(additive(ERRORS)), 8, values=values).run().ledger
    ]


def test_another_tolerance_begins_from_the_answer_that_is_there() -> None:
    rng = random.Random(3)
    errors = [rng.lognormvariate(0, 1) for _ in range(60)]
    store, engine = MemoryStore(), Engine(additive(errors))

    def searched(atol: float) -> SearchResult:
        settings = Settings(criterion=Tolerance(0.0, atol))
        return search(engine, 60, settings=settings, store=store).run()

    first = searched(sum(errors) * 0.30)
    engine.runs.clear()
    second = searched(sum(errors) * 0.31)
    assert len(first.plan.ids) - 2 <= len(second.plan.ids) <= len(first.plan.ids)
    assert second.one_minimal
    assert second.evaluations < first.evaluations
    assert second.ledger[2].items == first.plan.kept
    assert searched(sum(errors) * 0.30).evaluations == 0
    assert searched(sum(errors) * 0.31).evaluations == 0
