"""Exceptions of other people's runtimes become ours, where they happen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from topsideas.errors import EngineError, TopsideasError

_LONGEST = 600


@contextmanager
def mapped(engine: str, what: str) -> Iterator[None]:
    """Turn whatever a runtime raises into EngineError.

    Args:
        engine: Who is asked.
        what: What it is asked to do, for the message: ``compiling the plan``.

    Raises:
        EngineError: The runtime raised something.
    """
    try:
        yield
    except TopsideasError:
        raise
    except Exception as error:  # runtimes raise kinds of their own, most of them from C++
        raise EngineError(f"{engine} failed while {what}: {brief(error)}") from error


def brief(error: BaseException) -> str:
    """A foreign message on one line, its end cut off."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 4] + " ..."
