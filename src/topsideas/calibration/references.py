"""Samples with their golden outputs; those that were not given are computed in fp32."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from topsideas.errors import SampleError
from topsideas.samples.sample import Sample

# Samples are read again when they do not fit; the arrays of a working set should stay.
_CACHE_BYTES = 1 << 30

Arrays = dict[str, Any]


class SampleSource(Protocol):
    """A sample, or the file of one."""

    @property
    def id(self) -> int:
        """The sample's number."""
        ...

    def load(self) -> Sample:
        """Read it. Raises SampleError."""
        ...


class References:
    """The samples of a run, read when needed, with golden outputs for all of them.

    Args:
        sources: The samples.
        fp32: Computes the outputs of the model in fp32.
    """

    def __init__(self, sources: Sequence[SampleSource], fp32: Callable[[Arrays], Arrays]) -> None:
        self._sources = {source.id: source for source in sources}
        self._fp32 = fp32
        self._cache: OrderedDict[int, Sample] = OrderedDict()
        self._computed: dict[int, Arrays] = {}
        self._bytes = 0

    @property
    def ids(self) -> list[int]:
        """The sample ids in ascending order."""
        return sorted(self._sources)

    def sample(self, sample: int) -> Sample:
        """The sample itself. Raises SampleError."""
        found = self._cache.get(sample)
        if found is None:
            found = self._sources[sample].load()
            self._cache[sample] = found
            self._bytes += _size(found)
            while self._bytes > _CACHE_BYTES and len(self._cache) > 1:
                self._bytes -= _size(self._cache.popitem(last=False)[1])
        return found

    def inputs(self, sample: int) -> Arrays:
        """What the model is fed."""
        return self.sample(sample).inputs

    def size(self, sample: int) -> int:
        """How many bytes a sample's arrays take. Raises SampleError."""
        return _size(self.sample(sample))

    def is_given(self, sample: int) -> bool:
        """Whether the golden outputs came with the sample."""
        return self.sample(sample).golden is not None

    def golden(self, sample: int) -> Arrays:
        """The golden outputs by name, in the model's order. Raises SampleError."""
        given = self.sample(sample).golden
        if given is not None:
            return given
        if sample not in self._computed:
            outputs = self._fp32(self.inputs(sample))
            _refuse_nan(sample, outputs)
            self._computed[sample] = outputs
        return self._computed[sample]


def _refuse_nan(sample: int, outputs: Arrays) -> None:
    for name, value in outputs.items():
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and np.isnan(value).any():
            raise SampleError(
                f"sample {sample}: the model gives NaN in output {name!r} even in fp32, so there "
                "is no reference to compare with; expected numbers. Check the inputs"
            )


def _size(sample: Sample) -> int:
    arrays = [*sample.inputs.values(), *(sample.golden or {}).values()]
    return sum(array.nbytes for array in arrays)
