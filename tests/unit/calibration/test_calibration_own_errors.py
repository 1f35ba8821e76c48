"""What kernels add beyond rounding, found in a trace and weighed at the outputs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.standin.devices import Device, Summing
from topsideas.calibration.own_errors import own_errors, worth_keeping
from topsideas.engines.base import OpRecord
from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics
from topsideas.stats.criteria import Tolerance, margin
from topsideas.testing.planted import parse, ramp

TEXT = """g (float[4,500] x) => (float[4,1] y) <float down = {0.25}> {
    a = Relu (x)
    m = ReduceMean <axes = [1]> (a)
    s = Mul (m, down)
    y = Sqrt (s)
}"""
MEAN = 1


def _found(device: Device, model: Model, feeds: dict[str, np.ndarray]) -> dict[int, float]:
    emulator = EmulatorEngine(model, Numerics())
    golden = emulator.compile(PrecisionPlan(model.candidates)).run(feeds)
    trace = device.compile(PrecisionPlan(frozenset())).trace(feeds)
    rule = Tolerance(1e-3, 1e-3)
    worst = lambda found: max(margin(found[n], golden[n], rule) for n in golden)  # noqa: E731
    return own_errors(model, emulator, trace, model.candidates, feeds, worst)


def test_a_kernel_that_rounds_as_defined_has_no_error_of_its_own() -> None:
    model = load_model(parse(TEXT))
    assert _found(Device(model), model, {"x": ramp(1, 90, 4, 500)}) == {}


def test_a_sum_that_is_rounded_on_its_way_is_found_and_weighed() -> None:
    """The other ops do what they should with what they are given, however wrong that is."""
    model = load_model(parse(TEXT))
    found = _found(Summing(model), model, {"x": ramp(1, 90, 4, 500)})
    assert list(found) == [MEAN]
    assert 0.05 < found[MEAN] < 1


def test_an_overflow_inside_has_no_bound() -> None:
    model = load_model(parse(TEXT))
    found = _found(Summing(model), model, {"x": ramp(500, 900, 4, 500)})
    assert found == {MEAN: math.inf}


def test_what_a_trace_does_not_show_is_left_out() -> None:
    model = load_model(parse(TEXT))
    feeds = {"x": ramp(500, 900, 4, 500)}
    emulator = EmulatorEngine(model, Numerics())
    trace = Summing(model).compile(PrecisionPlan(frozenset())).trace(feeds)
    shown = [record for record in trace if record.id != 0]  # what the mean reads
    found = own_errors(model, emulator, shown, model.candidates, feeds, lambda _: 1.0)
    assert found == {}


def test_what_kernels_make_of_nan_is_no_error_of_theirs() -> None:
    """One runtime's maximum hands NaN on, another's ignores it: the op before it erred."""
    model = load_model(parse(TEXT))
    feeds = {"x": ramp(1, 90, 4, 500)}
    emulator = EmulatorEngine(model, Numerics())
    nan = np.full((4, 500), np.nan, np.float32)
    shown = [OpRecord(0, (nan,)), OpRecord(MEAN, (np.ones((4, 1), np.float32),))]
    assert own_errors(model, emulator, shown, [MEAN], feeds, lambda _: 1.0) == {}
    shown[0] = OpRecord(0, (np.zeros((4, 500), np.float32),))
    assert own_errors(model, emulator, shown, [MEAN], feeds, lambda _: 1.0) == {MEAN: 1.0}


def _chain(kinds: str) -> Model:
    body = [f"a{k} = {kind} ({f'a{k - 1}' if k else 'x'})" for k, kind in enumerate(kinds.split())]
    last = f"a{len(body) - 1}"
    return load_model(parse(f"g (float[2] x) => (float[2] {last}) {{" + "\n".join(body) + "}"))


def test_the_worst_are_kept_until_roundings_have_room() -> None:
    model = _chain("Relu Sqrt Exp Neg")
    errors = {0: 0.25, 1: 1.5, 2: 0.4, 3: 0.1}
    marked, left = worth_keeping(model, errors, model.candidates, 1.0)
    assert list(marked) == [1]
    assert marked[1] == "its kernel alone makes a margin of 1.5"
    assert left == pytest.approx(math.hypot(0.25, 0.4, 0.1))
    marked, left = worth_keeping(model, errors, model.candidates, 0.8)
    assert list(marked) == [1, 2]
    assert left == pytest.approx(math.hypot(0.25, 0.1))


def test_errors_that_are_small_each_are_left_to_the_room() -> None:
    model = _chain("Relu Sqrt Exp Neg Tanh Sin Cos Abs Erf")
    marked, left = worth_keeping(model, dict.fromkeys(range(9), 0.2), model.candidates, 1.0)
    assert marked == {}
    assert left == pytest.approx(0.6)


def test_of_a_type_of_which_two_err_all_are_kept() -> None:
    model = _chain("Sqrt Sqrt Exp Sqrt")
    marked, _ = worth_keeping(model, {0: 2.0, 1: 3.0}, model.candidates, 1.0)
    assert list(marked) == [1, 0, 3]
    assert marked[3] == "a Sqrt, like others that differ"
