"""A model to whose values errors are added."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from topsideas.graph.disturbed import disturbed
from topsideas.graph.loading import load_model
from topsideas.testing.planted import parse

X = np.array([1, 2, 3], np.float32)
TEXT = """g (float[3] x, bool c) => (float[3] a, float[3] y) {
    a = Neg (x)
    b = Add (a, x)
    y = If (c) <
        then_branch = t () => (float[3] p) { p = Sub (a, b) },
        else_branch = e () => (float[3] q) { q = Identity (b) }
    >
}"""


def _run(**errors: np.ndarray) -> list[np.ndarray]:
    model = load_model(parse(TEXT)).graph_model
    copy, inputs = disturbed(model, ["a", "b"])
    assert list(inputs) == ["a", "b"]
    assert [v.name for v in model.graph.inputs] == ["x", "c"]
    session = ort.InferenceSession(ir.to_proto(copy).SerializeToString())
    own = {given: errors.get(name, np.zeros((), np.float32)) for name, given in inputs.items()}
    outputs: list[np.ndarray] = session.run(None, {"x": X, "c": np.array(True), **own})
    return outputs


def test_no_error_changes_nothing() -> None:
    a, y = _run()
    assert np.array_equal(a, -X)
    assert np.array_equal(y, -X)


def test_an_error_is_seen_by_all_who_read_the_value_and_at_the_output() -> None:
    a, y = _run(a=np.array([1, 0, 0], np.float32))
    assert np.array_equal(a, [0, -2, -3])
    assert np.array_equal(y, [-1, -2, -3])  # a - (a + x): both read it


def test_an_error_reaches_bodies() -> None:
    a, y = _run(b=np.array([0, 5, 0], np.float32))
    assert np.array_equal(a, -X)
    assert np.array_equal(y, [-1, -7, -3])
