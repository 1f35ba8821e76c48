"""Manual mode: one fp32 run and one run under the plan, compared op by op and as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from topsideas.calibration.journal import Journal
from topsideas.calibration.progress import Progress
from topsideas.calibration.references import References
from topsideas.calibration.statistics import (
    FP32,
    LOW,
    OpFields,
    RunStatistics,
    calc,
    engine_counts,
    raw,
)
from topsideas.engines.base import Engine, OwnStatistics, Trace
from topsideas.plan import PrecisionPlan
from topsideas.stats.calc import Known, Thresholds
from topsideas.stats.criteria import Comparison, Criterion, compare

Arrays = dict[str, Any]


class ArrayStore(Protocol):
    """Keeps arrays by kind and key; may drop them."""

    def get_arrays(self, kind: str, key: str) -> dict[str, np.ndarray] | None:
        """The arrays, or None if they are not there any more."""
        ...

    def put_arrays(self, kind: str, key: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep arrays."""
        ...


@dataclass(frozen=True, slots=True)
class SampleStatistics:
    """What manual mode says about one sample.

    Attributes:
        sample: Its id.
        ops: For each op that ran, its fields by the specification.
        outputs: For each model output, the comparisons ``fp16_golden``, ``fp32_golden`` and
            ``fp16_fp32``.
    """

    sample: int
    ops: OpFields
    outputs: dict[str, dict[str, Comparison]]


@dataclass
class StatisticsRun:
    """Runs a model in fp32 and under a plan and compares.

    Args:
        engine: Runs both.
        candidates: Ids of the ops that may run low.
        references: The samples.
        mode: ``CALC``, ``RAW``, or ``OFF`` for the whole-network comparison only.
        thresholds: What CALC counts.
        criterion: What RAW and the whole-network comparison judge by.
        journal: Remembers runs, so that the next step repeats only what changed.
        arrays: Keeps the outputs of runs.
        progress: Shown to the user.
        threads: How many samples run side by side.
    """

    engine: Engine
    candidates: frozenset[int]
    references: References
    mode: str
    thresholds: Thresholds
    criterion: Criterion
    journal: Journal
    arrays: ArrayStore
    progress: Progress
    threads: int = 1
    _counted: Known = field(default_factory=dict)

    def run(self, plan: PrecisionPlan) -> list[SampleStatistics]:
        """Statistics of every sample. Raises EngineError."""
        samples = self.references.ids
        result = []
        self.progress.phase("statistics")
        for found in self._side_by_side(plan, samples):
            result.append(found)
            self.progress.measured(len(result), len(samples))
        return result

    def _side_by_side(
        self, plan: PrecisionPlan, samples: Sequence[int]
    ) -> Iterator[SampleStatistics]:
        pool = ThreadPoolExecutor(max(1, min(self.threads, len(samples))))
        try:
            yield from pool.map(lambda sample: self._sample(plan, sample), samples)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _sample(self, plan: PrecisionPlan, sample: int) -> SampleStatistics:
        collect = {"CALC": self._calc, "RAW": self._raw, "OFF": self._plain}[self.mode]
        ops, low, fp32 = collect(plan, sample)
        golden = self.references.golden(sample, fp32)
        return SampleStatistics(sample, ops, self._outputs(low, fp32, golden))

    def _calc(self, plan: PrecisionPlan, sample: int) -> tuple[OpFields, Arrays, Arrays]:
        limits = [self.thresholds.le, self.thresholds.ge]
        fp32 = self._known_run(
            ["calc", FP32, sample, *limits],
            lambda: self._count(self._fp32, sample, FP32),
        )
        low = self._known_run(
            ["calc", plan.ids, sample, *limits],
            lambda: self._count(plan, sample, LOW),
        )
        return _merged(low.ops, fp32.ops), low.outputs, fp32.outputs

    def _count(self, plan: PrecisionPlan, sample: int, prefix: str) -> RunStatistics:
        """What the engine itself counted, if it does; otherwise its tensors are counted."""
        executable = self.engine.compile(plan)
        if isinstance(executable, OwnStatistics):
            inputs, (le, ge) = (
                self.references.inputs(sample),
                (self.thresholds.le, self.thresholds.ge),
            )
            own = executable.statistics(inputs, le, ge)
            if own is not None:
                return engine_counts(*own, prefix)
        return calc(self._trace(plan, sample), prefix, self.thresholds, self._counted)

    def _raw(self, plan: PrecisionPlan, sample: int) -> tuple[OpFields, Arrays, Arrays]:
        # Both run again each time: keeping all tensors of a run costs more than running it.
        low, fp32 = self._trace(plan, sample), self._trace(self._fp32, sample)
        ops = raw(low, fp32, self.criterion)
        return ops, low.outputs, fp32.outputs

    def _plain(self, plan: PrecisionPlan, sample: int) -> tuple[OpFields, Arrays, Arrays]:
        inputs = self.references.inputs(sample)
        low, fp32 = self.engine.compile(plan), self.engine.compile(self._fp32)
        return {}, low.run(inputs), fp32.run(inputs)

    @property
    def _fp32(self) -> PrecisionPlan:
        return PrecisionPlan(self.candidates)

    def _trace(self, plan: PrecisionPlan, sample: int) -> Trace:
        return self.engine.compile(plan).trace(self.references.inputs(sample))

    def _known_run(self, key: list[Any], run: Callable[[], RunStatistics]) -> RunStatistics:
        """A run's counts from the journal and its outputs from the array store, or run now."""
        counts = self.journal.recall("statistics", key)
        outputs = self.arrays.get_arrays("outputs", self.journal.key("outputs", key))
        if counts is not None and outputs is not None:
            return RunStatistics({int(op): fields for op, fields in counts.items()}, outputs)
        found = run()
        # Outputs first: counts on record whose outputs a kill kept back would be made again.
        if all(isinstance(v, np.ndarray) for v in found.outputs.values()):
            self.arrays.put_arrays("outputs", self.journal.key("outputs", key), found.outputs)
        self.journal.record("statistics", key, {str(op): f for op, f in found.ops.items()})
        return found

    def _outputs(
        self, low: Arrays, fp32: Arrays, golden: Arrays
    ) -> dict[str, dict[str, Comparison]]:
        return {
            name: {
                "fp16_golden": compare(low[name], golden[name], self.criterion),
                "fp32_golden": compare(fp32[name], golden[name], self.criterion),
                "fp16_fp32": compare(low[name], fp32[name], self.criterion),
            }
            for name in golden
        }


def _merged(low: OpFields, fp32: OpFields) -> OpFields:
    """The fields of both runs op by op; an op that ran in one of them has only that one's."""
    return {op: _merged_op(low.get(op, {}), fp32.get(op, {})) for op in sorted({*low, *fp32})}


def _merged_op(low: dict[str, Any], fp32: dict[str, Any]) -> dict[str, Any]:
    left: Sequence[dict[str, Any]] = low.get("outputs", [])
    right: Sequence[dict[str, Any]] = fp32.get("outputs", [])
    count = max(len(left), len(right))
    outputs = [
        {**(left[i] if i < len(left) else {}), **(right[i] if i < len(right) else {})}
        for i in range(count)
    ]
    return {**low, **fp32, "outputs": outputs}
