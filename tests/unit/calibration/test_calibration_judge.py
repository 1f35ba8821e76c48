from __future__ import annotations

import math
import threading
import time

import numpy as np
import pytest
from arithmetic import GOLDEN, ONE, Engine, Fp32, TwoMinds, additive, references, samples

from topsideas.calibration.judge import FUSED, Judge
from topsideas.calibration.references import References
from topsideas.calibration.settings import Settings
from topsideas.errors import EngineError, SampleError
from topsideas.samples.sample import Sample

NONE: frozenset[int] = frozenset()


def _judge(engine: Engine, *values: float, threads: int = 1, bound: float = 1.0) -> Judge:
    settings = Settings(criterion=ONE, threads=threads, bound=bound)
    return Judge(engine, references(*values), settings)


def _asked(engine: Engine) -> list[float]:
    return [x for _, x in engine.runs]


def test_a_plan_that_passes_is_run_on_every_sample_and_the_worst_is_told() -> None:
    engine = Engine(lambda kept, x: x)
    verdict = _judge(engine, 0.125, 0.75, 0.25).judge(NONE)
    assert (verdict.passed, verdict.sample, verdict.output) == (True, 1, "y")
    assert verdict.margin == 0.75
    assert _asked(engine) == [0.125, 0.75, 0.25]


def test_the_first_failure_ends_the_judgement_and_is_asked_first_next_time() -> None:
    engine = Engine(lambda kept, x: x)
    judge = _judge(engine, 0.125, 2.0, 0.25, 5.0)
    verdict = judge.judge(NONE)
    assert (verdict.passed, verdict.sample) == (False, 1)
    assert _asked(engine) == [0.125, 2.0]
    assert judge.hardest == 1
    judge.judge(frozenset({7}))
    assert _asked(engine) == [0.125, 2.0, 2.0]


def test_a_full_judgement_sees_every_sample_and_finds_the_hardest() -> None:
    engine = Engine(lambda kept, x: x)
    judge = _judge(engine, 0.125, 2.0, 0.25, 5.0)
    verdict = judge.full_margin(NONE)
    assert (verdict.passed, verdict.sample, verdict.margin) == (False, 3, pytest.approx(5.0))
    assert sorted(_asked(engine)) == [0.125, 0.25, 2.0, 5.0]
    assert judge.hardest == 3


def test_samples_side_by_side_give_the_same_verdict() -> None:
    values = [0.1, 0.2, 0.9, 0.3, 0.8, 3.0, 0.4, 4.0]
    for chosen in (values, values[:5]):
        alone, together = (
            _judge(Engine(lambda kept, x: x), *chosen, threads=t).judge(NONE) for t in (1, 4)
        )
        assert alone == together


def test_threads_run_at_the_same_time() -> None:
    barrier = threading.Barrier(3, timeout=10)

    def waits(kept: frozenset[int], x: float) -> float:
        if x > 0:
            barrier.wait()
        return 0.0

    assert _judge(Engine(waits), 0.0, 1.0, 1.0, 1.0, threads=3).judge(NONE).passed


def test_after_a_failure_no_more_samples_are_begun() -> None:
    def slow(kept: frozenset[int], x: float) -> float:
        time.sleep(0.01)
        return 9.0 if x == 1 else 0.0

    engine = Engine(slow)
    verdict = _judge(engine, 0.0, 1.0, *[0.5] * 60, threads=2).judge(NONE)
    assert not verdict.passed
    assert len(engine.runs) < 40


def test_one_sample_alone_is_judged_by_the_criterion() -> None:
    judge = _judge(Engine(additive([2.0, 3.0])), 1.0, 2.0)
    assert judge.margin_of({"y": np.array([6.0], np.float32)}, 1) == pytest.approx(6.0)


def test_a_plan_that_cannot_run_has_an_infinite_margin() -> None:
    def crashes(kept: frozenset[int], x: float) -> float:
        raise EngineError("gone")

    judge = _judge(Engine(crashes), 1.0)
    for verdict in (judge.judge(NONE), judge.full_margin(NONE)):
        assert (verdict.passed, verdict.margin, verdict.note) == (False, math.inf, "gone")


def test_room_for_the_device_is_asked_of_fusing_targets_too() -> None:
    """Below a bound of 1 a plan must also hold, to the full tolerance, where low ops fuse."""
    for fused, passes in ((0.9, True), (1.5, False)):
        engine = TwoMinds(lambda kept, x: 0.4, lambda kept, x, f=fused: f)
        verdict = _judge(engine, 1.0, bound=0.5).judge(NONE)
        assert verdict.passed == passes
        assert (verdict.note == FUSED) == (not passes)
        assert _judge(engine, 1.0).judge(NONE).passed


def test_golden_outputs_that_were_not_given_are_computed_once() -> None:
    calls = []

    def fp32(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        calls.append(float(inputs["x"][0]))
        return {"y": inputs["x"] * 2}

    without = Sample(5, {"x": np.array([3.0], np.float32)}, None)
    known = References([without, *samples(1.0)], lambda: Fp32(fp32))
    assert known.ids == [0, 5]
    assert [known.is_given(i) for i in known.ids] == [True, False]
    assert known.golden(0)["y"] is GOLDEN
    assert [known.golden(5)["y"].tolist() for _ in range(2)] == [[6.0], [6.0]]
    assert calls == [3.0]


def test_golden_outputs_come_from_a_fp32_run_that_was_made_anyway() -> None:
    without = Sample(5, {"x": np.array([3.0], np.float32)}, None)
    known = References([without, *samples(1.0)], lambda: pytest.fail("runs again"))
    ran = {"y": np.array([6.0], np.float32)}
    assert known.golden(5, ran) is ran
    assert known.golden(5) is ran
    assert known.golden(0, ran)["y"] is GOLDEN


def test_nan_in_computed_golden_outputs_is_refused() -> None:
    without = Sample(5, {"x": np.array([3.0], np.float32)}, None)
    known = References([without], lambda: Fp32(lambda _: {"y": np.array([np.nan], np.float32)}))
    with pytest.raises(SampleError, match="sample 5: the model gives NaN in output 'y'"):
        known.golden(5)


def test_samples_that_do_not_fit_are_read_again() -> None:
    loads = []

    class Source:
        def __init__(self, number: int) -> None:
            self.id = number

        def load(self) -> Sample:
            loads.append(self.id)
            return Sample(self.id, {"x": np.zeros(2, np.float32)}, {"y": GOLDEN})

    known = References([Source(i) for i in range(3)], lambda: Fp32(lambda _: {}), limit=20)
    for number in (0, 0, 1, 2, 0):
        assert known.sample(number).id == number
    assert loads == [0, 1, 2, 0]
