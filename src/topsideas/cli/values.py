"""What the values of flags must be: types of arguments, which say what was expected."""

from __future__ import annotations

import argparse
import contextlib
import math

from topsideas.engines.options import memory_size


def memory(text: str) -> int:
    """Bytes, like ``8G`` or ``512M``."""
    try:
        return memory_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str) -> int:
    """A whole number of at least 1."""
    return _whole(text, 1)


def count(text: str) -> int:
    """A whole number of at least 0."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    with contextlib.suppress(ValueError):
        if (number := int(text)) >= least:
            return number
    raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least {least}")


def seconds(text: str) -> float:
    """A number of seconds above 0."""
    with contextlib.suppress(ValueError):
        if math.isfinite(number := float(text)) and number > 0:
            return number
    raise argparse.ArgumentTypeError(f"{text!r}: expected a number of seconds above 0")
