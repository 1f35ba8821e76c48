"""Temporary folders that last as long as what needs their files."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path


class Folder:
    """A folder that is gone when nobody refers to it any more.

    Attributes:
        path: Where it is.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="topsideas-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
