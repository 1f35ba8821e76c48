"""Samples with their golden outputs; those that were not given are computed in fp32."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, Protocol

import numpy as np

from topsideas.calibration.heap import Heap
from topsideas.calibration.settings import SAMPLE_BYTES
from topsideas.calibration.spill import SpilledArrays
from topsideas.engines.base import Engine, Once, Runnable
from topsideas.errors import SampleError
from topsideas.plan import PrecisionPlan
from topsideas.samples.sample import Sample

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


def fp32_runner(engine: Engine, candidates: frozenset[int]) -> Runnable:
    """What runs a model with every op in fp32, for a single use. Raises EngineError."""
    executable = engine.compile(PrecisionPlan(candidates))
    return executable.once() if isinstance(executable, Once) else executable


class References:
    """The samples of a run, read when needed, with golden outputs for all of them.

    Args:
        sources: The samples.
        fp32: Opens what runs the model in fp32.
        own: Whether the engine's own fp32 runs are as good.
        digests: What each sample must hold whenever it is read; not compared where None.
        limit: Bytes of samples to hold, and of computed golden outputs; what does not fit is
            read again.

    Attributes:
        own: The same.
    """

    def __init__(
        self,
        sources: Sequence[SampleSource],
        fp32: Callable[[], Runnable],
        *,
        own: bool = True,
        digests: Mapping[int, Sequence[str | None]] | None = None,
        limit: int = SAMPLE_BYTES,
    ) -> None:
        self._sources = {source.id: source for source in sources}
        self._fp32 = fp32
        self.own = own
        self._digests = digests or {}
        self._cache: OrderedDict[int, Sample] = OrderedDict()
        self._computed = SpilledArrays(limit)
        self._as_run: set[int] = set()
        self._limit, self._bytes = limit, 0
        self._heap = Heap(limit // 16)
        self._caching, self._computing = Lock(), Lock()

    @property
    def ids(self) -> list[int]:
        """The sample ids in ascending order."""
        return sorted(self._sources)

    def sample(self, sample: int) -> Sample:
        """The sample itself. Raises SampleError, also if it is not what it was at the start."""
        with self._caching:
            found = self._cache.get(sample)
        if found is None:
            found = self._unchanged(self._sources[sample].load())
            self._check_shapes(found)
            with self._caching:
                if sample not in self._cache:  # else another thread read it meanwhile
                    self._cache[sample] = found
                    self._bytes += _size(found)
                while self._bytes > self._limit and len(self._cache) > 1:
                    size = _size(self._cache.popitem(last=False)[1])
                    self._bytes -= size
                    self._heap.freed(size)
        return found

    def _unchanged(self, sample: Sample) -> Sample:
        known = self._digests.get(sample.id)
        if known is not None and list(known) != [sample.inputs_digest, sample.golden_digest]:
            raise SampleError(
                f"sample {sample.id}: its files changed during the run; expected the arrays that "
                "were read at its start, which all results so far belong to. Remedy: run again "
                "when nothing writes to the samples any more"
            )
        return sample

    def _check_shapes(self, sample: Sample) -> None:
        """Of golden outputs whose shapes are not those declared, ask the model what it gives."""
        if sample.misfit is None or sample.golden is None or sample.id in self._as_run:
            return
        found = self._fp32().run(sample.inputs)
        if any(np.shape(found[name]) != array.shape for name, array in sample.golden.items()):
            raise SampleError(sample.misfit)
        self._as_run.add(sample.id)

    def inputs(self, sample: int) -> Arrays:
        """What the model is fed."""
        return self.sample(sample).inputs

    def size(self, sample: int) -> int:
        """How many bytes a sample's arrays take. Raises SampleError."""
        return _size(self.sample(sample))

    def is_given(self, sample: int) -> bool:
        """Whether the golden outputs came with the sample."""
        return self.sample(sample).golden is not None

    def golden(self, sample: int, fp32: Arrays | None = None) -> Arrays:
        """The golden outputs by name, in the model's order. Raises SampleError.

        Args:
            sample: The sample's id.
            fp32: What the engine gave for it in fp32, if it ran: then it may not have to run
                again.
        """
        given = self.sample(sample).golden
        if given is not None:
            return given
        if fp32 is not None and self.own:
            with self._computing:
                self._keep(sample, fp32)
        with self._computing:
            if sample not in self._computed:
                self._compute()
            return self._computed.get(sample)

    def _compute(self) -> None:
        """Run every sample that has no golden outputs; what runs them is open only meanwhile."""
        runner = self._fp32()
        for sample in self.ids:
            if sample not in self._computed and not self.is_given(sample):
                self._keep(sample, runner.run(self.inputs(sample)))

    def _keep(self, sample: int, outputs: Arrays) -> None:
        _refuse_nan(sample, outputs)
        self._computed.put(sample, outputs)


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
