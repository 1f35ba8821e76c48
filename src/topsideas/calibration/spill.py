"""Arrays of many samples within a bound of memory: what does not fit lies in temporary files."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy as np

from topsideas.engines.workplace import Folder
from topsideas.errors import WorkspaceError
from topsideas.workspace.arrays import ArrayCache
from topsideas.workspace.files import os_errors

Arrays = dict[str, Any]

_KIND, _UNBOUNDED = "outputs", 1 << 62


class SpilledArrays:
    """Named arrays by number. Not safe to use from several threads at once.

    Args:
        limit: Bytes that are held in memory; sequences and strings are held whatever they take.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._held: OrderedDict[int, Arrays] = OrderedDict()
        self._spilled: set[int] = set()
        self._folder: Folder | None = None

    def __contains__(self, number: int) -> bool:
        return number in self._held or number in self._spilled

    def put(self, number: int, arrays: Arrays) -> None:
        """Keep arrays. Raises WorkspaceError if the disk is full."""
        if number in self:
            return
        self._held[number] = arrays
        self._bytes += _size(arrays.values())
        while self._bytes > self._limit and (oldest := self._movable()) is not None:
            self._spill(oldest)

    def get(self, number: int) -> Arrays:
        """The arrays. Raises KeyError, or WorkspaceError if a file was damaged."""
        if number not in self._spilled:
            return self._held[number]
        found = self._files().get(_KIND, f"s{number}")
        if found is None:
            raise WorkspaceError(
                f"the temporary file of the golden outputs of sample {number} was removed or "
                "damaged; expected it to stay as long as the run. Run again"
            )
        return found

    def _movable(self) -> int | None:
        return next((n for n, arrays in self._held.items() if _is_plain(arrays.values())), None)

    def _spill(self, number: int) -> None:
        files = self._files()
        with os_errors(self._opened().path, "keep golden outputs in temporary files"):
            files.put(_KIND, f"s{number}", self._held[number])
        self._spilled.add(number)
        self._bytes -= _size(self._held.pop(number).values())

    def _opened(self) -> Folder:
        if self._folder is None:
            self._folder = Folder()
            self._cache = ArrayCache(self._folder.path, _UNBOUNDED)
        return self._folder

    def _files(self) -> ArrayCache:
        self._opened()
        return self._cache


def _is_plain(values: Iterable[object]) -> bool:
    return all(isinstance(v, np.ndarray) and not v.dtype.hasobject for v in values)


def _size(values: Iterable[Any]) -> int:
    return sum(v.nbytes for v in values if isinstance(v, np.ndarray))
