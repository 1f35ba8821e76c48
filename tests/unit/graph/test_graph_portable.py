"""Models with weights in files become bytes that refer to no file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from topsideas.engines.emulator.runtime import session
from topsideas.graph.loading import load_model
from topsideas.graph.portable import portable, take_in

WEIGHT = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
X = np.ones((2, 64), np.float32)
TEXT = """<ir_version: 10, opset_import: ["": 17]>
main (float[N,64] x) => (float[N,64] y) <float[64,64] w, float[1] b = {0.5}> {
    c = Constant <value_float = 2.0> ()
    m = MatMul(x, w)
    s = Mul(m, c)
    y = Add(s, b)
}"""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A model all of whose weights lie in a second file."""
    model = onnx.parser.parse_model(TEXT.replace("float[64,64] w, ", ""))
    model.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "w"))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    return path


def run(proto: bytes, weights: dict[str, np.ndarray]) -> np.ndarray:
    (found,) = session(proto, weights).run(None, {"x": X})
    return np.asarray(found)


def expected(path: Path) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    (found,) = ort.InferenceSession(path, options).run(None, {"x": X})
    return np.asarray(found)


@pytest.mark.parametrize(("limit", "named"), [(1 << 30, set()), (1000, {"w"})])
def test_weights_are_in_the_message_or_handed_over_beside_it(
    outside: Path, limit: int, named: set[str]
) -> None:
    loaded = load_model(outside).graph_model
    proto, weights = portable(loaded.clone(), inline_limit=limit)
    reference = expected(outside)
    (outside.parent / "weights").unlink()
    assert set(weights) == named
    np.testing.assert_array_equal(run(proto, weights), reference)


def test_small_weights_are_taken_in_when_a_model_is_loaded(outside: Path) -> None:
    graph = load_model(outside).graph
    assert not [
        name
        for name, value in graph.initializers.items()
        if isinstance(value.const_value, ir.ExternalTensor)
    ]


def test_large_weights_stay_outside_and_what_is_named_stays_as_it_is(outside: Path) -> None:
    def external(model: ir.Model) -> set[str]:
        tensors = {name: v.const_value for name, v in model.graph.initializers.items()}
        return {n for n, tensor in tensors.items() if isinstance(tensor, ir.ExternalTensor)}

    model = ir.load(outside)
    assert external(model) == {"w"}
    take_in(model.graph, below=100)
    assert external(model) == {"w"}
    take_in(model.graph, but=["w"])
    assert external(model) == {"w"}
    take_in(model.graph)
    assert external(model) == set()
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), WEIGHT)
