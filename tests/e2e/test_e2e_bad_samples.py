"""Samples that are missing, damaged, or do not fit the model."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from e2e_bench import GENTLE, Bench, plain_bench, rows

X = rows()["x"]
Y = 3 * X


def inputs(**arrays: np.ndarray) -> Callable[[Path], object]:
    """Replaces the inputs of sample 1."""
    return lambda folder: np.savez(folder / "sample1_inputs.npz", **arrays)


def golden(**arrays: np.ndarray) -> Callable[[Path], object]:
    """Adds golden outputs to sample 1."""
    return lambda folder: np.savez(folder / "sample1_outputs.npz", **arrays)


def content(data: bytes, name: str = "sample1_inputs.npz") -> Callable[[Path], object]:
    """Replaces a file by these bytes."""
    return lambda folder: (folder / name).write_bytes(data)


def renamed(name: str) -> Callable[[Path], object]:
    """Leaves one file of another name."""

    def change(folder: Path) -> None:
        (folder / "sample0_inputs.npz").unlink()
        (folder / "sample1_inputs.npz").rename(folder / name)

    return change


def emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def truncated(folder: Path) -> None:
    path = folder / "sample1_inputs.npz"
    path.write_bytes(path.read_bytes()[:-40])


def flipped(folder: Path) -> None:
    path = folder / "sample1_inputs.npz"
    data = bytearray(path.read_bytes())
    data[data.index(X.tobytes()[:8]) + 3] ^= 0xFF
    path.write_bytes(data)


def lying(folder: Path) -> None:
    """A header that declares a terabyte."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (262144, 1048576), }"
    member = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"1234"
    with zipfile.ZipFile(folder / "sample1_inputs.npz", "w") as archive:
        archive.writestr("x.npy", member)


def bomb(folder: Path) -> None:
    """An archive that declares nine gigabytes in its directory."""
    with zipfile.ZipFile(folder / "sample1_inputs.npz", "w") as archive:
        archive.writestr("x.npy", b"1234")
        archive.filelist[0].file_size = 9 << 30


def twice(folder: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, X)
    with zipfile.ZipFile(folder / "sample1_inputs.npz", "w") as archive:
        archive.writestr("x.npy", stream.getvalue())
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x.npy", stream.getvalue())


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


BAD: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "no file",
        emptied,
        "holds no sample: the folder has no files; expected sample{id}_inputs.npz",
    ),
    (
        "other name",
        renamed("a.npz"),
        "holds no sample: found a.npz; expected sample{id}_inputs.npz",
    ),
    ("other case", renamed("Sample1_Inputs.npz"), "holds no sample: found Sample1_Inputs.npz"),
    (
        "no number",
        renamed("sample_inputs.npz"),
        "holds no sample: found sample_inputs.npz; expect",
    ),
    (
        "golden alone",
        renamed("sample4_outputs.npz"),
        "sample4_outputs.npz has no inputs, expected",
    ),
    (
        "number twice",
        content(b"", "sample01_inputs.npz"),
        "sample01_inputs.npz and sample1_inputs.npz have the same id 1, expected one file per id",
    ),
    ("missing key", inputs(), "sample1_inputs.npz: 'x' is missing; expected 'x', found nothing"),
    (
        "other key",
        inputs(X=X),
        "'x' is missing; 'X' is not in the model; expected 'x', found 'X'",
    ),
    (
        "unnamed",
        lambda f: np.savez(f / "sample1_inputs.npz", X),
        "'arr_0' is not in the model (a n",
    ),
    (
        "extra key",
        inputs(x=X, z=X),
        "sample1_inputs.npz: 'z' is not in the model; expected 'x', fo",
    ),
    (
        "float64",
        inputs(x=X.astype(float)),
        "'x': expected float32, found float64; convert with .as",
    ),
    ("float16", inputs(x=X.astype(np.float16)), "expected float32, found float16; convert with"),
    (
        "integers",
        inputs(x=X.astype(int)),
        "'x': expected float32, found int64; convert with .astyp",
    ),
    ("text", inputs(x=np.array([["a"] * 4])), "'x': expected float32, found "),
    (
        "objects",
        inputs(x=np.array([[1, "a"]], object)),
        "holds pickled Python objects, which are ne",
    ),
    (
        "rank",
        inputs(x=X[0]),
        "expected shape [N,4], found [4]: rank 2 against 1; add the batch axis",
    ),
    ("size", inputs(x=X[:, :3]), "expected shape [N,4], found [2,3]: axis 1 must be 4, is 3"),
    (
        "nan",
        inputs(x=X * np.nan),
        "'x': holds NaN in 8 of 8 elements, first at index (0, 0); expect",
    ),
    (
        "empty file",
        content(b""),
        "sample1_inputs.npz: the file is empty, expected an npz archive of",
    ),
    (
        "text file",
        content(b"1 2 3 4\n"),
        "the file is not an archive, expected an npz archive of na",
    ),
    (
        "npy file",
        content(npy(X)),
        "the file is a single array in npy format, expected an npz archi",
    ),
    ("truncated", truncated, "sample1_inputs.npz: the archive is damaged (BadZipFile"),
    (
        "flipped bits",
        flipped,
        "sample1_inputs.npz: the archive is damaged (BadZipFile: Bad CRC-32",
    ),
    (
        "lying header",
        lying,
        "its header declares shape (262144, 1048576) of float32, 1099511627776 b",
    ),
    (
        "decompression bomb",
        bomb,
        "holds 9663676416 bytes of arrays when decompressed, expected at",
    ),
    (
        "array twice",
        twice,
        "sample1_inputs.npz: 'x.npy' is stored 2 times, expected once; write it",
    ),
    (
        "golden key",
        golden(z=Y),
        "sample1_outputs.npz: 'y' is missing; 'z' is not in the model; expe",
    ),
    (
        "golden dtype",
        golden(y=Y.astype(float)),
        "sample1_outputs.npz: 'y': expected float32, found",
    ),
    (
        "golden shape",
        golden(y=Y[:, :2]),
        "sample1_outputs.npz: 'y': expected shape [N,4], found [2,2",
    ),
    (
        "golden batch",
        golden(y=Y[:1]),
        "dimension 'N' is 1 at axis 0 of 'y' but 2 at axis 0 of 'x'",
    ),
    ("golden nan", golden(y=Y * np.nan), "sample1_outputs.npz: 'y': holds NaN in 8 of 8 elements"),
    (
        "golden empty",
        content(b"", "sample1_outputs.npz"),
        "sample1_outputs.npz: the file is empty",
    ),
]


@pytest.mark.parametrize(("spoil", "text"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_bad_sample_is_refused_with_file_tensor_expected_and_found(
    tmp_path: Path, spoil: Callable[[Path], object], text: str
) -> None:
    bench = plain_bench(tmp_path, GENTLE, rows(), rows())
    good = plain_bench(tmp_path / "good", GENTLE).samples
    spoil(bench.samples)
    before = bench.written()
    for words in ((), ("--manual",)):
        outcome = bench.run(*words)
        assert (outcome.code, outcome.out, outcome.report) == (2, "", None)
        assert text in outcome.err
        assert str(bench.samples) in outcome.err
    assert bench.written() == before
    assert bench.run("--sample_dir", good).code == 0


def test_a_missing_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    bench = plain_bench(tmp_path, GENTLE)
    for path, text in (
        (tmp_path / "none", "none: no such sample folder; expected sample{id}_inputs.npz"),
        (bench.model, "model.onnx: is a file, expected a folder of samples"),
    ):
        outcome = bench.run("--sample_dir", path)
        assert (outcome.code, text in outcome.err) == (2, True)


@pytest.mark.parametrize("role", ["inputs", "outputs"])
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (os.mkfifo, "is no file, expected an npz archive; repair it, or remove"),
        (os.mkdir, "is no file"),
        (lambda path: path.symlink_to("/nonexistent"), "is a link that leads to no file"),
        (lambda path: path.symlink_to(path.name), "is a link that leads to no file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a link that leads to no file"),
    ],
    ids=["pipe", "folder", "broken link", "circle", "device"],
)
def test_a_sample_that_is_no_file_is_neither_opened_nor_left_out(
    tmp_path: Path, make: Callable[[Path], object], text: str, role: str
) -> None:
    bench = plain_bench(tmp_path, GENTLE)
    make(bench.samples / f"sample{int(role == 'inputs')}_{role}.npz")
    outcome = bench.run()
    assert (outcome.code, outcome.report) == (2, None)
    assert text in outcome.err


def test_files_that_look_like_samples_are_mentioned(tmp_path: Path) -> None:
    bench = plain_bench(tmp_path, GENTLE)
    (bench.samples / "sample-1_inputs.npz").write_bytes(b"")
    note = (
        f"1 files in {bench.samples} look like samples but are not named like them: sample-1_inp"
    )
    assert any(n.startswith(note) for n in bench.run().found["notes"])


def test_infinity_in_golden_outputs_is_compared(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "(float[N,4] x) => (float[N,4] y) { y = Log(x) }")
    zeros = np.zeros((1, 4), np.float32)
    bench.sample(0, {"x": zeros}, {"y": np.full((1, 4), -np.inf, np.float32)})
    assert bench.run(target="onnx").found["fp32_nodes"] == []
    bench.sample(0, {"x": zeros}, {"y": np.full((1, 4), np.inf, np.float32)})
    outcome = bench.run(target="onnx")
    assert (outcome.code, outcome.found["margin"]) == (1, None)
    assert "misses its golden outputs in output 'y', margin inf" in outcome.err


def test_a_model_that_gives_other_shapes_than_it_declares_is_taken_as_it_is(
    tmp_path: Path,
) -> None:
    text = (
        "(float[N,4] x, int64[k] shape) => (float[one] y) { z = Mul(x, x) y = Reshape(z, shape)}"
    )
    bench = Bench(tmp_path, text)
    feeds = {"x": np.full((2, 4), 1e3, np.float32), "shape": np.array([2, 2, 2])}
    squares = np.full((2, 2, 2), 1e6, np.float32)
    for number, golden in enumerate((squares, None)):
        bench.sample(number, feeds, golden if golden is None else {"y": golden})
    outcome = bench.run("--finalize", target="onnx")
    assert (outcome.code, outcome.found["fp32_nodes"]) == (0, [0, 1])
    bench.sample(1, feeds, {"y": squares[0]})
    outcome = bench.run(target="onnx")
    assert (outcome.code, outcome.out) == (2, "")
    assert "'y': expected shape [one], found [2,2]: rank 1 against 2" in outcome.err
