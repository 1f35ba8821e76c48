"""The evidence behind an answer: value ranges, errors along the network, and why each op stays.

Runs are watched side by side and a tensor is dropped once it was looked at, so memory holds what
a few runs hold at one moment, however many ops and samples there are.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from topsideas.calibration.causes import AVERAGING, Cause, Error, Facts, cause_of
from topsideas.calibration.progress import Progress
from topsideas.calibration.references import References
from topsideas.calibration.statistics import side_by_side
from topsideas.engines.base import Engine, OpRecord
from topsideas.graph.wiring import Source
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics
from topsideas.stats.criteria import Criterion, finite, margin
from topsideas.stats.deviation import Deviation
from topsideas.stats.magnitudes import Magnitudes
from topsideas.stats.symptoms import Symptoms

# Samples whose value ranges are looked at; more change the picture little.
_RANGED = 8
# Kept ops whose removal is watched, the worst first: each costs a traced run.
_WATCHED = 24
# Runs without one op that are watched beside the answer's run.
_BATCH = 3

Json = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """What evidence is about.

    Attributes:
        engine: Is traced; may be the emulator where another one gave the verdict.
        measured: Whether a device gave the verdict, which may add up in the low format.
        candidates: Ids of the ops that may run low.
        must: What every plan keeps.
        references: The samples.
        criterion: What margins are measured by.
        numerics: The low format.
        types: For each op its operator.
        reads: For each op the ops it reads from.
        sources: For each op that may run low, where what it rounds comes from.
    """

    engine: Engine
    measured: bool
    candidates: frozenset[int]
    must: frozenset[int]
    references: References
    criterion: Criterion
    numerics: Numerics
    types: Mapping[int, str]
    reads: Mapping[int, Sequence[int]]
    sources: Mapping[int, Sequence[Source]]


@dataclass
class EvidenceRun:
    """Gathers the evidence for one plan.

    Args:
        subject: What it is about.
        progress: Shown to the user.
    """

    subject: Subject
    progress: Progress
    _done: int = 0
    _total: int = field(default=1)

    def run(self, plan: PrecisionPlan, hardest: int, needed: Mapping[int, int]) -> Json:
        """Everything that is known of a plan, as strict JSON; see ``docs/report.md``.

        Args:
            plan: The ops kept in fp32.
            hardest: The sample on which all ops low are furthest off.
            needed: For each kept op to explain, the worst first, the sample that fails without
                it.

        Raises:
            EngineError: A run fails.
        """
        subject = self.subject
        ranged = _spread_out(subject.references.ids, hardest)
        watched = dict(list(needed.items())[:_WATCHED])
        batches = list(_batches(watched))
        unwatched = [op for op in needed if op not in watched]
        self._total = len(ranged) + len(batches) + len(subject.references.ids) + bool(unwatched)
        self.progress.phase("evidence")
        ops = self._ops(plan, hardest, ranged)
        causes = self._causes(plan, batches)
        if unwatched:
            causes |= self._explained(plan, hardest, (), unwatched)
        return {
            "engine": subject.engine.identity().to_json(),
            "sample": hardest,
            "samples": ranged,
            "format": _format(subject.numerics),
            "ops": ops,
            "all_low_margins": self._margins(),
            "causes": [{"id": op, **causes[op].to_json()} for op in needed if op in causes],
        }

    def _step(self) -> None:
        self._done += 1
        self.progress.measured(self._done, self._total)

    def _trace(self, kept: frozenset[int], sample: int) -> Any:
        executable = self.subject.engine.compile(PrecisionPlan(kept))
        return executable.trace(self.subject.references.inputs(sample))

    def _ops(self, plan: PrecisionPlan, hardest: int, ranged: Sequence[int]) -> list[Json]:
        """Value ranges in fp32, and on the hardest sample the errors of all low and the plan."""
        ranges: dict[int, Magnitudes] = defaultdict(lambda: Magnitudes(self.subject.numerics))
        inside: dict[int, float] = defaultdict(float)
        errors: tuple[dict[int, Deviation], ...] = (defaultdict(Deviation), defaultdict(Deviation))
        for sample in ranged:
            runs = [self.subject.candidates]
            runs += [self.subject.must, plan.kept] if sample == hardest else []
            traces = [self._trace(kept, sample) for kept in runs]
            for op, (fp32, *others) in side_by_side(traces):
                for array in _arrays(fp32):
                    ranges[op].add(array)
                if fp32 is not None and self.subject.types.get(op) in AVERAGING:
                    inside[op] = max(inside[op], _sum_inside(fp32))
                for found, record in zip(errors, others, strict=False):
                    _compare(found[op], record, fp32)
            self._step()
        return [
            {
                "id": op,
                "reads": list(self.subject.reads.get(op, ())),
                "range": asdict(spread) if (spread := ranges[op].spread()) is not None else None,
                "all_low": _error_json(errors[0].get(op)),
                "plan": _error_json(errors[1].get(op)),
                **({"inside": inside[op]} if op in inside else {}),
            }
            for op in sorted({*ranges, *errors[0], *errors[1]})
        ]

    def _causes(
        self, plan: PrecisionPlan, batches: Sequence[tuple[int, list[int]]]
    ) -> dict[int, Cause]:
        found: dict[int, Cause] = {}
        for sample, ops in batches:
            found |= self._explained(plan, sample, ops, ops)
            self._step()
        return found

    def _explained(
        self, plan: PrecisionPlan, sample: int, removed: Sequence[int], ops: Collection[int]
    ) -> dict[int, Cause]:
        """The causes of ``ops``, with the runs without each of ``removed`` watched beside."""
        wanted = frozenset(ops)
        seen: dict[int, _Seen] = {op: _Seen() for op in ops}
        errors: list[dict[int, Deviation]] = [defaultdict(Deviation) for _ in removed]
        plans = [plan.kept, *(plan.kept - {op} for op in removed)]
        for op, (answer, *others) in side_by_side([self._trace(p, sample) for p in plans]):
            if op in wanted and answer is not None:
                seen[op].add(answer, self._sources(op, answer), self.subject.numerics)
            for found, record in zip(errors, others, strict=True):
                _compare(found[op], record, answer)
        without = {
            op: {i: Error(d.relative, d.broken, d.nan) for i, d in found.items() if d.elements}
            for op, found in zip(removed, errors, strict=True)
        }
        return {op: cause_of(self._facts(op, seen[op], without.get(op, {}))) for op in ops}

    def _sources(self, op: int, record: OpRecord) -> Sequence[Source]:
        known = self.subject.sources.get(op, ())
        if len(known) == len(record.slot_inputs):
            return known
        return [Source(None, "", constant=False)] * len(record.slot_inputs)

    def _facts(self, op: int, seen: _Seen, without: Mapping[int, Error]) -> Facts:
        subject = self.subject
        low_sums = subject.numerics.accumulation.value == "low"
        return Facts(
            id=op,
            type=subject.types.get(op, ""),
            inputs=[(source, found) for source, found in seen.inputs if found.elements],
            output=seen.output,
            inside=seen.inside if subject.types.get(op) in AVERAGING else 0.0,
            narrow=low_sums or subject.measured,
            numerics=subject.numerics,
            without=without,
            reads=subject.reads,
            types=subject.types,
        )

    def _margins(self) -> list[Json]:
        """Per sample and output, the margin with nothing kept but what must be."""
        executable = self.subject.engine.compile(PrecisionPlan(self.subject.must))
        found = []
        for sample in self.subject.references.ids:
            outputs = executable.run(self.subject.references.inputs(sample))
            golden = self.subject.references.golden(sample)
            margins = {n: margin(outputs[n], r, self.subject.criterion) for n, r in golden.items()}
            found.append({n: finite(m) for n, m in margins.items()})
            self._step()
        return found


@dataclass
class _Seen:
    """What was seen of a kept op, over the turns of a loop."""

    inputs: list[tuple[Source, Symptoms]] = field(default_factory=list)
    output: Symptoms = field(default_factory=Symptoms)
    inside: float = 0.0

    def add(self, record: OpRecord, sources: Sequence[Source], numerics: Numerics) -> None:
        found = [Symptoms.of(np.asarray(a), numerics) for a in record.slot_inputs]
        old = [s for _, s in self.inputs] or [Symptoms()] * len(found)
        self.inputs = [
            (source, before.joined(now))
            for source, before, now in zip(sources, old, found, strict=False)
        ]
        for array in _arrays(record):
            self.output = self.output.joined(Symptoms.of(array, numerics))
        self.inside = max(self.inside, _sum_inside(record))


def _spread_out(samples: Sequence[int], hardest: int) -> list[int]:
    """Up to so many samples, evenly spread, the hardest among them."""
    step = max(1, math.ceil(len(samples) / _RANGED))
    chosen = {*samples[::step], hardest}
    return sorted(chosen)


def _batches(watched: Mapping[int, int]) -> Iterator[tuple[int, list[int]]]:
    """(sample, ops) to watch together."""
    by_sample: dict[int, list[int]] = defaultdict(list)
    for op, sample in watched.items():
        by_sample[sample].append(op)
    for sample, ops in by_sample.items():
        for start in range(0, len(ops), _BATCH):
            yield sample, ops[start : start + _BATCH]


def _arrays(record: OpRecord | None) -> Iterator[np.ndarray]:
    for value in () if record is None else record.outputs:
        if isinstance(value, np.ndarray):
            yield value


def _sum_inside(record: OpRecord) -> float:
    """The largest finite sum that an averaging op holds before it divides."""
    mean = next(_arrays(record), None)
    if mean is None or not mean.size or not record.slot_inputs:
        return 0.0
    terms = np.asarray(record.slot_inputs[0]).size / mean.size
    magnitudes = np.abs(mean)
    return float(np.max(magnitudes, initial=0.0, where=np.isfinite(mean))) * terms


def _compare(deviation: Deviation, out: OpRecord | None, ref: OpRecord | None) -> None:
    if out is None or ref is None:
        return
    for left, right in zip(out.outputs, ref.outputs, strict=False):
        if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
            deviation.add(left, right)


def _error_json(deviation: Deviation | None) -> Json | None:
    if deviation is None or not deviation.elements:
        return None
    return {"error": deviation.relative, "broken": deviation.broken}


def _format(numerics: Numerics) -> Json:
    precision = numerics.precision
    return {
        "name": precision.name,
        "max": precision.max,
        "normal": precision.smallest_normal,
        "smallest": precision.smallest,
        "step": 2.0**-precision.digits,
    }
