"""Reading an npz file that may be damaged or hostile, without trusting what it declares.

``np.load`` allocates what a header asks for and unpickles on request. Here nothing is
unpickled, and nothing is allocated before the sizes are known to agree.
"""

from __future__ import annotations

import math
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from topsideas.errors import SampleError, reason
from topsideas.samples.sample import Array

MAX_BYTES = 8 << 30
"""Bytes that the arrays of one file may take together when decompressed."""

_CHUNK = 1 << 24
_TRIES = 10
_REMEDY = "write it again with np.savez"

Header = tuple[tuple[int, ...], bool, np.dtype[Any]]
"""Shape, whether the first axis varies fastest, and dtype."""
Check = Callable[[str, tuple[int, ...], np.dtype[Any]], object]
"""Called with what a member declares before its data is read; raises SampleError."""


def read_npz(
    path: Path, max_bytes: int = MAX_BYTES, check: Check = lambda *_: None
) -> dict[str, Array]:
    """The arrays of an npz file by name.

    Args:
        path: The file.
        max_bytes: The most that its arrays may take together.
        check: Refuses arrays by name, shape and dtype: a small file can hold gigabytes.

    Raises:
        SampleError: The file cannot be opened, is damaged, is larger than ``max_bytes``, or
            holds something else than plain arrays with names of their own.
    """
    try:
        _check_format(path)
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path, max_bytes)
            return {name: _read(archive, info, path, check) for name, info in members.items()}
    except SampleError:
        raise
    except OSError as error:
        raise SampleError(f"{path}: cannot be read: {reason(error)}") from error
    except MemoryError as error:
        raise SampleError(f"{path}: its arrays do not fit into memory") from error
    except Exception as error:  # zipfile, its codecs and numpy raise many kinds on bad bytes
        raise SampleError(
            f"{path}: the archive is damaged ({_first(error)}); {_REMEDY}"
        ) from error


def _members(archive: zipfile.ZipFile, path: Path, max_bytes: int) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    total = sum(info.file_size for info in infos)
    if total > max_bytes:
        raise SampleError(
            f"{path}: holds {total} bytes of arrays when decompressed, expected at most "
            f"{max_bytes}; split it into several samples"
        )
    for name, count in Counter(info.filename for info in infos).items():
        if count > 1:
            raise SampleError(
                f"{path}: {name!r} is stored {count} times, expected once; {_REMEDY}"
            )
        if not name.endswith(".npy"):
            raise SampleError(
                f"{path}: {name!r} is not an array, expected only .npy members; {_REMEDY}"
            )
    return {info.filename.removesuffix(".npy"): info for info in infos}


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, check: Check) -> Array:
    name = info.filename.removesuffix(".npy")
    what = f"{path}: {name!r}"
    with archive.open(info) as member:
        shape, fortran, dtype = _header(member)
        if dtype.hasobject:
            raise SampleError(
                f"{what} holds pickled Python objects, which are never loaded; expected a plain "
                "array, so save numbers with .astype(np.float32) and text with .astype(np.str_)"
            )
        declared, held = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
        if declared != held or min(shape, default=0) < 0:
            raise SampleError(
                f"{what}: its header declares shape {shape} of {dtype.name}, {declared} bytes, "
                f"but it holds {held}; {_REMEDY}"
            )
        check(name, shape, dtype)
        flat = _data(member, declared).view(dtype)
        member.read(1)  # the checksum is compared when the end is reached
    return flat.reshape(shape, order="F" if fortran else "C")


def _header(member: IO[bytes]) -> Header:
    """What a member declares.

    numpy parses it with ``ast``, which CPython before 3.12 confuses between threads when a
    garbage collection runs in between (SystemError, "recursion depth mismatch"): tried again.
    """
    for _ in range(_TRIES - 1):
        start = member.tell()
        try:
            return _parsed(member)
        except SystemError:
            member.seek(start)
    return _parsed(member)


def _parsed(member: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(member)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about files of Python 2, which are read all the same
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(member)
        if version == (2, 0):
            return np.lib.format.read_array_header_2_0(member)
    raise ValueError(f"npy format {version} is not one that plain arrays need")


def _data(member: IO[bytes], size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """``size`` bytes, read in pieces so that they are in memory once."""
    data = np.empty(size, np.uint8)
    done = 0
    while done < size:
        piece = member.read(min(_CHUNK, size - done))
        if not piece:
            raise EOFError(f"ends after {done} of {size} bytes")
        data[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    return data


def _check_format(path: Path) -> None:
    """Tell apart what people give instead of an archive before zipfile calls it damaged."""
    with path.open("rb") as stream:
        start = stream.read(6)
    if start.startswith(b"PK"):
        return
    found = "the file is empty" if not start else "the file is not an archive"
    if start == b"\x93NUMPY":
        found = "the file is a single array in npy format"
    raise SampleError(f"{path}: {found}, expected an npz archive of named arrays; {_REMEDY}")


def _first(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
