"""OpenVINO: what it refuses, what it tells, and what it computes in fp32 on any processor.

What needs a processor with FP16 or BF16 is in the conformance suite, which skips with the reason.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openvino", reason="pip install 'topsideas[openvino]'")

from tests.unit.engines.typed_engines import (
    EVERY,
    FEEDS,
    TEXT,
    assert_fp32_equals_the_emulators,
)
from topsideas.engines.openvino import readback, runtime
from topsideas.engines.openvino.engine import OpenVinoEngine, open_openvino, probe
from topsideas.engines.openvino.runtime import target_of
from topsideas.engines.options import EngineOptions
from topsideas.errors import EngineError
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Accumulation, Numerics, Overflow
from topsideas.testing.planted import Planted, parse, planted_models, ramp


def _engine(model: Model | None = None, **options: Any) -> OpenVinoEngine:
    asked = EngineOptions(compile_options=options)
    return OpenVinoEngine(model or load_model(parse(TEXT)), Numerics(), target_of(asked))


def _has(precision: str) -> bool:
    return not target_of(EngineOptions()).refusal(precision)


def _without_fp16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.Target, "capabilities", lambda self: ["FP32", "INT8"])


def test_a_processor_without_fp16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_fp16(monkeypatch)
    model = load_model(parse(TEXT))
    with pytest.raises(EngineError, match=r"computes fp16 models in fp32 on CPU.*no evidence"):
        open_openvino(model, EngineOptions())
    assert "without BF16" in probe(EngineOptions()).refusal("bf16")


def test_low_plans_are_refused_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_fp16(monkeypatch)
    engine = _engine()
    with pytest.raises(EngineError, match="that is no evidence"):
        engine.compile(PrecisionPlan.of([0, 1]))
    assert engine.compile(EVERY).run(FEEDS)["y"].shape == (3, 4)


@pytest.mark.parametrize("planted", planted_models(), ids=lambda p: p.name)
def test_fp32_equals_other_fp32_kernels(planted: Planted) -> None:
    assert_fp32_equals_the_emulators(planted, _engine)


def test_the_precision_of_each_op_is_read_back() -> None:
    """Where low ops run in fp32 the engine says so: nothing can pass for fp16 unseen."""
    executable = _engine().compile_unchecked(PrecisionPlan.of([1]))
    expected = {} if _has("fp16") else {0: "f32", 2: "f32"}
    assert dict(executable.differing(FEEDS)) == expected
    every = _engine().compile(EVERY)
    assert dict(every.differing(FEEDS)) == {}


@pytest.mark.parametrize(
    ("kind", "precision", "differing"),
    [
        ("MatMul", "f16", {1: "f16"}),
        ("Subgraph", "f16", {}),  # bears the type of what it reads, and casts it
        ("Eltwise", "f16", {}),
        ("Subgraph", "f32", {0: "f32", 2: "f32"}),
        ("Convert", "f16", {}),
    ],
)
def test_what_a_kernels_precision_says_of_its_ops(
    kind: str, precision: str, differing: dict[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = readback.Kernel(kind, precision, (0, 1, 2))
    monkeypatch.setattr(readback, "kernels", lambda *_: [kernel])
    executable = _engine().compile_unchecked(PrecisionPlan.of([1]))
    assert dict(executable.differing(FEEDS)) == differing


def test_fused_ops_are_told() -> None:
    model = load_model(
        parse("""g (float[2,4] x) => (float[2,4] y)
        <float[4,4] w = {1,2,3,4,5,6,7,8,9,1,2,3,4,5,6,7}> {
            a = MatMul (x, w)
            y = Relu (a)
        }""")
    )
    executable = _engine(model).compile(PrecisionPlan.of([0, 1]))
    assert (0, 1) in executable.kernels({"x": ramp(-1, 1, 2, 4)})


def test_a_trace_shows_every_op() -> None:
    executable = _engine().compile(EVERY)
    trace = executable.trace(FEEDS)
    records = {record.id: record for record in trace}
    assert sorted(records) == [0, 1, 2]
    np.testing.assert_allclose(records[1].outputs[0], np.exp(np.maximum(FEEDS["x"], 0)), rtol=1e-5)
    np.testing.assert_array_equal(records[0].slot_inputs[0], FEEDS["x"])
    np.testing.assert_allclose(trace.outputs["y"], executable.run(FEEDS)["y"], rtol=1e-6)


def test_saved_as_ir_and_loaded(tmp_path: Path) -> None:
    engine = _engine()
    executable = engine.compile(EVERY)
    executable.save(tmp_path / "saved")
    np.testing.assert_array_equal(
        engine.load(tmp_path / "saved").run(FEEDS)["y"], executable.run(FEEDS)["y"]
    )
    (tmp_path / "other").write_bytes(b"something else")
    with pytest.raises(EngineError, match="no executable of openvino"):
        engine.load(tmp_path / "other")
    executable.dump(tmp_path / "listing")
    assert "f32" in (tmp_path / "listing").read_text()


def test_bad_input_is_refused_before_it_reaches_the_runtime() -> None:
    executable = _engine().compile(EVERY)
    for feeds, text in (
        ({}, "no array for input 'x'"),
        ({"x": np.zeros((3, 4))}, "is float64; expected float32"),
        ({"x": np.zeros((3, 5), np.float32)}, r"shape \(3, 5\); expected \[N,4\]"),
    ):
        with pytest.raises(EngineError, match=text):
            executable.run(feeds)


def test_devices_are_named_or_numbered() -> None:
    assert target_of(EngineOptions(compile_options={"device": "CPU"})).device == "CPU"
    with pytest.raises(EngineError, match="no device 99; it found 0 CPU"):
        target_of(EngineOptions(device=99))
    with pytest.raises(EngineError, match="no device 'TPU'"):
        target_of(EngineOptions(compile_options={"device": "TPU"}))


def test_compile_options_reach_openvino_and_the_identity() -> None:
    engine = _engine(INFERENCE_NUM_THREADS=1)
    assert "INFERENCE_NUM_THREADS" in engine.identity().options["config"]
    assert "ACCURACY" in engine.identity().options["config"]
    executable = _engine(NO_SUCH_OPTION="x").compile(EVERY)
    with pytest.raises(EngineError, match="failed while compiling"):
        executable.run(FEEDS)


@pytest.mark.parametrize(
    "numerics",
    [Numerics(overflow=Overflow.SATURATE), Numerics(accumulation=Accumulation.LOW)],
)
def test_what_only_an_emulation_can_choose_is_refused(numerics: Numerics) -> None:
    with pytest.raises(EngineError, match="emulat"):
        open_openvino(load_model(parse(TEXT)), EngineOptions(numerics=numerics))


def test_latency_is_measured() -> None:
    assert _engine().compile(EVERY).latency(FEEDS, 3) > 0
