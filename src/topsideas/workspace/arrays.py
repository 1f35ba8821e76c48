"""Cached arrays: one file per result, checked when it is read, bounded in all."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import xxhash

from topsideas.workspace.files import remove_empty, remove_file, remove_leftovers, replace_file

_log = logging.getLogger("topsideas.workspace")

Array = np.ndarray[Any, Any]

_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}")
_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}")  # one case: some file systems fold it
_USER_DEFINED = 2  # numpy's mark of a dtype registered by another package: ml_dtypes here


class ArrayCache:
    """Named arrays by kind and key; the longest unused entries go when space runs out.

    Args:
        folder: Where the files are kept: ``<kind>/<key>.npz``.
        limit: Bytes that all files may take together.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._lock = threading.Lock()
        self._sizes = self._scan()
        self._used = sum(self._sizes.values())
        self._evict()

    @property
    def usage(self) -> int:
        """Bytes that the files take."""
        return self._used

    def get(self, kind: str, key: str) -> dict[str, Array] | None:
        """The arrays, or None if there are none or their file is damaged."""
        path = self._path(kind, key)
        with self._lock:
            if path not in self._sizes:
                return None
            try:
                arrays = _decode(path, f"{kind}/{key}")
                os.utime(path)  # files are evicted by this time, in later runs too
            except Exception as error:  # numpy and zipfile raise many kinds on bad bytes
                _log.warning("%s: is damaged and dropped (%s)", path, error)
                self._drop(path)
                return None
            self._sizes.move_to_end(path)
            return arrays

    def put(self, kind: str, key: str, arrays: Mapping[str, Array]) -> None:
        """Keep arrays; what is larger than the whole limit is not kept.

        Raises:
            TypeError: An array holds objects other than strings.
        """
        path = self._path(kind, key)
        with self._lock:
            path.parent.mkdir(parents=True, exist_ok=True)
            members = _encode(arrays, f"{kind}/{key}")
            if sum(member.nbytes for member in members.values()) > self._limit:
                _log.info("%s %s: larger than the cache limit, not kept", kind, key)
                return
            # The checksum finds what a power cut spoils, so waiting for the disk buys nothing.
            replace_file(path, lambda target: _save(target, members), durable=False)
            self._used += path.stat().st_size - self._sizes.get(path, 0)
            self._sizes[path] = path.stat().st_size
            self._sizes.move_to_end(path)
            self._evict()

    def clean(self) -> None:
        """Remove all entries, and the folders that this leaves empty."""
        for path in list(self._sizes):
            self._drop(path)
        for folder in self._folder.glob("*"):
            remove_empty(folder)
        remove_empty(self._folder)

    def _path(self, kind: str, key: str) -> Path:
        if not (_KIND.fullmatch(kind) and _KEY.fullmatch(key)):
            raise ValueError(
                f"kind {kind!r} and key {key!r} become file names; expected small letters, "
                "digits and _, as key_of gives"
            )
        return self._folder / kind / f"{key}.npz"

    def _scan(self) -> OrderedDict[Path, int]:
        """Sizes of the entries, the longest unused first."""
        for folder in self._folder.glob("*"):
            remove_leftovers(folder)
        found = sorted((p.stat().st_mtime_ns, p, p.stat().st_size) for p in self._entries())
        return OrderedDict((path, size) for _, path, size in found)

    def _entries(self) -> list[Path]:
        return [p for p in self._folder.glob("*/*.npz") if p.is_file() and not p.is_symlink()]

    def _evict(self) -> None:
        while self._used > self._limit:
            self._drop(next(iter(self._sizes)))

    def _drop(self, path: Path) -> None:
        remove_file(path)
        self._used -= self._sizes.pop(path)


def _encode(arrays: Mapping[str, Array], entry: str) -> dict[str, Array]:
    """Members for np.savez: numbered, as tensor names are not always fit for file names.

    A header lists what the npy format forgets: the names, the dtypes of ml_dtypes, strings.
    """
    members: dict[str, Array] = {}
    header = []
    for number, (name, array) in enumerate(arrays.items()):
        plain = _plain(array)
        members[f"a{number}"] = plain
        header.append([name, array.dtype.name, list(array.shape), _digest(plain)])
    text = json.dumps({"entry": entry, "arrays": header}).encode()
    members["header"] = np.frombuffer(text, np.uint8)
    return members


def _decode(path: Path, entry: str) -> dict[str, Array]:
    # Opened here, because np.load leaves a file open that is no archive.
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as members:
        header = json.loads(members["header"].tobytes())
        if header["entry"] != entry:
            raise ValueError(f"holds {header['entry']}")
        arrays = {}
        for number, (name, dtype, shape, digest) in enumerate(header["arrays"]):
            plain = members[f"a{number}"]
            if _digest(plain) != digest:
                raise ValueError(f"checksum of {name!r} differs")
            arrays[name] = _restored(plain, dtype).reshape(shape)
    return arrays


def _plain(array: Array) -> Array:
    """The array as one that npy files keep without loss and without pickle."""
    if array.dtype.hasobject:
        strings = array.ravel().tolist()
        if not all(isinstance(item, str) for item in strings):
            raise TypeError(f"an array of {array.dtype} holds objects; expected numbers or str")
        return np.frombuffer(json.dumps(strings).encode(), np.uint8)
    if array.dtype.isbuiltin == _USER_DEFINED:
        return np.asarray(array, order="C").view(f"u{array.dtype.itemsize}")
    return np.asarray(array, order="C")


def _restored(plain: Array, dtype: str) -> Array:
    if dtype == "object":
        return np.array(json.loads(plain.tobytes()), dtype=object)
    if hasattr(ml_dtypes, dtype):
        return plain.view(getattr(ml_dtypes, dtype))
    return plain


def _digest(plain: Array) -> str:
    digest = xxhash.xxh3_128(f"{plain.dtype.str}{plain.shape}".encode())
    digest.update(plain.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _save(target: Path, members: Mapping[str, Array]) -> None:
    with target.open("wb") as stream:
        np.savez(stream, **members)  # type: ignore[arg-type]  # no member is a keyword's name
