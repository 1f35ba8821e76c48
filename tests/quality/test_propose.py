"""Plans of the emulator verified on devices with other habits, real ones stood in for.

Every answer passes on the device, in a handful of builds, and is hardly larger than what a search
on the device itself finds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.standin.devices import (
    Adding,
    Device,
    Flushing,
    Folding,
    Fusing,
    Hiding,
    Refusing,
    Short,
    Summing,
)
from topsideas.calibration.adapting import Adapting
from topsideas.calibration.habits import best_habit, habits, unlikeness
from topsideas.calibration.journal import MemoryStore, Store
from topsideas.calibration.judge import Judge
from topsideas.calibration.learning import Learning
from topsideas.calibration.problem import make_problem, read_samples
from topsideas.calibration.progress import Silent
from topsideas.calibration.proposal import Round
from topsideas.calibration.references import References
from topsideas.calibration.result import SearchResult
from topsideas.calibration.settings import Settings, Validator
from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.engines.options import EngineOptions
from topsideas.engines.registry import open_engine
from topsideas.errors import BaselineError
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import FP16, Numerics
from topsideas.samples import samples_from_memory, signature_of
from topsideas.search.oracle import Budget
from topsideas.stats.criteria import Tolerance, margin
from topsideas.testing.planted import accumulation, epsilon, many_readers, overflow, parse, ramp
from topsideas.verdict import Verdict

# A chain in which many roundings add up, each op a little different.
_STEPS = 24


def _products() -> Model:
    """Three products, of which the long sums lose most when each term is rounded."""
    return load_model(
        parse("""g (float[1,2048] x) => (float[1,1] y) <
            float[1] one = {1}, float[1] half = {0.5}, int64[2] tall = {2048, 1}
        > {
            w = Reshape (x, tall)
            a = MatMul (x, w)
            b = Mul (a, half)
            c = Add (b, one)
            y = Neg (c)
        }""")
    )


def _wear() -> Model:
    return load_model(parse("g (float[64] x) => (float[64] y) {" + _steps("x") + "}"))


def _mean_and_wear() -> Model:
    mean = "a = Relu (x)\n m = ReduceMean <axes = [1]> (a)\n"
    return load_model(parse("g (float[8,2048] x) => (float[8,1] y) {" + mean + _steps("m") + "}"))


def _steps(last: str) -> str:
    body = []
    for step in range(_STEPS):
        factor, name = 1.0 + 0.013 * (step + 1), f"t{step}"
        body.append(f"c{step} = Constant <value = float {{{factor}}}> ()")
        kind = "Mul" if step % 2 else "Div"
        body.append(f"{name} = {kind} ({last}, c{step})")
        last = name
    return "\n".join([*body, f"y = Identity ({last})"])


def _search(
    model: Model,
    device: Device,
    feeds: Sequence[dict[str, np.ndarray]],
    *,
    settings: Settings | None = None,
    propose: bool = True,
    adapt: bool = True,
    store: Store | None = None,
    golden: list[dict[str, Any] | None] | None = None,
) -> SearchResult:
    samples = samples_from_memory(list(feeds), golden, signature_of(model))
    emulator = EmulatorEngine(model, Numerics())

    def opener(habit: Any) -> Any:
        options = EngineOptions(compile_options=dict(habit.options))
        return open_engine("emulator", habit.applied(model), options)

    return make_problem(
        model,
        device,
        FP16,
        samples,
        (),
        settings or Settings(),
        store or MemoryStore(),
        read_samples(samples, None),
        golden=lambda: emulator.compile(_plan(model)),
        proposer=emulator if propose else None,
        proposers=opener if adapt else None,
    ).search(Silent())


def _plan(model: Model) -> PrecisionPlan:
    return PrecisionPlan(model.candidates)


# On each device the answer is neither nothing nor everything.
@pytest.mark.parametrize(
    ("make", "tolerance"),
    [(Device, 7e-4), (Device, 1.5e-3), (Device, 2e-3), (Fusing, 7e-4), (Fusing, 8e-4)],
)
def test_answers_pass_on_the_device_in_few_builds(make: type[Device], tolerance: float) -> None:
    model, feeds = _wear(), [{"x": ramp(0.5, 2, 64)}, {"x": ramp(3, 9, 64)}]
    settings = Settings(criterion=Tolerance(tolerance, tolerance))
    device = make(model)
    found = _search(model, device, feeds, settings=settings)
    assert found.after.passed
    assert found.proposal is not None
    assert 1 <= device.dear_builds <= 4
    assert found.proposal.builds == device.dear_builds
    direct = _search(model, make(model), feeds, settings=settings, propose=False)
    assert direct.proposal is None
    assert 0 < len(found.plan.kept) <= len(direct.plan.kept) + 1 < len(model.candidates)


def test_a_device_that_flushes_is_found_out() -> None:
    """The definition keeps subnormals, so that it has nothing to complain of."""
    model = load_model(
        parse("""g (float[8] x) => (float[8] y) <float down = {0.0009765625}, float up = {1024}> {
            a = Mul (x, down)
            b = Mul (a, up)
            y = Neg (b)
        }""")
    )
    settings = Settings(criterion=Tolerance(1e-2, 1e-4))
    device, feeds = Flushing(model, traces=False), [{"x": ramp(0.03, 0.05, 8)}]
    found = _search(model, device, feeds, settings=settings)
    assert found.after.passed
    assert found.plan.kept == {0, 1}
    assert found.proposal is not None
    assert found.proposal.all_low.passed is False
    assert found.proposal.habit == "flushes subnormals"
    assert found.proposal.unlike == 0


def test_a_habit_is_told_from_the_control_and_searched_with() -> None:
    planted = accumulation()
    model = load_model(planted.model)
    device = Summing(model, traces=False)
    found = _search(model, device, planted.samples)
    assert found.plan.kept == planted.answer
    assert found.one_minimal
    assert found.proposal is not None
    assert found.proposal.habit == "by the definition, sums low"
    assert found.proposal.unlike == 0
    assert found.proposal.builds == 1


def test_products_summed_low_are_told_and_searched_with() -> None:
    model = _products()
    device, feeds = Adding(model, traces=False), [{"x": ramp(0.1, 1, 2048).reshape(1, 2048)}]
    settings = Settings(criterion=Tolerance(1e-3, 1e-3))
    found = _search(model, device, feeds, settings=settings)
    assert found.after.passed
    assert found.plan.kept
    assert found.proposal is not None
    assert found.proposal.habit == "by the definition, adds terms low"
    assert found.proposal.unlike == 0
    assert found.proposal.all_low.margin == found.before.margin
    assert found.proposal.rounds[0].kept == found.plan.kept
    assert found.proposal.builds == 1


def test_a_habit_that_promises_too_much_is_dropped() -> None:
    """Rounding nothing, it is never further from a gross error than that is from fp32."""
    planted = overflow()
    model = load_model(planted.model)
    device = Hiding(model, traces=False)
    found = _search(model, device, planted.samples)
    assert found.plan.kept == planted.answer
    assert found.proposal is not None
    assert found.proposal.habit == "by the definition"
    assert found.proposal.rounds[0].kept == planted.answer  # all others are proofs


def test_without_the_habit_the_trace_tells_which_op_differs() -> None:
    planted = accumulation()
    model = load_model(planted.model)
    found = _search(model, Summing(model), planted.samples, adapt=False)
    # The emulator finds nothing wrong with any op, so all low is what it proposes.
    assert found.plan.kept == planted.answer
    assert found.proposal is not None
    assert list(found.proposal.marked) == [1]
    assert found.proposal.marked[1] == "its kernel alone makes a margin of inf"


def test_an_op_that_no_habit_explains_is_kept_from_the_first_build_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mean that overflows inside, before a chain of roundings that need ops of their own."""
    known = [habit for habit in habits() if "sums low" not in habit.name]
    monkeypatch.setattr("topsideas.calibration.adapting.habits", lambda *_: known)
    model, feeds = _mean_and_wear(), [{"x": ramp(40, 80, 8, 2048)}]
    settings = Settings(criterion=Tolerance(5e-4, 5e-4))
    found = _search(model, Summing(model), feeds, settings=settings)
    assert found.after.passed
    assert found.proposal is not None
    assert list(found.proposal.marked) == [1]
    assert found.proposal.rounds[0].verdict.passed
    assert {1} < found.proposal.rounds[0].kept < model.candidates


def test_without_habit_and_trace_the_plan_grows_until_it_passes() -> None:
    planted = accumulation()
    model = load_model(planted.model)
    found = _search(model, Summing(model, traces=False), planted.samples, adapt=False)
    assert found.after.passed
    assert 1 in found.plan.kept
    assert found.proposal is not None
    assert {r.why for r in found.proposal.rounds} <= {"emulated", "grown", "proof"}
    assert found.proposal.builds <= 4


def test_one_build_is_enough_where_device_and_emulator_agree() -> None:
    planted = overflow()
    model = load_model(planted.model)
    device = Device(model)
    found = _search(model, device, planted.samples)
    assert found.plan.kept == planted.answer
    assert found.proposal is not None
    first = found.proposal.rounds[0]
    assert (first.why, first.kept, first.ratio) == ("emulated", planted.answer, 1.0)
    # what is left of the builds proves that the device, not only the emulator, needs both ops
    assert [r.why for r in found.proposal.rounds[1:]] == ["proof", "proof"]
    assert found.one_minimal
    assert set(found.witnesses) == planted.answer


def test_minimality_is_said_of_the_device_only_where_it_was_shown_there() -> None:
    planted = overflow()
    model = load_model(planted.model)
    found = _search(model, Device(model), planted.samples, settings=Settings(max_builds=1))
    assert found.after.passed
    assert not found.one_minimal
    assert found.proposal is not None
    assert found.proposal.minimal
    assert found.proposal.builds == 1


def test_a_device_that_passes_all_low_needs_no_build() -> None:
    model = load_model(overflow().model)
    found = _search(model, Device(model), [{"x": ramp(0, 1, 4)}])
    assert (found.plan.kept, found.one_minimal) == (frozenset(), True)
    assert found.proposal is not None
    assert found.proposal.builds == 0


def test_what_is_read_back_is_emulated() -> None:
    """The device keeps op 3 whatever it is told, and computes op 2 low whenever anything is."""
    planted = many_readers()
    model = load_model(planted.model)
    device = Folding(model, always_fp32=frozenset({3}))
    found = _search(model, device, planted.samples)
    assert found.after.passed
    assert found.plan.kept <= planted.answer


def test_an_op_that_cannot_be_kept_alone_ends_in_a_valid_plan() -> None:
    planted = epsilon()
    model = load_model(planted.model)
    device = Folding(model, always_low=frozenset({2}))
    found = _search(model, device, planted.samples)
    assert found.after.passed  # all fp32 is the one plan that the device gets right
    assert found.plan.kept == model.candidates


def test_a_compiler_that_gives_up_is_a_verdict() -> None:
    planted = overflow()
    model = load_model(planted.model)
    device = Refusing(model)
    device.refuses = lambda kept: kept == planted.answer
    found = _search(model, device, planted.samples)
    assert found.after.passed
    assert found.plan.kept > planted.answer
    assert found.proposal is not None
    assert found.proposal.rounds[0].verdict.note == "the compiler gave up"


def test_a_validator_without_margins_is_verified_too() -> None:
    planted = overflow()
    model = load_model(planted.model)

    def close(reference: Any, outputs: Any) -> bool:
        return bool(np.allclose(outputs[0], reference[0], rtol=1e-2, atol=1e-2))

    settings = Settings(validator=Validator(close))
    found = _search(model, Device(model), planted.samples, settings=settings)
    assert found.plan.kept == planted.answer
    assert found.after.passed


def test_golden_outputs_that_the_device_misses_in_fp32_are_refused() -> None:
    planted = overflow()
    model = load_model(planted.model)
    golden: list[dict[str, Any] | None] = [{"y": np.full(4, 77, np.float32)}]
    with pytest.raises(BaselineError, match="even with every op in fp32") as plain:
        _search(model, Device(model), planted.samples, golden=golden)
    assert str(plain.value).endswith("widen the tolerance")
    with pytest.raises(BaselineError, match=r"widen the tolerance. its fp32 is less than fp32$"):
        _search(model, Short(model), planted.samples, golden=golden)


def test_a_curve_is_of_the_device_and_its_builds_are_told_apart() -> None:
    model, feeds = _wear(), [{"x": ramp(0.5, 2, 64)}]
    settings = Settings(criterion=Tolerance(7e-4, 7e-4))
    plain = _search(model, Device(model), feeds, settings=settings)
    device = Device(model)
    found = _search(model, device, feeds, settings=replace(settings, pareto=True))
    assert found.curve is not None
    assert found.proposal is not None
    assert plain.proposal is not None
    assert (found.plan, found.evaluations) == (plain.plan, plain.evaluations)
    assert found.proposal.builds == plain.proposal.builds
    assert device.dear_builds == found.proposal.builds + found.curve.evaluations
    golden = EmulatorEngine(model, Numerics()).compile(_plan(model)).run(feeds[0])["y"]
    for point in found.curve.points:
        outputs = device.compile(PrecisionPlan(point.items)).run(feeds[0])["y"]
        assert point.verdict.margin == margin(outputs, golden, settings.criterion)


def test_a_second_run_builds_nothing_again() -> None:
    planted, store = overflow(), MemoryStore()
    model = load_model(planted.model)
    first = _search(model, Device(model), planted.samples, store=store)
    again = _search(model, Device(model), planted.samples, store=store)
    assert again.plan == first.plan
    assert again.evaluations == 0
    assert again.one_minimal


def test_builds_that_are_used_up_leave_the_best_valid_plan() -> None:
    model, feeds = _wear(), [{"x": ramp(0.5, 2, 64)}, {"x": ramp(3, 9, 64)}]
    settings = Settings(criterion=Tolerance(7e-4, 7e-4), max_builds=1)
    device = Folding(model, always_low=frozenset(range(_STEPS // 2)))
    found = _search(model, device, feeds, settings=settings, adapt=False)
    assert found.stopped == "budget: 1 builds used"
    assert found.after.passed
    assert found.plan.kept == model.candidates
    assert not found.one_minimal


def test_a_time_limit_ends_it() -> None:
    model = _wear()
    settings = Settings(criterion=Tolerance(3e-4, 3e-4), budget=Budget(None, 1e-3))
    found = _search(model, Device(model), [{"x": ramp(0.5, 2, 64)}], settings=settings)
    assert found.stopped.startswith("budget")
    assert found.plan.kept == model.candidates


def test_likeness_is_measured_in_the_engines_own_error() -> None:
    exact = {"y": np.zeros(4, np.float32)}
    real = {"y": np.array([1, -1, 1, -1], np.float32)}
    assert unlikeness(real, real, exact) == 0
    assert unlikeness(real, exact, exact) == 3  # what rounds nothing explains nothing
    twice = {"y": 2 * real["y"]}
    assert unlikeness(real, twice, exact) == pytest.approx(math.log(2))
    assert unlikeness(twice, real, exact) == pytest.approx(math.log(2))
    assert unlikeness(real, {"y": -real["y"]}, exact) == 2
    broken = {"y": np.array([np.inf, 0, 0, 0], np.float32)}
    assert 3 < unlikeness(real, broken, exact) <= 4
    assert unlikeness(broken, broken, exact) == 0


def test_the_definition_is_left_only_for_what_explains_much_better() -> None:
    assert best_habit({"plain": 1.0, "other": 0.9}, "plain") == "plain"
    assert best_habit({"plain": 1.0, "other": 0.7}, "plain") == "other"
    assert best_habit({"plain": 0.0, "other": 0.0}, "plain") == "plain"


def test_fusing_leaves_out_roundings_between_private_neighbours_only() -> None:
    model = load_model(
        parse("""g (float[4] x) => (float[4] y, float[4] a) <float c = {3}> {
            a = Mul (x, c)
            b = Mul (a, c)
            d = Relu (b)
            y = Neg (d)
        }""")
    )
    fusing = {habit.name: habit.applied(model).ops for habit in habits()}
    assert fusing["by the definition"] == model.ops
    activations = fusing["fuses activations"]
    assert [len(op.slots.outputs) for op in activations] == [1, 0, 0, 1]  # a is an output
    read_back = {h.name: h for h in habits([(1, 2), (3,)])}["fuses as read back"].applied(model)
    assert [len(op.slots.outputs) for op in read_back.ops] == [1, 0, 1, 1]


def test_an_earlier_plan_that_went_wrong_is_explained_by_a_later_one_that_did_not() -> None:
    """Whatever is learned afterwards, the op that made the difference stays."""
    planted = accumulation()
    model = load_model(planted.model)
    device, emulator = Summing(model, traces=False), EmulatorEngine(model, Numerics())
    samples = samples_from_memory(planted.samples[:1], None, signature_of(model))
    references = References(samples, lambda: emulator.compile(_plan(model)))
    adapting = Adapting(model, device, references, lambda _: emulator, same_numbers=False)
    learned = Learning(model, device, references, Settings(), adapting, same_numbers=False)
    low = Judge(device, references, Settings()).full_margin(frozenset())
    assert learned.learn(frozenset(), low, [0], []) == (False, False)
    assert not learned.marked
    mild, near = Verdict(False, 1.2, 0, "y"), Verdict(True, 0.5, 0, "y")
    found = Round("emulated", 1.0, frozenset({1}), near, mild)
    assert learned.learn(found.kept, mild, [0], [found]) == (False, True)
    assert list(learned.marked) == [1]
