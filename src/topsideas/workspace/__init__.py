"""What is kept between runs: fingerprint, journal, cached results."""

from __future__ import annotations

from topsideas.workspace.keys import key_of
from topsideas.workspace.workspace import Workspace

__all__ = ["Workspace", "key_of"]
