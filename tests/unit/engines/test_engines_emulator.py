"""What the emulator refuses, shares, saves and says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from topsideas.engines.emulator import runtime, selftest
from topsideas.engines.emulator.composed import Composer
from topsideas.engines.emulator.engine import (
    EmulatorEngine,
    WholeModel,
    emulator_numerics,
    open_emulator,
)
from topsideas.engines.emulator.segments import segments
from topsideas.engines.emulator.steps import compile_block
from topsideas.engines.options import EngineOptions
from topsideas.engines.registry import ENGINES, choose, open_engine
from topsideas.errors import EngineError
from topsideas.graph.loading import Model, load_model
from topsideas.graph.switched import switched
from topsideas.plan import PrecisionPlan
from topsideas.precision import BF16, FP16, Accumulation, Numerics, Overflow, Subnormals
from topsideas.testing.planted import overflow, parse, ramp

PLANTED = overflow()
X = PLANTED.samples[0]


def _model() -> Model:
    return load_model(PLANTED.model)


def test_the_registry_names_every_engine() -> None:
    assert "emulator" in ENGINES
    assert choose("emulator") == ("emulator", "")
    name, line = choose("auto")
    assert name in ENGINES
    assert name in line
    with pytest.raises(EngineError, match="no engine 'tpu'; expected one of: auto, emulator"):
        choose("tpu")


def test_an_engine_that_cannot_be_imported_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> Any:
        raise ImportError("no module named onnxruntime")

    monkeypatch.setattr("topsideas.engines.registry.import_module", missing)
    with pytest.raises(EngineError, match=r"cannot start: no module.*Remedy: install"):
        open_engine("emulator", _model(), EngineOptions())


def test_compile_options_reach_the_numerics() -> None:
    options = EngineOptions(
        numerics=Numerics(BF16, Overflow.SATURATE),
        compile_options={"subnormals": "flush", "accumulation": "low"},
        resource_mode="fast",
    )
    assert emulator_numerics(options) == Numerics(
        BF16, Overflow.SATURATE, Subnormals.FLUSH, Accumulation.LOW
    )
    assert options.merged()["resource_mode"] == "fast"


@pytest.mark.parametrize(
    ("own", "text"),
    [
        ({"speed": 1}, "compile option 'speed' is unknown to the emulator"),
        ({"subnormals": "drop"}, "'subnormals' is 'drop'; expected one of"),
        ({"accumulation": 16}, "'accumulation' is 16; expected one of"),
        ({"accumulation": []}, r"'accumulation' is \[\]; expected one of"),
    ],
)
def test_wrong_compile_options_are_refused(own: dict[str, Any], text: str) -> None:
    with pytest.raises(EngineError, match=text):
        open_emulator(_model(), EngineOptions(compile_options=own))


def test_an_opset_that_cannot_express_the_rounding_is_refused() -> None:
    proto = parse("g (float[2] x) => (float[2] y) { y = Exp (x) }", opset=9)
    EmulatorEngine(load_model(proto), Numerics(FP16, Overflow.SATURATE))
    with pytest.raises(EngineError, match="bf16 needs opset 13"):
        EmulatorEngine(load_model(proto), Numerics(BF16))


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 17, 21])
def test_saturation_is_written_for_every_opset(opset: int) -> None:
    proto = parse("g (float[2] x) => (float[2] y) { y = Neg (x) }", opset)
    executable = EmulatorEngine(load_model(proto), Numerics(FP16, Overflow.SATURATE)).compile(
        PrecisionPlan.of([])
    )
    x = {"x": np.array([1e6, -1e6], np.float32)}
    for run in (executable, executable.freeze(), executable.second_opinion()):
        assert run.run(x)["y"].tolist() == [-65504, 65504]


def test_a_scalar_weight_that_overflows_saturates() -> None:
    text = "g (float[2] x) => (float[2] y) <float c = {100000.0}> { y = Div (x, c) }"
    engine = EmulatorEngine(load_model(parse(text)), Numerics(FP16, Overflow.SATURATE))
    found = engine.compile(PrecisionPlan.of([])).run({"x": np.array([65504, 0], np.float32)})
    assert found["y"].tolist() == [1, 0]


def test_a_runtime_that_drops_casts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def drops_casts(session: Any, feeds: dict[str, Any], what: str) -> list[np.ndarray]:
        return [feeds["x"]]

    monkeypatch.setattr(runtime, "run", drops_casts)
    selftest.check_runtime.cache_clear()
    with pytest.raises(EngineError, match=r"does not round as .* expected .*Remedy: install"):
        EmulatorEngine(_model(), Numerics())
    selftest.check_runtime.cache_clear()


@pytest.mark.parametrize("precision", [FP16, BF16], ids=lambda p: p.name)
@pytest.mark.parametrize("overflow_", Overflow)
@pytest.mark.parametrize("subnormals", Subnormals)
def test_the_self_test_passes_here(
    precision: Any, overflow_: Overflow, subnormals: Subnormals
) -> None:
    selftest.check_runtime.cache_clear()
    selftest.check_runtime(Numerics(precision, overflow_, subnormals))
    assert selftest.check_runtime.cache_info().currsize == 1


def test_an_op_the_runtime_lacks_is_named() -> None:
    proto = parse("g (float[2] x) => (float[2] y) { y = Exp (x) }")
    proto.graph.node[0].op_type, proto.graph.node[0].domain = "Wonder", "acme"
    proto.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    model = load_model(proto)
    executable = EmulatorEngine(model, Numerics()).compile(PrecisionPlan.of([]))
    with pytest.raises(EngineError, match=r"refuses the model: .*Wonder"):
        executable.run({"x": ramp(0, 1, 2)})


def test_nodes_with_other_weights_do_not_share() -> None:
    """Weights above the inline limit are handed over by reference."""
    proto = parse(
        """g (float[2000] x) => (float[2000] y, float[2000] z)
        <float[2000] a = {0}, float[2000] b = {0}> { y = Add (x, a)  z = Add (x, b) }""".replace(
            "{0}", "{" + ", ".join(["0"] * 2000) + "}"
        )
    )
    for tensor, value in zip(proto.graph.initializer, (1.0, 2.0), strict=True):
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(np.full(2000, value, np.float32), tensor.name)
        )
    model = load_model(proto)
    engine = EmulatorEngine(model, Numerics())
    for plan in (PrecisionPlan.of([]), PrecisionPlan(model.candidates)):
        found = engine.compile(plan).run({"x": np.zeros(2000, np.float32)})
        assert (found["y"] == 1).all()
        assert (found["z"] == 2).all()


def test_values_are_released_after_their_last_reader() -> None:
    text = """g (float[2] x) => (float[2] b, float[2] d) {
        a = Exp (x)
        b = Tanh (a)
        c = Add (a, b)
        d = Sqrt (c)
    }"""
    model = load_model(parse(text))
    released = [[v.name for v in r] for r in compile_block(model.graph, {}).releases]
    assert released == [["x"], [], ["a"], ["c"]]


def test_a_saved_executable_runs_again(tmp_path: Path) -> None:
    executable = EmulatorEngine(_model(), Numerics()).compile(PrecisionPlan(PLANTED.answer))
    executable.save(tmp_path / "saved.onnx")
    again = WholeModel.load(tmp_path / "saved.onnx").run(X)
    assert np.array_equal(again["y"], executable.run(X)["y"])


def test_a_listing_shows_the_casts_and_no_weights(tmp_path: Path) -> None:
    executable = EmulatorEngine(_model(), Numerics()).compile(PrecisionPlan(PLANTED.answer))
    executable.dump(tmp_path / "listing.txt")
    text = (tmp_path / "listing.txt").read_text()
    assert text.count("Cast") >= 2
    assert "Mul" in text


def test_only_own_executables_are_loaded(tmp_path: Path) -> None:
    onnx.save(PLANTED.model, tmp_path / "plain.onnx")
    with pytest.raises(EngineError, match="no executable of the emulator"):
        WholeModel.load(tmp_path / "plain.onnx")
    with pytest.raises(EngineError, match="no such executable"):
        WholeModel.load(tmp_path / "nothing.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(EngineError, match="refuses the model"):
        WholeModel.load(tmp_path / "text.onnx")


def test_the_trace_shows_what_was_rounded_away() -> None:
    executable = EmulatorEngine(_model(), Numerics()).compile(PrecisionPlan.of([]))
    records = {r.id: r for r in executable.trace(X)}
    product = records[1]
    assert np.isinf(product.outputs[0][-1])
    (raw,) = product.raw
    assert raw is not None
    assert raw[-1] == 1e5
    assert [i.shape for i in product.slot_inputs] == [(4,), ()]
    kept = {
        r.id: r
        for r in EmulatorEngine(_model(), Numerics()).compile(PrecisionPlan.of([1])).trace(X)
    }
    assert kept[1].raw == ()
    assert kept[1].outputs[0][-1] == 1e5


def test_the_second_execution_splits_sums_over_threads_whatever_the_machine() -> None:
    """With one thread both executions round alike where a deployment does not."""
    text = "g (float[4] x) => (float[4] y) { y = Relu (x) }"
    proto = parse(text).SerializeToString()
    threads = {
        fused: runtime.session(proto, fused=fused).get_session_options().intra_op_num_threads
        for fused in (False, True)
    }
    assert threads == {False: 1, True: 2}


def test_a_plan_put_together_from_segments_is_the_emulated_model() -> None:
    """The same fusions too: none of weights that are inputs as well, since they may be given."""
    proto = parse("""g (float[1,4,8,8] x, float[4,4,1,1] v) => (float[1,4,8,8] y, float[1,4] m)
    <float[4] s = {1.5, 0.7, 2, 1}, float[4] z = {0, 0, 0, 0}, float[4] o = {3, 1, 2, 1}> {
        a = Conv (x, v)
        b = BatchNormalization (a, s, z, z, o)
        c = Relu (b)
        r = ReduceMean <axes = [2, 3], keepdims = 0> (c)
        m = Mul (r, o)
        y = Add (c, x)
    }""")
    weight = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4, 1, 1)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "v"))
    model = load_model(proto)
    slots = {op.id: op.slots for op in model.ops}
    whole = switched(model.graph_model, slots, Numerics())
    cut, opsets = segments(whole), model.graph_model.opset_imports
    assert Composer.suits(whole.graph, cut)
    composer, plans = (
        Composer(whole.graph, cut, opsets, 8),
        EmulatorEngine(model, Numerics()).plans,
    )
    feeds = {"x": np.linspace(-300, 300, 256, dtype=np.float32).reshape(1, 4, 8, 8)}
    for low in map(frozenset, ([], [0, 1], [0, 1, 2, 3, 4, 5], [2, 4], [0, 3, 5])):
        expected = plans.open(low, fused=True).run(feeds)
        found = WholeModel.of(*composer.serialise(low), fused=True).run(feeds)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_ops_in_branches_are_told_the_ranks_that_they_need() -> None:
    """A Resize reads sizes from far away, which ONNX Runtime must know to be a list of four."""
    steps = [f"r{k} = Relu ({f'r{k - 1}' if k else 'x'})" for k in range(90)]
    model = load_model(
        parse(
            """g (float[N,3,H,W] x) => (float[A,C,D,E] y)
            <int64 two = {2}, int64[1] zero = {0}, int64[1] to = {2}> {
                all = Shape (x)
                h = Gather (all, two)
                """
            + "\n".join(steps)
            + """
                h1 = Unsqueeze (h, zero)
                hw = Concat <axis = 0> (h1, h1)
                outer = Slice (all, zero, to, zero)
                sizes = Concat <axis = 0> (outer, hw)
                z = Resize <mode = "linear"> (x, , , sizes)
                y = Add (r89, z)
            }"""
        )
    )
    engine, feeds = EmulatorEngine(model, Numerics()), {"x": ramp(-3, 3, 1, 3, 8, 8)}
    for kept in (frozenset[int](), frozenset(sorted(model.candidates)[::2]), model.candidates):
        executable = engine.compile(PrecisionPlan(kept))
        assert np.array_equal(executable.run(feeds)["y"], executable.freeze().run(feeds)["y"])
