"""One sample: the arrays a model is run on, and what it should answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np

from topsideas.errors import UsageError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Sample:
    """A checked sample.

    Attributes:
        id: Its number: from the file name, or its place in the list given from Python.
        inputs: Arrays by input name, in the model's order, each of the model's dtype.
        golden: The expected outputs by name, in the model's order; None if not given.
        misfit: How their shapes depart from those that the model declares; None if they do not.
    """

    id: int
    inputs: dict[str, Array]
    golden: dict[str, Array] | None
    misfit: str | None = None

    @cached_property
    def inputs_digest(self) -> str:
        """sha256 over the inputs' names, dtypes, shapes and bytes."""
        return arrays_digest(self.inputs)

    @cached_property
    def golden_digest(self) -> str | None:
        """sha256 over the golden outputs, None without them."""
        return None if self.golden is None else arrays_digest(self.golden)

    def load(self) -> Sample:
        """This sample, so that samples in memory and in files are used alike."""
        return self


class HasId(Protocol):
    """Anything numbered: a sample, or the file of one."""

    @property
    def id(self) -> int:
        """The sample's number."""
        ...


Item = TypeVar("Item", bound=HasId)


def split_holdout(items: Iterable[Item], k: int) -> tuple[list[Item], list[Item]]:
    """Set the ``k`` samples with the highest ids aside; returns (search, held), both by id.

    Raises:
        UsageError: ``k`` is negative or leaves nothing to search with.
    """
    ordered = sorted(items, key=lambda item: item.id)
    if not 0 <= k < max(len(ordered), 1):
        raise UsageError(
            f"cannot hold out {k} of {len(ordered)} samples: expected 0 or more, and at least one "
            "sample left to search with; hold out fewer or give more samples"
        )
    cut = len(ordered) - k
    return ordered[:cut], ordered[cut:]


def arrays_digest(arrays: Mapping[str, Array]) -> str:
    """sha256 over names, dtypes, shapes and bytes; the mapping's order does not matter."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        content = _content(array)
        # The length in the header keeps one array's bytes from passing for the next one's header.
        header = [name, array.dtype.name, list(array.shape), len(content)]
        digest.update(json.dumps(header).encode() + b"\n")
        digest.update(content)
    return digest.hexdigest()


def _content(array: Array) -> memoryview:
    if array.dtype == np.dtype(object):
        return memoryview(json.dumps(array.ravel().tolist()).encode())
    # Through uint8, because ml_dtypes arrays offer no buffer of their own.
    return np.asarray(array, order="C").reshape(-1).view(np.uint8).data
