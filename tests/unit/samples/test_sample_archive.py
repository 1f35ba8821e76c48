from __future__ import annotations

import gc
import io
import os
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from topsideas.errors import SampleError
from topsideas.samples.archive import read_npz

Write = Callable[..., Path]


def _npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


def _header(shape: str, descr: str = "<f4") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def _zip(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")  # about duplicate names, which a test wants
        for name, content in members:
            archive.writestr(name, content)
    return path


def _message(path: Path, **options: int) -> str:
    with pytest.raises(SampleError) as caught:
        read_npz(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


_ARRAYS = {
    "x": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scalar": np.array(3),
    "empty": np.zeros((0, 4), np.float16),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "flags": np.array([True, False]),
    "text": np.array(["a", "längere"]),
    "big_endian": np.arange(3, dtype=">i4"),
    "a/b:c": np.zeros(1, np.complex64),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_wrote(tmp_path: Path, save: Callable[..., None]) -> None:
    save(tmp_path / "a.npz", **_ARRAYS)
    found = read_npz(tmp_path / "a.npz")
    assert list(found) == list(_ARRAYS)
    for name, array in found.items():
        assert array.dtype == _ARRAYS[name].dtype
        np.testing.assert_array_equal(array, _ARRAYS[name])


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_reads_other_compressions_and_version_2(tmp_path: Path, method: int) -> None:
    member = ("x.npy", _npy(np.arange(5.0), (2, 0)))
    path = _zip(tmp_path / "a.npz", member, method=method)
    np.testing.assert_array_equal(read_npz(path)["x"], np.arange(5.0))


def test_no_arrays_at_all(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz")
    assert read_npz(tmp_path / "a.npz") == {}


def test_missing_file(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in _message(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "the file is empty"),
        (b"hello world", "the file is not an archive"),
        (_npy(np.zeros(3)), "the file is a single array in npy format"),
        (pickle.dumps({"x": [1]}), "the file is not an archive"),
    ],
)
def test_other_formats(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    message = _message(path)
    assert f"{found}, expected an npz archive of named arrays" in message
    assert "write it again with np.savez" in message


def test_truncated(write: Write) -> None:
    path = write("a.npz", {"x": np.zeros(1000)})
    path.write_bytes(path.read_bytes()[:-200])
    message = _message(path)
    assert "the archive is damaged (BadZipFile" in message
    assert "write it again with np.savez" in message


def test_a_flipped_bit_in_the_data(write: Write) -> None:
    path = write("a.npz", {"x": np.zeros(1000)})
    content = bytearray(path.read_bytes())
    content[4000] ^= 1
    path.write_bytes(content)
    assert "the archive is damaged (BadZipFile: Bad CRC-32" in _message(path)


def test_a_damaged_deflate_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).random(1000))
    content = bytearray(path.read_bytes())
    content[200:260] = b"\xff" * 60
    path.write_bytes(content)
    assert "the archive is damaged" in _message(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_any_damage_is_an_error_or_changes_nothing(
    tmp_path: Path, save: Callable[..., None]
) -> None:
    """Every damage ends in our error; what is still read has its checksum."""
    path = tmp_path / "a.npz"
    values = np.arange(40, dtype=np.float32)
    save(path, x=values)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        for place in random.integers(0, len(whole), 3):
            content[place] = random.integers(0, 256)
        path.write_bytes(content[: random.integers(1, 2 * len(whole))])
        try:
            found = read_npz(path)
        except SampleError:
            continue
        assert [array.tobytes() for array in found.values()] in ([], [values.tobytes()])


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    np.savez(tmp_path / "a.npz", x=np.array([Trap()], dtype=object))
    message = _message(tmp_path / "a.npz")
    assert "'x' holds pickled Python objects, which are never loaded" in message
    assert ".astype(np.float32)" in message
    assert not (tmp_path / "owned").exists()


def test_a_zip_bomb_is_not_decompressed(tmp_path: Path) -> None:
    content = _header(f"({1 << 22},)") + bytes(1 << 24)
    path = _zip(tmp_path / "a.npz", ("x.npy", content), method=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 18
    message = _message(path, max_bytes=1 << 20)
    assert f"holds {len(content)} bytes of arrays when decompressed" in message
    assert "expected at most 1048576; split it" in message
    assert read_npz(path, len(content))["x"].nbytes == 1 << 24


def test_the_limit_counts_all_members_together(write: Write) -> None:
    path = write("a.npz", {"x": np.zeros(100), "y": np.zeros(100)})
    assert "expected at most 1500" in _message(path, max_bytes=1500)


def test_an_absurd_shape_is_not_allocated(tmp_path: Path) -> None:
    path = _zip(tmp_path / "a.npz", ("x.npy", _header(f"({1 << 60},)") + bytes(16)))
    message = _message(path)
    assert f"'x': its header declares shape ({1 << 60},) of float32, {1 << 62} bytes" in message
    assert "but it holds 16; write it again" in message


@pytest.mark.parametrize("shape", ["(3,)", "(5,)", "(-2, -2)", "(True, 3)"])
def test_a_header_that_disagrees_with_the_data(tmp_path: Path, shape: str) -> None:
    path = _zip(tmp_path / "a.npz", ("x.npy", _header(shape) + bytes(16)))
    assert f"its header declares shape {shape}" in _message(path)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\x93NUMPY\x01\x00\x05\x00(((((",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff{",
        b"\x93NUMPY\x03\x00\x00\x00\x00\x00",
        _header("(4,)", "<f1"),
        _header("('a',)"),
        b"\x93NUMPY\x01\x00\x20\x4e" + b"(" * 20000,
    ],
)
def test_a_broken_header(tmp_path: Path, header: bytes) -> None:
    path = _zip(tmp_path / "a.npz", ("x.npy", header + bytes(16)))
    assert "the archive is damaged" in _message(path)


def test_the_same_key_twice(tmp_path: Path) -> None:
    member = ("x.npy", _npy(np.zeros(1)))
    message = _message(_zip(tmp_path / "a.npz", member, member))
    assert "'x.npy' is stored 2 times, expected once" in message


def test_a_member_that_is_no_array(tmp_path: Path) -> None:
    message = _message(_zip(tmp_path / "a.npz", ("readme.txt", b"hello")))
    assert "'readme.txt' is not an array, expected only .npy members" in message


def test_an_encrypted_member(write: Write) -> None:
    path = write("a.npz", {"x": np.zeros(4)})
    content = bytearray(path.read_bytes())
    for signature, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flag] |= 1
    path.write_bytes(content)
    assert "password required" in _message(path)


def test_threads_that_collect_garbage_read_the_same(tmp_path: Path) -> None:
    # CPython's ast loses count of its depth when another thread parses during a collection.
    path = tmp_path / "s.npz"
    np.savez(path, x=np.arange(6, dtype=np.float32).reshape(2, 3))
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.callbacks.append(_take_time)
    gc.set_threshold(7, 2, 2)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            read = list(threads.map(lambda _: read_npz(path)["x"].sum(), range(2000)))
    finally:
        gc.callbacks.remove(_take_time)
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)
    assert read == [15.0] * 2000


def _take_time(*_: object) -> None:
    """Long enough for the interpreter to change threads."""
    for _ in range(50):
        pass
