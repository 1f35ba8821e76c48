from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from topsideas.errors import SampleError
from topsideas.samples.npz import scan_folder
from topsideas.samples.sample import arrays_digest
from topsideas.samples.signature import Signature, TensorSpec

Write = Callable[..., Path]
Arrays = dict[str, np.ndarray]


def _scan_message(folder: Path, signature: Signature) -> str:
    with pytest.raises(SampleError) as caught:
        scan_folder(folder, signature)
    return str(caught.value)


def _load_message(folder: Path, signature: Signature) -> str:
    with pytest.raises(SampleError) as caught:
        list(scan_folder(folder, signature))
    return str(caught.value)


def test_ids_have_gaps_and_are_sorted_as_numbers(
    tmp_path: Path, write: Write, signature: Signature, good: Arrays, golden: Arrays
) -> None:
    for number in ("10", "2", "0", "007"):
        write(f"sample{number}_inputs.npz", good)
    write("sample2_outputs.npz", golden)
    folder = scan_folder(str(tmp_path), signature)
    assert [file.id for file in folder.files] == [0, 2, 7, 10]
    assert len(folder) == 4
    assert [file.golden_path is not None for file in folder.files] == [False, True, False, False]
    assert [sample.id for sample in folder] == [0, 2, 7, 10]


def test_a_sample_is_loaded_in_the_models_order(
    tmp_path: Path, write: Write, signature: Signature, good: Arrays, golden: Arrays
) -> None:
    write("sample0_inputs.npz", {name: good[name] for name in reversed(good)})
    write("sample0_outputs.npz", golden)
    (sample,) = scan_folder(tmp_path, signature)
    assert list(sample.inputs) == ["image", "ids"]
    np.testing.assert_array_equal(sample.inputs["image"], good["image"])
    assert sample.golden is not None
    np.testing.assert_array_equal(sample.golden["logits"], golden["logits"])
    assert sample.inputs_digest == arrays_digest(good)
    assert sample.golden_digest == arrays_digest(golden)


def test_arrays_are_read_when_asked_for(
    tmp_path: Path, write: Write, signature: Signature, good: Arrays
) -> None:
    write("sample0_inputs.npz", good)
    (tmp_path / "sample1_inputs.npz").write_bytes(b"broken")
    samples = iter(scan_folder(tmp_path, signature))
    assert next(samples).id == 0
    with pytest.raises(SampleError, match="sample1_inputs"):
        next(samples)


def test_shapes_may_differ_between_samples(
    tmp_path: Path, write: Write, signature: Signature, good: Arrays
) -> None:
    write("sample0_inputs.npz", good)
    write("sample1_inputs.npz", {name: array[:1] for name, array in good.items()})
    assert [s.inputs["ids"].shape for s in scan_folder(tmp_path, signature)] == [(2,), (1,)]


def test_dtypes_that_npz_does_not_keep(tmp_path: Path, write: Write, typed: Signature) -> None:
    brain = np.array([1.5, -2], ml_dtypes.bfloat16)
    text = np.array(["a", "bcd"])
    for number, written in enumerate([text, np.char.encode(text)]):
        arrays = {"text": written, "brain": brain, "anything": np.arange(3.0)}
        write(f"sample{number}_inputs.npz", arrays)
    for sample in scan_folder(tmp_path, typed):
        assert sample.inputs["text"].dtype == object
        assert sample.inputs["text"].tolist() == ["a", "bcd"]
        assert sample.inputs["brain"].dtype == ml_dtypes.bfloat16
        assert sample.inputs["brain"].tobytes() == brain.tobytes()


def test_byte_order_and_layout_are_made_native(
    tmp_path: Path, write: Write, signature: Signature, good: Arrays
) -> None:
    foreign = {"image": np.asfortranarray(good["image"]), "ids": good["ids"].astype(">i8")}
    write("sample0_inputs.npz", foreign)
    (sample,) = scan_folder(tmp_path, signature)
    assert sample.inputs["ids"].dtype.isnative
    assert sample.inputs["image"].flags.c_contiguous
    assert sample.inputs_digest == arrays_digest(good)


def test_infinity_in_golden_outputs_is_kept(
    tmp_path: Path, write: Write, signature: Signature, good: Arrays, golden: Arrays
) -> None:
    golden["logits"][0, 0] = np.inf
    write("sample0_inputs.npz", good)
    write("sample0_outputs.npz", golden)
    (sample,) = scan_folder(tmp_path, signature)
    assert sample.golden is not None
    assert np.isinf(sample.golden["logits"][0, 0])


def test_files_that_were_probably_meant_are_listed(
    tmp_path: Path, write: Write, signature: Signature, good: Arrays
) -> None:
    write("sample0_inputs.npz", good)
    for name in ("sampleA_inputs.npz", "sample1_input.npz", "Sample2_inputs.npz", "other.npz"):
        write(name, good)
    (tmp_path / "labels.txt").touch()
    folder = scan_folder(tmp_path, signature)
    assert [file.id for file in folder.files] == [0]
    assert folder.ignored == (
        "Sample2_inputs.npz",
        "other.npz",
        "sample1_input.npz",
        "sampleA_inputs.npz",
    )


def test_a_pipe_is_not_waited_for(tmp_path: Path, signature: Signature) -> None:
    os.mkfifo(tmp_path / "sample0_inputs.npz")
    assert "sample0_inputs.npz: is no file, expected" in _scan_message(tmp_path, signature)


def test_missing_folder(tmp_path: Path, signature: Signature) -> None:
    message = _scan_message(tmp_path / "nowhere", signature)
    assert "nowhere: no such sample folder; expected sample{id}_inputs.npz" in message


def test_not_a_folder(write: Write, signature: Signature, good: Arrays) -> None:
    path = write("sample0_inputs.npz", good)
    assert f"{path}: is a file, expected a folder" in _scan_message(path, signature)


def test_empty_folder(tmp_path: Path, signature: Signature) -> None:
    message = _scan_message(tmp_path, signature)
    assert "holds no sample: the folder has no files; expected sample{id}_inputs.npz" in message


@pytest.mark.parametrize(
    "name", ["sampleA_inputs.npz", "sample1_input.npz", "sample-1_inputs.npz", "image.png"]
)
def test_no_file_follows_the_convention(tmp_path: Path, signature: Signature, name: str) -> None:
    (tmp_path / name).touch()
    message = _scan_message(tmp_path, signature)
    assert f"holds no sample: found {name}; expected sample{{id}}_inputs.npz" in message


def test_a_long_list_of_files_is_cut(tmp_path: Path, signature: Signature) -> None:
    for number in range(13):
        (tmp_path / f"{number:02}.png").touch()
    assert "08.png, 09.png and 3 more" in _scan_message(tmp_path, signature)


def test_golden_without_inputs(
    tmp_path: Path, write: Write, signature: Signature, good: Arrays, golden: Arrays
) -> None:
    write("sample0_inputs.npz", good)
    write("sample1_outputs.npz", golden)
    message = _scan_message(tmp_path, signature)
    assert "sample1_outputs.npz has no inputs, expected sample1_inputs.npz" in message
    assert "add it or remove the golden file" in message


@pytest.mark.parametrize("role", ["inputs", "outputs"])
def test_the_same_id_twice(tmp_path: Path, signature: Signature, role: str) -> None:
    for name in ("sample1_inputs.npz", f"sample1_{role}.npz", f"sample01_{role}.npz"):
        (tmp_path / name).touch()
    message = _scan_message(tmp_path, signature)
    assert f"sample01_{role}.npz and sample1_{role}.npz have the same id 1" in message
    assert "rename or remove one" in message


_F32 = np.dtype(np.float32)
_NAN = np.full((2, 3, 4), 1, np.float32)
_NAN[1, 0, 2:] = np.nan

# what the image is, and what the message must say about it
_BAD_IMAGES: list[tuple[np.ndarray, list[str]]] = [
    (
        np.zeros((2, 3, 4)),
        ["'image': expected float32, found float64; convert with .astype(np.float32)"],
    ),
    (np.zeros((2, 3, 4), np.uint8), ["expected float32, found uint8"]),
    (np.array([["a"]]), ["expected float32, found str32"]),
    (np.zeros((2, 3, 4), [("r", "f4")]), ["expected float32, found void32"]),
    (
        np.zeros((3, 4), np.float32),
        [
            "'image': expected shape [N,3,?], found [3,4]: rank 3 against 2",
            "add the batch axis with array[np.newaxis]",
        ],
    ),
    (np.zeros((5, 7), np.float32), ["expected shape [N,3,?], found [5,7]: rank 3 against 2"]),
    (np.float32(1), ["expected shape [N,3,?], found []: rank 3 against 0"]),
    (
        np.zeros((2, 4, 4), np.float32),
        ["expected shape [N,3,?], found [2,4,4]: axis 1 must be 3, is 4"],
    ),
    (
        np.zeros((3, 3, 4), np.float32),
        ["dimension 'N' is 2 at axis 0 of 'ids' but 3 at axis 0 of 'image'", "one size"],
    ),
    (
        _NAN,
        [
            "'image': holds NaN in 2 of 24 elements, first at index (1, 0, 2)",
            "expected numbers",
            "check how the array was made",
        ],
    ),
]


@pytest.mark.parametrize(("image", "parts"), _BAD_IMAGES)
def test_inputs_that_do_not_fit(
    tmp_path: Path,
    write: Write,
    signature: Signature,
    good: Arrays,
    image: np.ndarray,
    parts: list[str],
) -> None:
    path = write("sample3_inputs.npz", good | {"image": image})
    message = _load_message(tmp_path, signature)
    assert message.startswith(f"{path}: ")
    for part in parts:
        assert part in message


def _renamed(arrays: Arrays, names: dict[str, str]) -> Arrays:
    return {names.get(name, name): array for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ({"image": "imgae"}, ["'image' is missing", "did you mean 'image'?"]),
        ({"image": "arr_0"}, ["'arr_0' is not in the model", "unnamed array: np.savez(file"]),
        ({"image": "qqq"}, ["'qqq' is not in the model; expected 'image', 'ids', found 'qqq'"]),
        ({"ids": "IDS"}, ["'ids' is missing", "found 'image', 'IDS'"]),
    ],
)
def test_wrong_names(
    tmp_path: Path,
    write: Write,
    signature: Signature,
    good: Arrays,
    names: dict[str, str],
    parts: list[str],
) -> None:
    path = write("sample0_inputs.npz", _renamed(good, names))
    message = _load_message(tmp_path, signature)
    assert str(path) in message
    for part in parts:
        assert part in message


def test_a_missing_and_an_extra_array(
    tmp_path: Path, write: Write, signature: Signature, good: Arrays
) -> None:
    write("sample0_inputs.npz", {"image": good["image"]})
    assert "'ids' is missing; expected 'image', 'ids', found 'image'" in _load_message(
        tmp_path, signature
    )
    write("sample0_inputs.npz", good | {"mask": good["ids"]})
    assert "'mask' is not in the model; expected" in _load_message(tmp_path, signature)
    write("sample0_inputs.npz", {})
    assert "found nothing" in _load_message(tmp_path, signature)


@pytest.mark.parametrize(
    ("outputs", "part"),
    [
        ({"logit": np.zeros((2, 2), np.float32)}, "'logit' is not in the model (did you mean"),
        ({}, "'logits' is missing; expected 'logits', found nothing"),
        ({"logits": np.zeros((2, 2))}, "'logits': expected float32, found float64"),
        ({"logits": np.full((2, 2), np.nan, np.float32)}, "holds NaN in 4 of 4 elements"),
    ],
)
def test_golden_outputs_that_do_not_fit(
    tmp_path: Path, write: Write, signature: Signature, good: Arrays, outputs: Arrays, part: str
) -> None:
    write("sample0_inputs.npz", good)
    path = write("sample0_outputs.npz", outputs)
    message = _load_message(tmp_path, signature)
    assert message.startswith(f"{path}: ")
    assert part in message


@pytest.mark.parametrize(
    ("name", "array", "part"),
    [
        ("text", np.arange(2), "expected string, found int64; convert with .astype(np.str_)"),
        ("text", np.array([b"\xff", b"a"]), "expected string, found bytes8"),
        (
            "brain",
            np.zeros(2, np.uint16),
            ".astype(ml_dtypes.bfloat16), or .view(ml_dtypes.bfloat16) if these are its bits",
        ),
        ("brain", np.zeros(2, "V4"), "expected bfloat16, found void32"),
        ("brain", np.array([1, np.nan], ml_dtypes.bfloat16), "'brain': holds NaN in 1 of 2"),
    ],
)
def test_special_dtypes_that_do_not_fit(
    tmp_path: Path, write: Write, typed: Signature, name: str, array: np.ndarray, part: str
) -> None:
    arrays = {
        "text": np.array(["a", "b"]),
        "brain": np.zeros(2, ml_dtypes.bfloat16),
        "anything": np.zeros(1),
    }
    write("sample0_inputs.npz", arrays | {name: array})
    assert part in _load_message(tmp_path, typed)


def test_a_sequence_cannot_be_given(tmp_path: Path, write: Write) -> None:
    signature = Signature((TensorSpec("parts", None, None, is_tensor=False),), ())
    write("sample0_inputs.npz", {"parts": np.zeros(2)})
    message = _load_message(tmp_path, signature)
    assert "'parts' is a sequence, optional or sparse value" in message
    assert "rewrite the model" in message


def test_the_size_limit_reaches_the_reader(
    tmp_path: Path, write: Write, signature: Signature, good: Arrays
) -> None:
    write("sample0_inputs.npz", good)
    with pytest.raises(SampleError, match="expected at most 100"):
        list(scan_folder(tmp_path, signature, max_bytes=100))


@pytest.mark.parametrize(
    ("outputs", "part"),
    [
        ({"logits": np.zeros((2, 3), np.float32)}, "expected shape [N,2], found [2,3]"),
        ({"logits": np.zeros((1, 2, 2), np.float32)}, "rank 2 against 3"),
        # Golden outputs of another sample.
        ({"logits": np.zeros((5, 2), np.float32)}, "'N' is 5 at axis 0 of 'logits' but 2 at"),
    ],
)
def test_golden_outputs_of_other_shapes_are_read_with_what_is_to_be_raised(
    tmp_path: Path, write: Write, signature: Signature, good: Arrays, outputs: Arrays, part: str
) -> None:
    write("sample0_inputs.npz", good)
    path = write("sample0_outputs.npz", outputs)
    (sample,) = scan_folder(tmp_path, signature)
    assert sample.misfit is not None
    assert sample.misfit.startswith(f"{path}: ")
    assert part in sample.misfit
