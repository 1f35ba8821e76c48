"""A temporary folder that lasts as long as the engine that writes there."""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path


class Workplace:
    """Hands out paths of files that are gone when the engine is."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="topsideas-")
        self._numbers = count()

    def path(self, suffix: str) -> Path:
        """A path that no one has got before, in a folder of its own."""
        folder = Path(self._folder.name) / str(next(self._numbers))
        folder.mkdir()
        return folder / f"model{suffix}"
