"""What is written has passed its proofs; what fails one is never in place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from topsideas.calibration import export
from topsideas.calibration.export import export_model
from topsideas.errors import EngineError, ModelError
from topsideas.graph.conversion import Conversion, convert
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics

TEXT = """(float[4] x) => (float[4] y) <float[4] w = {0.1, 0.2, 0.3, 0.4}> {
    a = Mul (x, w)
    b = Exp (a)
    y = Add (b, w)
}"""
NONE = PrecisionPlan.of([])


def model_of(text: str = TEXT, opset: int = 17) -> Model:
    header = f'<ir_version: 10, opset_import: ["": {opset}, "acme": 1]> g '
    return load_model(onnx.parser.parse_model(header + text))


def test_what_an_export_tells(tmp_path: Path) -> None:
    found = export_model(model_of(), PrecisionPlan.of([1]), Numerics(), tmp_path / "m.onnx")
    assert found.files == (tmp_path / "m.onnx",)
    assert (found.low, found.casts, found.cast_bytes) == (2, 4, 4 * 4 * 6)
    assert found.checks[-1] == "equal to the emulator in every bit on generated inputs"
    assert found.bytes == (tmp_path / "m.onnx").stat().st_size


def test_given_inputs_are_used(tmp_path: Path) -> None:
    inputs = [{"x": np.zeros(4, np.float32)} for _ in range(5)]
    found = export_model(model_of(), NONE, Numerics(), tmp_path / "m.onnx", inputs=inputs)
    assert found.checks[-1] == "equal to the emulator in every bit on 2 samples"


def test_low_inputs_that_are_weights_hold_what_fits(tmp_path: Path) -> None:
    """A kept op reads what a low input can hold, also where it is the model's own value."""
    text = "(float w) => (float y) <float w = {0.1}, float v = {0.1}> { y = Sub (w, v) }"
    path = tmp_path / "m.onnx"
    found = export_model(model_of(text), PrecisionPlan.of([0]), Numerics(), path, low_io=True)
    assert found.checks[-1] == "equal to the emulator in every bit on generated inputs"
    assert onnx.load(path).graph.initializer[0].data_type == onnx.TensorProto.FLOAT16


@pytest.mark.parametrize("fault", ["weight", "cast", "kept"])
def test_a_file_that_means_something_else_is_never_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Each fault leaves the model valid: only the comparison can see it."""
    model, plan = model_of(), PrecisionPlan.of([1, 2])

    def faulty(*args: object, **options: object) -> Conversion:
        if fault == "kept":  # another plan than was asked for
            return convert(model, PrecisionPlan.of([2]), Numerics())
        conversion = convert(model, plan, Numerics())
        graph = conversion.model.graph
        if fault == "weight":
            weight = graph.initializers["w_fp16"]
            weight.const_value = ir.tensor(weight.const_value.numpy() * np.float16(1.01))
        else:  # what a kept op writes is squeezed through fp16
            node = next(n for n in graph if n.op_type == "Exp")
            value = node.outputs[0]
            low = ir.node("Cast", [value], {"to": 10})
            wide = ir.node("Cast", low.outputs, {"to": 1})
            for name, new in (("squeezed", low), ("wide", wide)):
                new.outputs[0].name = new.name = name
            ir.convenience.replace_all_uses_with(value, wide.outputs[0])
            low.replace_input_with(0, value)
            node.append([low, wide])
        return conversion

    monkeypatch.setattr(export, "convert", faulty)
    before = tmp_path / "m.onnx"
    before.write_text("what was there before")
    with pytest.raises(ModelError, match="does not mean what was emulated: output 'y' differs"):
        export_model(model, plan, Numerics(), before)
    assert before.read_text() == "what was there before"
    assert list(tmp_path.iterdir()) == [before]


def test_operators_that_only_the_target_has(tmp_path: Path) -> None:
    text = "(float[4] x) => (float[4] y) { a = Exp (x)  b = acme.Op (a)  y = Cast <to = 1> (b) }"
    found = export_model(model_of(text), NONE, Numerics(), tmp_path / "m.onnx")
    assert found.checks[1].startswith("not opened: ")
    assert found.checks[2].startswith("not compared with the emulator: ")
    assert found.low == 1


def test_what_the_runtime_refuses_is_never_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise EngineError("refused")

    monkeypatch.setattr(export, "check_export", refuse)
    with pytest.raises(EngineError, match="refused"):
        export_model(model_of(), NONE, Numerics(), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_what_draws_numbers_is_not_compared(tmp_path: Path) -> None:
    model = model_of("""(float[4] x) => (float[4] y) {
        r = RandomUniformLike (x)
        y = Add (r, x)
    }""")
    found = export_model(model, NONE, Numerics(), tmp_path / "m.onnx")
    assert (
        "not compared with the emulator: output 'y' differs between two runs" in found.checks[-1]
    )


def test_large_models_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_COMPARED_BYTES", 8)
    found = export_model(model_of(), NONE, Numerics(), tmp_path / "m.onnx")
    assert found.checks[-1].startswith("not compared with the emulator: ")


def test_weights_in_a_file_of_their_own_are_compared_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = np.linspace(0, 1, 4096, dtype=np.float32)
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[4096] x) => (float[4096] y) {
            a = Mul (x, w)
            k = Constant <value = float[1] {1}> ()
            y = Add (a, k)
        }"""
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    source = load_model(model)
    original = export.write_model
    monkeypatch.setattr(export, "write_model", lambda m, p: original(m, p, inline_limit=0))
    found = export_model(source, NONE, Numerics(), tmp_path / "m.onnx")
    assert [f.name for f in found.files] == ["m.onnx", "m.onnx.data"]
    assert found.checks[-1] == "equal to the emulator in every bit on generated inputs"
