"""Writing a converted model: one file or two, complete or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from topsideas.graph import loading
from topsideas.graph.conversion import Conversion, convert, write
from topsideas.graph.conversion_weights import LowWeights
from topsideas.graph.gates import check_export
from topsideas.graph.loading import load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics

SIZE = 2048


def proto() -> onnx.ModelProto:
    """A weight as initializer, one in a Constant node, and a small one."""
    text = f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[{SIZE}] x) => (float[{SIZE}] y) <float b = {{0.1}}> {{
            k = Constant <value = float[1] {{1}}> ()
            a = Mul (x, w)
            c = Add (a, k)
            y = Mul (c, b)
        }}"""
    model = onnx.parser.parse_model(text)
    big = np.arange(SIZE, dtype=np.float32) / 7
    model.graph.initializer.append(onnx.numpy_helper.from_array(big, "w"))
    model.graph.node[0].attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(big, "k"))
    return model


def conversion_of(source: onnx.ModelProto | Path, kept: set[int] | None = None) -> Conversion:
    return convert(load_model(source), PrecisionPlan.of(kept or set()), Numerics())


def run(path: Path) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.ones(SIZE, np.float32)})[0]


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """The source model with its weights in an external file, in a folder of its own."""
    path = tmp_path / "source" / "model.onnx"
    path.parent.mkdir()
    model = proto()
    model.graph.node[0].attribute[0].t.name = "k"
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        location="model.bin",
        size_threshold=1024,
        convert_attribute=True,
    )
    return path


def test_one_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "mixed.onnx"
    assert write(conversion_of(proto()), path) == [path]
    assert [p.name for p in path.parent.iterdir()] == ["mixed.onnx"]
    check_export(path)
    assert path.stat().st_size < 2 * (2 * SIZE) + 2000


def test_two_files(tmp_path: Path) -> None:
    path, conversion = tmp_path / "mixed.onnx", conversion_of(proto(), {2})
    files = write(conversion, path, inline_limit=1000)
    assert files == [path, tmp_path / "mixed.onnx.data"]
    assert sorted(tmp_path.iterdir()) == files
    assert path.stat().st_size < 2000
    assert files[1].stat().st_size == (2 + 4) * SIZE  # w is low, k is not
    check_export(path)
    one = write(conversion, tmp_path / "one.onnx")[0]
    np.testing.assert_array_equal(run(path), run(one))


@pytest.mark.parametrize("inline_limit", [1 << 30, 1000])
def test_external_source(external: Path, tmp_path: Path, inline_limit: int) -> None:
    path = tmp_path / "target" / "mixed.onnx"
    write(conversion_of(external, {2}), path, inline_limit=inline_limit)
    expected = write(conversion_of(proto(), {2}), tmp_path / "expected.onnx")[0]
    for file in external.parent.iterdir():
        file.unlink()  # nothing may point there
    check_export(path)
    np.testing.assert_array_equal(run(path), run(expected))


def test_overwriting_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mixed.onnx"
    write(conversion_of(proto()), path)
    other, before = conversion_of(proto(), {2}), path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(ir, "save", fail)
        with pytest.raises(OSError, match="disk full"):
            write(other, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["mixed.onnx"]
    write(other, path)
    assert path.read_bytes() != before


def test_writing_leaves_the_conversion_as_it_is(tmp_path: Path) -> None:
    conversion = conversion_of(proto())
    before = ir.to_proto(conversion.model)
    write(conversion, tmp_path / "mixed.onnx", inline_limit=1000)
    assert ir.to_proto(conversion.model) == before


def test_external_weights_are_not_held_in_memory(
    external: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_STAYS_OUTSIDE", 4 * SIZE)
    source = load_model(external)
    weights = LowWeights(Numerics())
    tensor = source.graph.initializers["w"].const_value
    low = weights.of(tensor, "w")
    assert isinstance(low, ir.LazyTensor)
    assert (low.dtype, low.shape) == (ir.DataType.FLOAT16, ir.Shape([SIZE]))
    np.testing.assert_array_equal(low.numpy(), tensor.numpy().astype(np.float16))


def test_each_weight_is_rounded_once() -> None:
    weights = LowWeights(Numerics())
    tensor = ir.tensor(np.full(SIZE, 1e6, np.float32))
    first, second = weights.of(tensor, "a"), weights.of(tensor, "b")
    assert np.shares_memory(first.numpy(), second.numpy())
    assert [w.split(":")[0] for w in weights.warnings] == ["weight 'a'", "weight 'b'"]
