"""The GCU's engine on the stand-in SDK. Nothing here ran on a GCU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.standin.setup import PROFILE, open_standin, use_standin
from topsideas.calibration.deployed import honoured, readback_notes
from topsideas.calibration.journal import MemoryStore
from topsideas.calibration.problem import make_problem, read_samples
from topsideas.calibration.progress import Silent
from topsideas.calibration.settings import Settings
from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.engines.options import EngineOptions, Isolation
from topsideas.engines.registry import choose, open_engine
from topsideas.engines.topsinference.engine import probe
from topsideas.engines.topsinference.hlir import as_ops, read_hlir
from topsideas.engines.topsinference.profile import filled, read_profile
from topsideas.engines.topsinference.results import named_outputs, read_dump, read_statistics
from topsideas.errors import EngineError
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import BF16, FP16, Numerics, Overflow
from topsideas.samples import samples_from_memory, signature_of
from topsideas.stats.criteria import Tolerance
from topsideas.testing.planted import parse, ramp

SATURATE = Numerics(FP16, Overflow.SATURATE)
TEXT = """g (float[2,4] x, int64[1] k) => (float[2,4] y, int64[1] n) <float c = {300}> {
    [scale] a = Mul (x, c)
    [square] s = Mul (a, a)
    [root] r = Sqrt (s)
    [unscale] y = Div (r, c)
    [same] n = Identity (k)
}"""
FEEDS = {"x": ramp(1, 2, 2, 4), "k": np.array([7], np.int64)}
ANSWER = [1, 2]


def _model(text: str = TEXT) -> Model:
    return load_model(parse(text))


def _engine(profile: Any = None, model: Model | None = None, **options: Any) -> Any:
    return open_standin(model or _model(), SATURATE, profile, **options)


def _emulated(kept: list[int], model: Model | None = None) -> dict[str, np.ndarray]:
    engine = EmulatorEngine(model or _model(), SATURATE)
    return engine.compile(PrecisionPlan.of(kept)).run(FEEDS)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"style": "strings", "options": "json"},
        {"style": "lists", "options": "dict"},
        {"style": "lists", "options": "json"},
    ],
    ids=str,
)
def test_both_styles_of_arguments_and_options(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_standin(monkeypatch, **config)
    engine = _engine()
    for kept in ([], [1], ANSWER, [0, 1, 2, 3]):
        found = engine.compile(PrecisionPlan.of(kept)).run(FEEDS)
        expected = _emulated(kept)
        np.testing.assert_array_equal(found["y"], expected["y"])
        np.testing.assert_array_equal(found["n"], FEEDS["k"])
        assert found["n"].dtype == np.int64


def test_ids_and_types_are_the_engines_own(monkeypatch: pytest.MonkeyPatch) -> None:
    use_standin(monkeypatch, offset=40)
    engine = _engine()
    assert [(op.id, op.type, op.name) for op in engine.ops()] == [
        (40, "mul", "scale"),
        (41, "mul", "square"),
        (42, "sqrt", "root"),
        (43, "div", "unscale"),
        (44, "identity", "same"),
    ]
    assert [op.id for op in engine.ops() if not op.candidate] == [44]
    found = engine.compile(PrecisionPlan.of([41, 42])).run(FEEDS)
    np.testing.assert_array_equal(found["y"], _emulated(ANSWER)["y"])


@pytest.mark.parametrize(
    ("profile", "config", "name", "numbering"),
    [
        (PROFILE, {}, "compile_option", "hlir"),
        (PROFILE | {"fp32_key": ""}, {"layers": True}, "layer_precision", "layers"),
        ({"strategies": ["onnx_fp16"], "allow_onnx_fp16": True}, {}, "onnx_fp16", "onnx"),
        ({"allow_onnx_fp16": True}, {}, "onnx_fp16", "onnx"),
    ],
)
def test_strategies_are_tried_in_order(
    profile: dict[str, Any],
    config: dict[str, Any],
    name: str,
    numbering: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_standin(monkeypatch, **config)
    engine = _engine(profile)
    assert engine.identity().options["strategy"] == name
    assert engine.identity().options["numbering"] == numbering
    assert hasattr(engine, "ops") == (numbering != "onnx")
    low = engine.compile(PrecisionPlan.of([1])).run(FEEDS)["y"]
    kept = engine.compile(PrecisionPlan.of(ANSWER)).run(FEEDS)["y"]
    np.testing.assert_allclose(kept, FEEDS["x"], rtol=5e-3)
    assert np.abs(low - FEEDS["x"]).max() > 0.1  # the squares saturate where the root reads them


def test_no_strategy_is_an_error_that_says_why_each_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_standin(monkeypatch)
    reasons = "fp32_key and ir_id.*are empty.*no get_layer.*allow_onnx_fp16.*gcu probe"
    with pytest.raises(EngineError, match=reasons):
        _engine({})


def test_a_plan_without_effect_is_doubted(monkeypatch: pytest.MonkeyPatch) -> None:
    use_standin(monkeypatch, ignore=True)
    executable = _engine().compile(PrecisionPlan.of(ANSWER))
    (line,) = executable.doubts(FEEDS)
    assert "bit for bit" in line
    use_standin(monkeypatch)
    assert _engine().compile(PrecisionPlan.of(ANSWER)).doubts(FEEDS) == []


def _problem(golden: dict[str, np.ndarray], **rule: float) -> Any:
    model = _model()
    samples = samples_from_memory([FEEDS], [golden], signature_of(model))
    settings = Settings(Tolerance(**rule))
    digests = read_samples(samples, None)
    return make_problem(model, _engine(), FP16, samples, (), settings, MemoryStore(), digests)


@pytest.mark.parametrize("ignore", [True, False])
def test_an_sdk_that_ignores_plans_shows_where_all_ops_had_to_be_kept(
    monkeypatch: pytest.MonkeyPatch, ignore: bool
) -> None:
    """Keeping all is a build of its own, which passes: that must not hide why no other does."""
    use_standin(monkeypatch, ignore=ignore)
    problem = _problem(_emulated(ANSWER), rtol=1e-2, atol=1e-2)
    found = problem.search(Silent()).plan
    assert (found.kept == problem.model.candidates) == ignore
    doubts = [line for line in readback_notes(problem, found) if "SDK ignores" in line]
    assert len(doubts) == ignore


@pytest.mark.parametrize("ignore", [True, False])
def test_a_plan_passes_only_where_it_has_an_effect(
    monkeypatch: pytest.MonkeyPatch, ignore: bool
) -> None:
    """Outputs that are good enough without it are no evidence that it is followed."""
    use_standin(monkeypatch, ignore=ignore)
    problem, plan = _problem(_emulated(ANSWER), rtol=10, atol=10), PrecisionPlan.of(ANSWER)
    verdict = problem.verdicts(plan)[0]
    assert verdict.passed
    found = honoured(problem, plan, verdict)
    assert found.passed != ignore
    assert ("SDK ignores" in found.note) == ignore


def test_dumped_tensors_make_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    use_standin(monkeypatch)
    executable = _engine().compile(PrecisionPlan.of([1]))
    trace = executable.trace(FEEDS)
    records = {record.id: record for record in trace}
    own = EmulatorEngine(_model(), SATURATE).compile(PrecisionPlan.of([1])).trace(FEEDS)
    for record in own:
        np.testing.assert_array_equal(records[record.id].outputs[0], record.outputs[0])
    assert [i for i, r in records.items() if r.stored_low] == [0, 2, 3]
    np.testing.assert_array_equal(trace.outputs["y"], executable.run(FEEDS)["y"])


def test_without_dumps_a_trace_names_the_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    use_standin(monkeypatch)
    engine = _engine({k: v for k, v in PROFILE.items() if not k.startswith("dump")})
    assert not engine.capabilities().traces
    with pytest.raises(EngineError, match="dump_options and dump_pattern"):
        list(engine.compile(PrecisionPlan.of([])).trace(FEEDS))


def test_statistics_are_the_sdks_own(monkeypatch: pytest.MonkeyPatch) -> None:
    use_standin(monkeypatch)
    executable = _engine().compile(PrecisionPlan.of([1]))
    ops, outputs = executable.statistics(FEEDS, 1e-4, 65504.0)
    assert ops[1]["outputs"][0]["clip_ratio"] == 0  # it is kept; its reader clips
    assert ops[1]["outputs"][0]["ge_ratio"] == 1
    assert set(outputs) == {"y", "n"}
    plain = {k: v for k, v in PROFILE.items() if not k.startswith("statistics")}
    assert _engine(plain).compile(PrecisionPlan.of([1])).statistics(FEEDS, 0, 1) is None


def test_executables_are_saved_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_standin(monkeypatch)
    engine = _engine()
    executable = engine.compile(PrecisionPlan.of(ANSWER))
    executable.save(tmp_path / "saved")
    loaded = engine.load(tmp_path / "saved").run(FEEDS)
    np.testing.assert_array_equal(loaded["y"], executable.run(FEEDS)["y"])
    executable.dump(tmp_path / "listing")
    assert "dtu_hlir.sqrt" in (tmp_path / "listing").read_text()
    (tmp_path / "other").write_bytes(b"x")
    with pytest.raises(EngineError, match="CRC"):
        engine.load(tmp_path / "other")


def test_a_build_for_deployment_drops_what_makes_builds_comparable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_standin(monkeypatch)
    engine, plan = _engine(), PrecisionPlan.of([])
    model = _model(
        "g (float[4] x) => (float[4] y) <float c = {3}> { a = Mul (x, c) y = Div (a, c) }"
    )
    engine = _engine(model=model)
    x = {"x": ramp(0.1, 0.7, 4)}
    comparable, final = (e.run(x)["y"] for e in (engine.compile(plan), engine.finalize(plan)))
    assert (comparable != final).any()  # the stand-in fuses when it may


@pytest.mark.parametrize("cluster", [(-1,), (2,), (0, 1)])
def test_cards_and_clusters(cluster: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """One cluster is entered with ``device``, -1 and lists with ``set_device``."""
    use_standin(monkeypatch)
    engine = _engine(device=1, cluster=cluster)
    assert engine.sdk.module._scopes[-1] == (1, cluster[0] if len(cluster) == 1 else [*cluster])
    assert "card 1" in engine.identity().device
    engine.compile(PrecisionPlan.of([])).run(FEEDS)
    engine._scope.close()
    assert engine.sdk.module._scopes == []


def test_shapes_of_samples_are_built_when_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    use_standin(monkeypatch)
    executable = _engine(model=_model(TEXT.replace("[2,4]", "[N,4]"))).compile(
        PrecisionPlan.of(ANSWER)
    )
    for rows in (1, 3, 1):
        found = executable.run({"x": ramp(1, 2, rows, 4), "k": FEEDS["k"]})
        assert found["y"].shape == (rows, 4)
    assert len(executable._built) == 2


def test_a_range_of_shapes_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    use_standin(monkeypatch, ranges=True)
    text = TEXT.replace("[2,4]", "[2,M]")
    bounds = {
        "min_shapes": {"x": (2, 1), "k": (1,)},
        "max_shapes": {"x": (2, 8), "k": (1,)},
    }
    executable = _engine(model=_model(text), **bounds).compile(PrecisionPlan.of(ANSWER))
    for size in (1, 8):
        feeds = {"x": ramp(1, 2, 2, size), "k": FEEDS["k"]}
        assert executable.run(feeds)["y"].shape == (2, size)
    assert len(executable._built) == 1
    with pytest.raises(EngineError, match="out of range"):
        executable.run({"x": ramp(1, 2, 2, 9), "k": FEEDS["k"]})


@pytest.mark.parametrize(
    ("config", "profile", "low", "text"),
    [
        ({}, {}, (2, 1), "no setter for a range of shapes"),
        ({"ranges": True}, {}, (1, 1), "axis 0 .* moves .*dynamic_batch"),
    ],
)
def test_ranges_that_cannot_be_built(
    config: dict[str, Any],
    profile: dict[str, Any],
    low: tuple[int, int],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_standin(monkeypatch, **config)
    bounds = {
        "min_shapes": {"x": low, "k": (1,)},
        "max_shapes": {"x": (2, 8), "k": (1,)},
    }
    with pytest.raises(EngineError, match=text):
        _engine(PROFILE | profile, _model(TEXT.replace("[2,4]", "[B,M]")), **bounds)


@pytest.mark.parametrize(
    ("numerics", "text"),
    [
        (Numerics(BF16, Overflow.SATURATE), "fp16 only"),
        (Numerics(FP16, Overflow.INF), "on a GCU a value that does not fit saturates"),
    ],
)
def test_other_numerics_are_refused(
    numerics: Numerics, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_standin(monkeypatch)
    with pytest.raises(EngineError, match=text):
        open_standin(_model(), numerics)


def test_auto_takes_the_sdk_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("auto") == (
        "emulator",
        "engine: emulator (auto: TopsInference is not installed here)",
    )
    use_standin(monkeypatch)
    assert choose("auto")[0] == "topsinference"
    assert choose("auto", "onnx")[0] == "emulator"


def test_without_the_sdk_the_remedy_is_named() -> None:
    options = EngineOptions(numerics=SATURATE, isolation=Isolation(60, 60))
    with pytest.raises(EngineError, match=r"cannot import TopsInference.*Remedy: install"):
        open_engine("topsinference", _model(), options)
    assert "TopsRider" in probe(options).remedy


@pytest.mark.parametrize(
    ("declared", "given", "expected"),
    [
        ("2, 3", (6,), (2, 3)),
        ("N, 2, 3", (2, 3), (1, 2, 3)),  # samples of the vendor's own read a batch of one so
        ("N, 2, 3", (12,), (2, 2, 3)),
        ("N, 3", (4, 2), (4, 2)),  # of the right rank: as it came, so that it is seen to be wrong
        ("N, 3", (4,), (4,)),
        ("N, M", (4,), (4,)),
    ],
)
def test_outputs_get_the_models_shape_where_it_is_certain(
    declared: str, given: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    model = load_model(
        parse(f"g (float[{declared}] x) => (float[{declared}] y) {{ y = Neg (x) }}")
    )
    outputs = named_outputs(model.graph.outputs, [np.ones(given, np.float16)])
    assert outputs["y"].shape == expected
    assert outputs["y"].dtype == np.float32


def test_the_version_is_recorded_without_blanks(monkeypatch: pytest.MonkeyPatch) -> None:
    use_standin(monkeypatch, version="2.2. 20230317 \n")
    assert _engine().identity().version == "2.2.20230317"
    assert probe(EngineOptions(numerics=SATURATE)).refusal("fp16") == ""


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"fp32_keys": "x"}, "unknown field 'fp32_keys'; expected strategies"),
        ({"fp32_key": 3}, "fp32_key is 3; expected a text"),
        ({"strategies": ["magic"]}, "strategies is"),
        ({"run_method": "walk"}, "run_method is 'walk'; expected one of"),
        ({"allow_onnx_fp16": 1}, "expected true or false"),
        ("no/such/file.json", "cannot read the SDK profile no/such/file.json"),
    ],
)
def test_profiles_that_are_wrong_are_refused(data: Any, text: str) -> None:
    with pytest.raises(EngineError, match=text):
        read_profile(data)


def test_a_profile_comes_from_a_file_and_fills_its_texts(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(PROFILE), encoding="utf-8")
    profile = read_profile(str(path))
    assert profile.fp32_key == "fp32_op_ids"
    asked = filled(profile.statistics_options, folder="/here", le=0.5, ge=2.0)
    assert asked == {"op_statistic": {"dir": "/here", "le": 0.5, "ge": 2.0}}
    assert filled("-log={folder}/irdump/", folder="/here") == "-log=/here/irdump/"


HLIR = """
module {
  func @main(%arg0: tensor<2x3xf32>) -> tensor<2x3xf32> {
    %0 = dtu_hlir.constant dense<-3.4E+38> : tensor<f32>
    %1 = "dtu_hlir.conv_bias"(%0) {id = 2, op_name = "conv"} : (tensor<f32>) -> tensor<1x?x22xf32>
    %2 = "dtu_hlir.convert"(%1) {id = 3 : i64} : (tensor<1x?x22xf32>) -> tensor<1x?x22xf16>
    %3 = "dtu_hlir.compare"(%1) {id = 4 : i64} : (tensor<1x?x22xf32>) -> tensor<i1>
    return %3 : tensor<i1>
  }
}
"""


def test_the_dump_of_the_graph_is_read() -> None:
    ops = as_ops(read_hlir(HLIR, "id"))
    assert [(op.id, op.type, op.name, op.candidate) for op in ops] == [
        (2, "conv_bias", "conv", True),
        (3, "convert", "", False),
        (4, "compare", "", True),
    ]
    assert ops[0].shapes == ((1, None, 22),)
    assert [op.id for op in read_hlir(HLIR, "order")] == [0, 1, 2, 3]
    # PyTorch's names hold the word that begins a dump.
    named = HLIR.replace('"conv"', '"module.conv"')
    assert [op.id for op in read_hlir(named, "order")] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "attribute", "message"),
    [
        (HLIR, "number", "has no attribute 'number'.*set ir_id"),
        (HLIR.replace("id = 3", "id = 2"), "id", "several ops the same 'id'"),
    ],
)
def test_dumps_that_number_nothing_are_refused(text: str, attribute: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        read_hlir(text, attribute)


def test_raw_tensors_take_their_type_from_the_graph(tmp_path: Path) -> None:
    np.arange(22, dtype=np.float32).tofile(tmp_path / "op2.bin")
    ops = read_hlir(HLIR, "id")
    ((number, (array,)),) = read_dump(tmp_path, r"op(?P<id>\d+)\.bin", ops)
    assert (number, array.shape, array.dtype) == (2, (1, 1, 22), np.float32)
    with pytest.raises(EngineError, match="dumped no tensors"):
        list(read_dump(tmp_path, r"no(?P<id>\d+)", ops))
    (tmp_path / "op9.bin").write_bytes(b"123")
    with pytest.raises(EngineError, match="not a tensor dump"):
        list(read_dump(tmp_path, r"op(?P<id>9)\.bin", ops))


def test_statistics_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="left no op statistics"):
        read_statistics(tmp_path, "*.json")
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(EngineError, match="no op statistics"):
        read_statistics(tmp_path, "*.json")


def test_names_with_commas_go_as_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    use_standin(monkeypatch)
    proto = parse(TEXT)
    for holder in (proto.graph.input[0], *proto.graph.node):
        if getattr(holder, "name", "") == "x":
            holder.name = "x,0"
    proto.graph.node[0].input[0] = "x,0"
    onnx.checker.check_model(proto)
    engine = _engine(model=load_model(proto))
    found = engine.compile(PrecisionPlan.of(ANSWER)).run({"x,0": FEEDS["x"], "k": FEEDS["k"]})
    np.testing.assert_allclose(found["y"], FEEDS["x"], rtol=5e-3)
