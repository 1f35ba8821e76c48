"""Inputs made up for a model: right in type and rank, in several sizes."""

from __future__ import annotations

import numpy as np
import onnx

from topsideas.graph.loading import load_model
from topsideas.samples.generated import generated_inputs
from topsideas.samples.signature import Signature, TensorSpec, signature_of


def signature(inputs: str) -> Signature:
    text = f'<ir_version: 8, opset_import: ["": 17]> g ({inputs}) => (int64[R] s)'
    return signature_of(load_model(onnx.parser.parse_model(text + " { s = Shape (x) }")))


def test_static_shapes_need_one_try() -> None:
    (found,) = generated_inputs(signature("float[2, 3] x, bool[4] b, string t"))
    assert (found["x"].dtype, found["x"].shape) == (np.float32, (2, 3))
    assert (found["b"].dtype, found["b"].shape) == (np.bool_, (4,))
    assert found["t"].tolist() == "a"
    assert found["x"].std() > 0


def test_open_sizes_are_tried_in_turn() -> None:
    shapes = [f["x"].shape for f in generated_inputs(signature("float[N, 3, H] x"))]
    assert len(set(shapes)) == len(shapes) > 4
    assert all(shape[1] == 3 for shape in shapes)
    assert any(shape[2] >= 512 for shape in shapes)


def test_integers_are_small_and_vary() -> None:
    found = [f["i"].tolist() for f in generated_inputs(signature("float[1] x, int64[2] i"))]
    assert found == [[1, 1], [0, 0], [2, 2]]


def test_nothing_is_made_up_for_what_is_no_tensor() -> None:
    spec = TensorSpec("s", None, None, is_tensor=False)
    assert not list(generated_inputs(Signature((spec,), ())))
