"""Something that is made when it is first needed; one that fails, fails the same way again."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

from topsideas.errors import EngineError

T = TypeVar("T")


class Lazily(Generic[T]):
    """Makes a value once, whichever thread asks first.

    A build that crashes or hangs is not tried again for the next sample: it is the plan's fault.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []
        self._failure: EngineError | None = None
        self._lock = Lock()

    def __call__(self) -> T:
        """The value. Raises EngineError."""
        with self._lock:
            if self._failure is not None:
                raise EngineError(str(self._failure)) from self._failure
            if not self._made:
                try:
                    self._made.append(self._make())
                except EngineError as error:
                    self._failure = error
                    raise
        return self._made[0]
