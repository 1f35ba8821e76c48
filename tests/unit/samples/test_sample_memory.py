from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from topsideas.errors import SampleError, UsageError
from topsideas.samples.memory import samples_from_memory
from topsideas.samples.signature import Signature, TensorSpec

Arrays = dict[str, np.ndarray]

SINGLE = Signature(
    (TensorSpec("x", np.dtype(np.float32), ("N", 2)),),
    (TensorSpec("y", np.dtype(np.float32), ("N",)),),
)
X = np.ones((1, 2), np.float32)
Y = np.ones(1, np.float32)


def _message(inputs: Any, outputs: Any = None, signature: Signature = SINGLE) -> str:
    with pytest.raises(SampleError) as caught:
        samples_from_memory(inputs, outputs, signature)
    return str(caught.value)


def test_the_three_forms_of_an_entry(signature: Signature, good: Arrays, golden: Arrays) -> None:
    by_order = list(good.values())
    by_name = {name: good[name] for name in reversed(good)}
    entries = [by_order, tuple(by_order), by_name]
    outputs = [golden["logits"], [golden["logits"]], golden]
    samples = samples_from_memory(entries, outputs, signature)
    assert [sample.id for sample in samples] == [0, 1, 2]
    assert len({sample.inputs_digest for sample in samples}) == 1
    assert len({sample.golden_digest for sample in samples}) == 1
    assert all(list(sample.inputs) == ["image", "ids"] for sample in samples)


def test_names_give_the_order_of_entries(signature: Signature, good: Arrays) -> None:
    (sample,) = samples_from_memory(
        [[good["ids"], good["image"]]], None, signature, input_names=["ids", "image"]
    )
    assert list(sample.inputs) == ["image", "ids"]
    assert sample.inputs["ids"] is good["ids"]
    assert sample.golden is None


def test_golden_outputs_may_be_missing_for_some() -> None:
    samples = samples_from_memory([X, [X], {"x": X}], (None, Y, {"y": Y}), SINGLE)
    assert [sample.golden is None for sample in samples] == [True, False, False]


def test_numpy_scalars_are_arrays() -> None:
    scalar = Signature((TensorSpec("t", np.dtype(np.float32), ()),), ())
    (sample,) = samples_from_memory([np.float32(3)], None, scalar)
    assert sample.inputs["t"].shape == ()


def test_strings() -> None:
    text = Signature((TensorSpec("t", np.dtype(object), (1,)),), ())
    for array in (np.array(["a"]), np.array(["a"], object), np.array([b"a"])):
        (sample,) = samples_from_memory([array], None, text)
        assert sample.inputs["t"].tolist() == ["a"]


def test_a_model_without_inputs() -> None:
    assert samples_from_memory([[], {}], None, Signature((), ()))[1].inputs == {}


@pytest.mark.parametrize(
    ("inputs", "parts"),
    [
        (X, ["sample_inputs: expected a list with one entry per sample, found one numpy.ndarray"]),
        ({"x": X}, ["found one dict", "for a single sample pass [sample_inputs]"]),
        (None, ["sample_inputs: expected a list with one entry per sample, found None"]),
        ([], ["sample_inputs: expected at least one sample, found an empty list"]),
        ([X, [X, X]], ["sample_inputs[1]: expected 1 arrays, found 2; pass a list", "['x']"]),
        ([[]], ["sample_inputs[0]: expected 1 arrays, found 0", "or a dict by name"]),
        ([X, {"z": X}], ["sample_inputs[1]: 'x' is missing", "expected 'x', found 'z'"]),
        ([{0: X}], ["sample_inputs[0]: 'x' is missing", "'0' is not in the model"]),
        (
            [X.astype(np.float64)],
            [
                "sample_inputs[0]: 'x': expected float32, found float64",
                "convert with .astype(np.float32)",
            ],
        ),
        (
            [[[1.0, 2.0]]],
            [
                "sample_inputs[0]: 'x': expected a numpy array of float32, found one list",
                "np.asarray(value, dtype=np.float32)",
            ],
        ),
        ([1.0], ["expected a numpy array of float32, found one float"]),
        ([None], ["expected a numpy array of float32, found None"]),
        ([np.ma.masked_array(X)], ["found one numpy.ma.MaskedArray"]),
        ([np.array([object()])], ["expected float32, found object"]),
        ([X[0]], ["sample_inputs[0]: 'x': expected shape [N,2], found [2]", "np.newaxis"]),
        ([X, X * np.nan], ["sample_inputs[1]: 'x': holds NaN in 2 of 2 elements"]),
    ],
)
def test_inputs_that_do_not_fit(inputs: object, parts: list[str]) -> None:
    message = _message(inputs)
    for part in parts:
        assert part in message.replace("numpy.ma.core.", "numpy.ma.")


@pytest.mark.parametrize(
    ("outputs", "part"),
    [
        ([Y], "sample_outputs: expected 2 entries, one per entry of sample_inputs, found 1"),
        (Y, "sample_outputs: expected a list with one entry per sample"),
        ([Y, Y.astype(np.float16)], "sample_outputs[1]: 'y': expected float32, found float16"),
        ([Y, {"x": Y}], "sample_outputs[1]: 'y' is missing"),
        ([[Y, Y], Y], "sample_outputs[0]: expected 1 arrays, found 2"),
    ],
)
def test_golden_outputs_that_do_not_fit(outputs: object, part: str) -> None:
    assert part in _message([X, X], outputs)


def test_golden_outputs_of_another_shape_are_taken_with_what_is_to_be_raised() -> None:
    first, second = samples_from_memory([X, X], [Y, np.ones(2, np.float32)], SINGLE)
    assert first.misfit is None
    assert second.misfit is not None
    assert second.misfit.startswith("sample_outputs[1]: dimension 'N' is 2 at axis 0 of 'y'")


def test_several_inputs_are_not_a_bare_array(signature: Signature, good: Arrays) -> None:
    message = _message([good["image"]], signature=signature)
    assert "expected 2 arrays, found one numpy.ndarray; pass a list in the order" in message


@pytest.mark.parametrize(
    ("dtype", "code"),
    [(np.dtype(bool), "np.bool_"), (np.dtype(object), "np.str_"), (np.dtype("i8"), "np.int64")],
)
def test_the_remedy_is_valid_code(dtype: np.dtype[Any], code: str) -> None:
    signature = Signature((TensorSpec("x", dtype, None),), ())
    assert f"dtype={code})" in _message([[[1]]], signature=signature)


@pytest.mark.parametrize("names", [["x", "z"], [], "x", ["x", "x"]])
def test_names_that_are_not_the_models(names: Any) -> None:
    with pytest.raises(UsageError, match=r"input_names is .*expected the model's names"):
        samples_from_memory([X], None, SINGLE, input_names=names)
    with pytest.raises(UsageError, match=r"output_names is .*\['y'\]"):
        samples_from_memory([X], None, SINGLE, output_names=names)
