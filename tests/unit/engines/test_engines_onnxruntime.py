"""ONNX Runtime's providers: the CPU's is refused as evidence, and everything else works on it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.unit.engines.typed_engines import (
    EVERY,
    FEEDS,
    TEXT,
    assert_fp32_equals_the_emulators,
)
from topsideas.engines.onnxruntime import providers, selftest
from topsideas.engines.onnxruntime.engine import OnnxRuntimeEngine, open_onnxruntime, probe
from topsideas.engines.onnxruntime.placement import placed_nodes
from topsideas.engines.onnxruntime.providers import CPU, Chosen
from topsideas.engines.onnxruntime.selftest import chosen_provider
from topsideas.engines.options import EngineOptions
from topsideas.engines.typed import TypedModel
from topsideas.errors import EngineError
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import BF16, Numerics, Overflow
from topsideas.rounding import round_to
from topsideas.testing.planted import Planted, parse, planted_models

ON_CPU = {"provider": CPU}


def _engine(model: Model | None = None) -> OnnxRuntimeEngine:
    chosen = chosen_provider(EngineOptions(compile_options=ON_CPU))
    return OnnxRuntimeEngine(model or load_model(parse(TEXT)), Numerics(), chosen)


def test_fp16_on_the_cpu_provider_is_refused_with_the_reason() -> None:
    model = load_model(parse(TEXT))
    reason = "computes fp16 models in fp32.*300 and not infinity.*no evidence"
    with pytest.raises(EngineError, match=reason):
        open_onnxruntime(model, EngineOptions(compile_options=ON_CPU))
    with pytest.raises(EngineError, match=reason):
        _engine(model).compile(PrecisionPlan.of([0]))
    refusal = probe(EngineOptions(compile_options=ON_CPU)).refusal("fp16")
    assert "no evidence" in refusal


def test_the_reason_is_true_of_the_installed_version() -> None:
    """If this fails, the provider has learned fp16, and the refusal must be looked at again."""
    model = parse("""g (float[1] x) => (float[1] y) <float c = {300}> {
        h = Cast <to = 10> (x)
        k = Cast <to = 10> (c)
        a = Mul (h, k)
        b = Div (a, k)
        y = Cast <to = 1> (b)
    }""")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=[CPU])
    assert session.run(None, {"x": np.array([300], np.float32)})[0] == [300]


class _Provider:
    """Stands in for a session: two products, whose tensors are stored as ``stored`` says."""

    def __init__(self, stored: Callable[[np.ndarray], np.ndarray]) -> None:
        self.stored = stored

    def run(self, names: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        x, a, b = (self.stored(feeds[name]) for name in ("x", "a", "b"))
        return [self.stored(self.stored(x @ a) @ b)]


FP16_NUMERICS, BF16_NUMERICS = Numerics(), Numerics(BF16)
SATURATED = Numerics(overflow=Overflow.SATURATE)


@pytest.mark.parametrize(
    ("stored", "precision", "reason"),
    [
        (lambda a: round_to(a, FP16_NUMERICS), "fp16", ""),
        (lambda a: round_to(a, SATURATED), "fp16", ""),
        (lambda a: round_to(a, BF16_NUMERICS), "bf16", ""),
        (lambda a: a, "fp16", r"300\*300/300 gave 300"),
        (lambda a: np.float32(0) * a, "fp16", r"300\*300/300 gave 0"),
        (lambda a: round_to(a, BF16_NUMERICS), "fp16", r"300\*300/300 gave 300"),
        (lambda a: np.clip(a, -65504, 65504), "fp16", r"1 \+ 0.000244 - 1 gave 0.000244"),
        (lambda a: a, "bf16", r"1 \+ 0.00195 - 1 gave 0.00195"),
        (lambda a: round_to(a, FP16_NUMERICS), "bf16", r"1 \+ 0.00195 - 1 gave 0.00195"),
        (lambda a: a * np.float32("nan"), "bf16", r"gave nan"),
    ],
)
def test_what_a_provider_computes_decides(
    monkeypatch: pytest.MonkeyPatch, stored: Any, precision: str, reason: str
) -> None:
    monkeypatch.setattr(selftest, "open_session", lambda *_: _Provider(stored))
    with np.errstate(all="ignore"):
        found = selftest.measured(Chosen("SomeExecutionProvider", {}, {}), precision)
    assert bool(found) == bool(reason)
    assert re.search(reason, found)


def test_the_cpu_provider_fails_the_self_test_by_measurement() -> None:
    """What every provider that leaves the products to the CPU gives."""
    assert "300*300/300 gave 300" in selftest.measured(Chosen(CPU, {}, {}), "fp16")
    assert "does not run a small bf16 model" in selftest.measured(Chosen(CPU, {}, {}), "bf16")


def test_a_provider_that_fails_the_self_test_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "HostExecutionProvider"
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [name, CPU])
    selftest._measured.cache_clear()
    monkeypatch.setattr(selftest, "open_session", lambda *_: _Provider(lambda a: a))
    asked, model = EngineOptions(), load_model(parse(TEXT))
    with pytest.raises(EngineError, match=f"in fp32 on {name}: .*no evidence. Remedy"):
        open_onnxruntime(model, asked)
    assert "no evidence" in probe(asked).refusal("fp16")
    engine = OnnxRuntimeEngine(model, Numerics(), chosen_provider(asked))
    with pytest.raises(EngineError, match="no evidence"):
        engine.compile(PrecisionPlan.of([0]))


def _short(array: np.ndarray) -> np.ndarray:
    """10 bits of mantissa and the exponents of fp32."""
    bits = np.asarray(array, np.float32).view(np.uint32)
    return ((bits + 0x1000) & np.uint32(0xFFFFE000)).view(np.float32)


@pytest.mark.parametrize(
    ("name", "stored", "found"),
    [
        ("CUDAExecutionProvider", _short, r'gave 0. So .*"use_tf32": "0"'),
        ("TensorrtExecutionProvider", _short, "NVIDIA_TF32_OVERRIDE=0 in the environment"),
        ("OtherExecutionProvider", _short, "less than fp32.*kept in fp32$"),
        ("OtherExecutionProvider", lambda a: a * np.float32("nan"), "gave nan"),
        ("CUDAExecutionProvider", lambda a: a, "^$"),
    ],
)
def test_fp32_that_is_less_than_that_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, stored: Any, found: str
) -> None:
    selftest._rounding_of_fp32.cache_clear()
    monkeypatch.setattr(selftest, "open_session", lambda *_: _Provider(stored))
    with np.errstate(all="ignore"):
        told = selftest.shortfall(Chosen(name, {}, {}))
    selftest._rounding_of_fp32.cache_clear()
    assert re.search(found, told)


def test_the_cpu_provider_has_all_of_fp32() -> None:
    assert selftest.shortfall(Chosen(CPU, {}, {})) == ""
    assert _engine().compile(EVERY).notes == ()


def test_short_fp32_is_a_note_on_every_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topsideas.engines.onnxruntime.engine.shortfall", lambda _: "it is short")
    assert _engine().compile(EVERY).notes == ("it is short",)


def test_missing_libraries_are_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def preload() -> None:
        print("Failed to load libone.so.1: libone.so.1: no such file")  # noqa: T201
        print("Please follow a link")  # noqa: T201

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload, raising=False)
    providers._load_cuda.cache_clear()
    told = providers._load_cuda()
    providers._load_cuda.cache_clear()
    assert told == ": libone.so.1. Remedy: pip install 'onnxruntime-gpu[cuda,cudnn]'"


@pytest.mark.parametrize("planted", planted_models(), ids=lambda p: p.name)
def test_fp32_equals_other_fp32_kernels(planted: Planted) -> None:
    assert_fp32_equals_the_emulators(planted, _engine)


def test_a_size_of_minus_one_is_open() -> None:
    proto = parse("g (float[N,3] x) => (float[N,3] y) { y = Neg (x) }")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    model = load_model(proto)
    array = np.ones((2, 3), np.float32)
    outputs = _engine(model).compile(PrecisionPlan(model.candidates)).run({"x": array})
    assert np.array_equal(outputs["y"], -array)
    with pytest.raises(EngineError, match=r"shape \(2, 4\); expected \[\?,3\]"):
        _engine(model).compile(PrecisionPlan(model.candidates)).run({"x": np.ones((2, 4), "f4")})


def test_a_trace_shows_every_op() -> None:
    executable = _engine().compile(EVERY)
    trace = executable.trace(FEEDS)
    assert [record.id for record in trace] == [0, 1, 2]
    np.testing.assert_allclose(trace.outputs["y"], executable.run(FEEDS)["y"], rtol=1e-6)


def test_saved_and_loaded(tmp_path: Path) -> None:
    engine = _engine()
    executable = engine.compile(EVERY)
    executable.save(tmp_path / "saved.onnx")
    found = engine.load(tmp_path / "saved.onnx").run(FEEDS)["y"]
    np.testing.assert_array_equal(found, executable.run(FEEDS)["y"])
    executable.dump(tmp_path / "listing")
    assert "1 Exp fp32" in (tmp_path / "listing").read_text()


def test_the_profile_tells_what_ran_where() -> None:
    placed = _engine().compile(EVERY).placed(FEEDS)
    assert {node.provider for node in placed} == {CPU}
    assert {op for node in placed for op in node.ops} == {0, 1, 2}


def test_a_low_op_left_to_the_cpu_is_seen_in_a_profile(tmp_path: Path) -> None:
    """What a CUDA build writes, as text: one kernel on the device, one fallen back."""
    events = [
        {"cat": "Session", "name": "model_run"},
        _event("topsideas_op_0", "Conv", "CUDAExecutionProvider"),
        _event("topsideas_op_1", "Einsum", CPU),
        _event("topsideas_op_1", "Einsum", CPU),
    ]
    typed = TypedModel(None, tmp_path, frozenset({0, 1}), {}, {}, ())  # type: ignore[arg-type]
    placed = placed_nodes(events, typed)
    assert [(p.kind, p.provider, p.ops) for p in placed] == [
        ("Conv", "CUDAExecutionProvider", (0,)),
        ("Einsum", CPU, (1,)),
    ]


def _event(name: str, kind: str, provider: str) -> dict[str, Any]:
    args = {"op_name": kind, "provider": provider}
    return {"cat": "Node", "name": f"{name}_kernel_time", "args": args}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"provider": "NoSuchProvider"}, "has no provider 'NoSuchProvider'; this build has"),
        ({"speed": 1}, "compile option 'speed' is unknown"),
        ({"provider": CPU, "provider_options": 7}, "'provider_options' is 7; expected an object"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(EngineError, match=text):
        chosen_provider(EngineOptions(compile_options=options))


def test_the_first_provider_that_is_real_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build for CUDA lists TensorRT too, whose libraries most machines do not have."""
    listed = ["LackingExecutionProvider", "HostExecutionProvider", "RealExecutionProvider", CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    stored = {"RealExecutionProvider": lambda a: round_to(a, FP16_NUMERICS)}

    def opened(chosen: Chosen, model: bytes) -> _Provider:
        if chosen.name == listed[0]:
            raise EngineError("its libraries are missing")
        return _Provider(stored.get(chosen.name, lambda a: a))

    monkeypatch.setattr(selftest, "open_session", opened)
    with np.errstate(all="ignore"):
        assert chosen_provider(EngineOptions()).name == "RealExecutionProvider"
        stored.clear()
        selftest._measured.cache_clear()
        assert chosen_provider(EngineOptions()).name == listed[0]
        assert "libraries are missing" in probe(EngineOptions()).refusal("fp16")


def test_the_device_is_handed_to_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    both = ["TensorrtExecutionProvider", "CUDAExecutionProvider", CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    options: dict[str, Any] = {"provider": both[0], "session_options": {"a.b": "1"}}
    options["provider_options"] = {"trt_fp16_enable": True}
    chosen = chosen_provider(EngineOptions(compile_options=options, device=3))
    assert chosen.listed() == [
        ("TensorrtExecutionProvider", {"device_id": "3", "trt_fp16_enable": "true"}),
        ("CUDAExecutionProvider", {"device_id": "3"}),
        (CPU, {}),
    ]


def test_a_provider_that_does_not_start_is_no_silent_fallback() -> None:
    """ONNX Runtime itself would go on with the CPU."""
    engine = OnnxRuntimeEngine(
        load_model(parse(TEXT)), Numerics(), Chosen("CUDAExecutionProvider", {}, {})
    )
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build has the provider; the conformance suite examines it")
    with pytest.raises(EngineError, match="CUDAExecutionProvider"):
        engine.compile(EVERY).run(FEEDS)


def test_saturation_is_refused() -> None:
    options = EngineOptions(numerics=Numerics(overflow=Overflow.SATURATE), compile_options=ON_CPU)
    with pytest.raises(EngineError, match="saturate can only be emulated"):
        open_onnxruntime(load_model(parse(TEXT)), options)


def test_latency_is_measured() -> None:
    assert _engine().compile(EVERY).latency(FEEDS, 3) > 0
