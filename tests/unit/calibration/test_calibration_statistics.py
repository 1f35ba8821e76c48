"""CALC and RAW over traces: records are added up per op, and runs are paired turn by turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from topsideas.calibration.statistics import FP32, LOW, calc, raw
from topsideas.engines.base import OpRecord
from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.graph.loading import load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics
from topsideas.stats.calc import Thresholds
from topsideas.stats.criteria import Tolerance
from topsideas.testing.planted import in_loop

BOUNDS = Thresholds(le=1e-3, ge=10.0, limit=65504.0)


@dataclass
class Trace:
    records: Sequence[OpRecord]
    outputs: dict[str, Any] = field(default_factory=dict)

    def __iter__(self) -> Iterator[OpRecord]:
        yield from self.records


def _array(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_turns_of_a_loop_are_added_up() -> None:
    trace = Trace(
        [
            OpRecord(4, outputs=(_array(0, 20),)),
            OpRecord(4, outputs=(_array(1, np.nan, 30, 1e9),)),
            OpRecord(5, outputs=(_array(1), np.array([7, 100], np.int64))),
        ],
        {"y": _array(1)},
    )
    found = calc(trace, FP32, BOUNDS)
    assert found.ops == {
        4: {
            "outputs": [
                {
                    "fp32_ge_ratio": 3 / 6,
                    "fp32_le_ratio": 1 / 6,
                    "fp32_clip_ratio": 1 / 6,
                    "fp32_check_nan": True,
                }
            ]
        },
        5: {
            "outputs": [
                {
                    "fp32_ge_ratio": 0.0,
                    "fp32_le_ratio": 0.0,
                    "fp32_clip_ratio": 0.0,
                    "fp32_check_nan": False,
                },
                {
                    "fp32_ge_ratio": 0.5,
                    "fp32_le_ratio": 0.0,
                    "fp32_clip_ratio": 0.0,
                    "fp32_check_nan": False,
                },
            ]
        },
    }
    assert list(found.outputs) == ["y"]


def test_in_the_low_run_only_what_was_rounded_is_clipped() -> None:
    trace = Trace(
        [
            OpRecord(1, (_array(np.inf, 1),), (_array(7e4, 1),), (_array(1, 1e5), _array(2, 3))),
            OpRecord(2, (_array(1e9, 1),)),
        ]
    )
    ops = calc(trace, LOW, BOUNDS).ops
    assert ops[1]["outputs"][0]["fp16_clip_ratio"] == 0.5
    assert ops[1]["fp16_input_clip_ratio"] == 0.25
    assert ops[2]["outputs"][0]["fp16_clip_ratio"] == 0.0
    assert "fp16_input_clip_ratio" not in ops[2]


def test_outputs_without_elements_have_no_share() -> None:
    trace = Trace([OpRecord(1, (_array(),), (_array(),), (_array(),))])
    (op,) = calc(trace, LOW, BOUNDS).ops.values()
    assert op["outputs"][0]["fp16_ge_ratio"] is None
    assert op["fp16_input_clip_ratio"] is None


def _raw(low: Sequence[OpRecord], fp32: Sequence[OpRecord]) -> dict[int, list[dict[str, Any]]]:
    found = raw(Trace(low), Trace(fp32), Tolerance())
    return {op: fields["outputs"] for op, fields in found.items()}


def test_runs_are_paired_op_by_op_and_turn_by_turn() -> None:
    """The low run turns its loop three times, the fp32 run twice."""
    low = [OpRecord(1, (_array(1),)), *[OpRecord(2, (_array(v),)) for v in (1, 2, 3)]]
    low.append(OpRecord(3, (_array(5),)))
    fp32 = [OpRecord(1, (_array(1),)), *[OpRecord(2, (_array(v),)) for v in (1, 9)]]
    fp32.append(OpRecord(3, (_array(5),)))
    found = _raw(low, fp32)
    assert found[1][0]["numpy_allclose"] == found[3][0]["numpy_allclose"] == "pass"
    (loop,) = found[2]
    assert loop["numpy_allclose"] == "fail"
    assert (loop["fp16_element_count"], loop["fp32_element_count"]) == (3, 2)
    assert loop["exceed_tol_count"] == 2
    assert loop["cos_sim_value"] is None


def test_ops_of_branches_that_one_run_took_have_one_side() -> None:
    found = _raw([OpRecord(1, (_array(1, 2),))], [OpRecord(2, (_array(3),))])
    assert found[1][0]["fp16_element_count"] == 2
    assert found[1][0]["fp32_element_count"] == 0
    assert found[2][0]["fp16_element_count"] == 0
    assert found[2][0]["fp32_element_count"] == 1
    assert {rows[0]["numpy_allclose"] for rows in found.values()} == {"fail"}


def test_sequences_are_laid_end_to_end_and_nothing_is_nothing() -> None:
    pair = (OpRecord(1, ([_array(1), _array(2, 3)], None)),)
    found = _raw(pair, pair)
    assert [row["fp16_element_count"] for row in found[1]] == [3, 0]
    assert found[1][0]["numpy_allclose"] == "pass"


def test_statistics_of_a_real_loop() -> None:
    planted = in_loop()
    model = load_model(planted.model)
    engine = EmulatorEngine(model, Numerics())
    fp32, low = PrecisionPlan(model.candidates), PrecisionPlan.of([])
    feeds = planted.samples[0]
    of_fp32 = calc(engine.compile(fp32).trace(feeds), FP32, BOUNDS).ops
    of_low = calc(engine.compile(low).trace(feeds), LOW, BOUNDS).ops
    # The product is 100, 30033, 59967 and 90000, and 1.01 times that in each next turn.
    assert of_fp32[2]["outputs"][0]["fp32_clip_ratio"] == 3 / 12
    assert of_low[2]["outputs"][0]["fp16_clip_ratio"] > 0
    compared = raw(
        engine.compile(low).trace(feeds), engine.compile(fp32).trace(feeds), Tolerance()
    )
    assert compared[2]["outputs"][0]["fp16_inf_count"] >= 3
    assert compared[2]["outputs"][0]["numpy_allclose"] == "fail"
