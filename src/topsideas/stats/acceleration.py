"""Which loops count: compiled ones where the extra ``fast`` is installed, else numpy's."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any


@cache
def fused() -> Any | None:
    """The module :mod:`topsideas.stats.fused`; None where numba is missing or does not fit."""
    try:
        return import_module("topsideas.stats.fused")
    except ImportError:
        return None
