from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from topsideas.graph.loading import load_model
from topsideas.samples.signature import Signature, TensorSpec, signature_of


def _signature() -> Signature:
    value = helper.make_tensor_value_info
    sequence = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None)
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "w"], ["y"]),
            helper.make_node("SequenceConstruct", ["y", "y"], ["parts"]),
            helper.make_node("Identity", ["words"], ["same"]),
            helper.make_node("Identity", ["brain"], ["same_brain"]),
        ],
        "g",
        [
            value("x", TensorProto.FLOAT, ["N", None, 3]),
            value("w", TensorProto.FLOAT, [3]),
            value("words", TensorProto.STRING, [-1]),
            value("brain", TensorProto.BFLOAT16, []),
        ],
        [
            value("y", TensorProto.FLOAT, ["N", None, 3]),
            sequence,
            value("same", TensorProto.STRING, [None]),
            value("same_brain", TensorProto.BFLOAT16, []),
        ],
        [helper.make_tensor("w", TensorProto.FLOAT, [3], [1, 2, 3])],
    )
    opset = [helper.make_opsetid("", 17)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opset, ir_version=9)
    return signature_of(load_model(model))


def test_inputs_without_the_initializers_in_the_models_order() -> None:
    signature = _signature()
    assert signature.input_names == ["x", "words", "brain"]
    assert signature.output_names == ["y", "parts", "same", "same_brain"]
    assert signature.inputs[0] == TensorSpec("x", np.dtype(np.float32), ("N", None, 3))


def test_strings_are_objects_and_negative_sizes_are_open() -> None:
    words = _signature().inputs[1]
    assert words.dtype == np.dtype(object)
    assert words.shape == (None,)


def test_a_scalar_bfloat16() -> None:
    brain = _signature().inputs[2]
    assert brain.shape == ()
    assert str(brain) == "bfloat16[]"


def test_a_sequence_is_marked_and_has_no_dtype() -> None:
    parts = _signature().outputs[1]
    assert not parts.is_tensor
    assert (parts.dtype, parts.shape) == (None, None)
    assert str(parts) == "not a tensor"


def test_dynamic() -> None:
    assert TensorSpec("x", None, None).dynamic
    assert TensorSpec("x", None, ("N", 3)).dynamic
    assert TensorSpec("x", None, (None,)).dynamic
    assert not TensorSpec("x", None, (1, 3)).dynamic
    assert not TensorSpec("x", None, ()).dynamic


def test_text_of_a_spec() -> None:
    assert str(TensorSpec("x", np.dtype(np.float32), ("N", 3, None))) == "float32[N,3,?]"
    assert str(TensorSpec("x", np.dtype(object), None)) == "string[of any rank]"
    assert str(TensorSpec("x", None, (1,))) == "any type[1]"
