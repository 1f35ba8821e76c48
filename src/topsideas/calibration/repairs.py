"""Repairs that are cheaper than fp32, suggested only after the judge has passed them.

Each is tried by itself on the answer: the ops it frees run low, all others stay as they were, and
every sample must pass in every execution that is asked of an answer. Those that pass and free
different ops are then judged once more, together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from topsideas.calibration.artefacts import Place
from topsideas.calibration.journal import Journal, MemoryStore
from topsideas.calibration.judge import Judge
from topsideas.calibration.pricing import prices_of
from topsideas.calibration.problem import Problem
from topsideas.calibration.progress import Progress
from topsideas.engines.base import Engine
from topsideas.errors import EngineError, ModelError
from topsideas.graph.fusing import fuse_layer_normalization
from topsideas.graph.loading import Model, load_model
from topsideas.graph.repairs import (
    Change,
    ClampConstants,
    ClampOutputs,
    NotApplicable,
    RaiseConstants,
    SplitConstants,
    Workbench,
)
from topsideas.graph.rescaling import Rescale
from topsideas.plan import PrecisionPlan
from topsideas.precision import BF16, FP16, Numerics, Overflow, Subnormals
from topsideas.verdict import Verdict

Json = dict[str, Any]
Opener = Callable[[Model, Numerics], Engine]

# A repaired model is another build: so many are judged at most, the first suggestions first.
_MOST = 12
# Copies of larger models are not made.
_BYTES = 1 << 29
_EXPONENTS, _SPLITS = range(1, 17), (4, 10)
_ZERO = np.float32(0)
_OVERFLOWS = {"output_overflow", "input_overflow"}


@dataclass(frozen=True, slots=True)
class _Idea:
    """A repair to try.

    Attributes:
        kind: What is done.
        frees: The kept ops that shall run low then.
        changes: Ways to do it, the mildest first; the first that passes is suggested.
    """

    kind: str
    frees: frozenset[int]
    changes: Sequence[Change]


@dataclass
class RepairSearch:
    """Looks for repairs of one answer.

    Args:
        problem: What the answer is for.
        plan: The answer.
        evidence: Why its ops stay; see :func:`topsideas.calibration.explain.evidence_of`.
        opener: Opens the engine that judges, for another model and low format.
        numerics: The low format.
        place: Where models that pass are written.
        progress: Shown to the user.
    """

    problem: Problem
    plan: PrecisionPlan
    evidence: Json
    opener: Opener
    numerics: Numerics
    place: Place
    progress: Progress
    tried: int = 0
    _passed: list[tuple[frozenset[int], Change]] = field(default_factory=list)

    def run(self) -> Json:
        """What was verified: ``tried``, and ``found`` with one object per repair."""
        self.progress.phase("trying repairs")
        self._total = self._cost(self.problem.model, self.problem.engine, self.plan)
        ideas = [] if self._is_too_large() else list(self._ideas())
        found = [repair for idea in ideas if (repair := self._try(idea)) is not None]
        found += [repair for repair in (self._together(), self._bf16()) if repair is not None]
        return {"tried": self.tried, "found": found}

    def _is_too_large(self) -> bool:
        weights = (v.const_value for v in self.problem.model.graph.initializers.values())
        return sum(w.nbytes for w in weights if w is not None) > _BYTES

    def _ideas(self) -> Iterator[_Idea]:
        causes = {row["id"]: row for row in self.evidence["causes"]}
        free = self.plan.kept - self.problem.settings.must_keep
        causes = {op: cause for op, cause in causes.items() if op in free}
        precision = self.numerics.precision
        if self._may_normalise(free):
            yield _Idea("fuse_layernorm", frozenset(), [fuse_layer_normalization])
        for ops in _by_constant(causes, {"mask_sentinel", "constant_overflow"}):
            yield _Idea("clamp_constant", ops, [ClampConstants(ops, precision.max)])
        for ops in _by_constant(causes, {"constant_overflow"}):
            splits = [SplitConstants(ops, e) for e in _SPLITS]
            yield _Idea("split_constant", ops, splits)
        for ops in _from_epsilon(causes):
            steps = [precision.smallest, precision.smallest_normal]
            vanishing = precision.smallest / 2
            if self.numerics.subnormals is Subnormals.FLUSH:
                steps, vanishing = steps[1:], float(np.nextafter(np.float32(steps[1]), _ZERO))
            raised = [RaiseConstants(ops, vanishing, step) for step in steps]
            yield _Idea("raise_epsilon", ops, raised)
        yield from self._of_islands(causes)

    def _may_normalise(self, kept: frozenset[int]) -> bool:
        """Whether a kept op may be part of a normalisation that is spelled out."""
        types = {op.type for op in self.problem.model.ops if op.id in kept}
        return bool(types & {"ReduceMean", "Pow", "Sqrt", "Sub"})

    def _of_islands(self, causes: Mapping[int, Json]) -> Iterator[_Idea]:
        limit = self.numerics.precision.max
        most = {
            row["id"]: row["range"]["most"]
            for row in self.evidence["ops"]
            if row["range"] is not None and row["range"]["most"] is not None
        }
        reads = {row["id"]: row["reads"] for row in self.evidence["ops"]}
        over = {op for op, cause in causes.items() if cause["cause"] in _OVERFLOWS}
        for island in _connected(over, reads):
            sources = [op for op in sorted(island) if not island & set(reads.get(op, ()))]
            if len(sources) == 1:
                scales = [Rescale(sources[0], e, most, limit) for e in _EXPONENTS]
                yield _Idea("rescale", island, scales)
            writers = tuple(op for op in sorted(island) if most.get(op, 0.0) > limit)
            if writers and self.numerics.overflow is Overflow.INF:
                yield _Idea("clamp_output", island, [ClampOutputs(writers, limit)])

    def _try(self, idea: _Idea) -> Json | None:
        """The first way that fits the graph and passes, of two that do fit."""
        judged = 0
        for change in idea.changes:
            if judged == 2 or self.tried >= _MOST:
                break
            bench = Workbench(self.problem.model.graph_model)
            try:
                words = change(bench)
            except NotApplicable:
                continue
            judged += 1
            found = self._judged(idea, bench, words)
            if found is not None:
                self._passed.append((frozenset(found["frees"]), change))
                return found
        return None

    def _together(self) -> Json | None:
        """All that passed and frees other ops than the ones before: two may spoil each other."""
        freed: frozenset[int] = frozenset()
        chosen: list[Change] = []
        for frees, change in self._passed:
            if not frees & freed:
                chosen.append(change)
                freed |= frees
        if len(chosen) < 2 or self.tried >= _MOST:
            return None
        bench = Workbench(self.problem.model.graph_model)
        try:
            words = [line for change in chosen for line in change(bench)]
        except NotApplicable:
            return None
        return self._judged(_Idea("together", freed, chosen), bench, words)

    def _judged(self, idea: _Idea, bench: Workbench, words: list[str]) -> Json | None:
        self.tried += 1
        self.progress.measured(self.tried, _MOST)
        try:
            proto, ids = bench.finished()
            model = load_model(proto, self.numerics.precision)
            frees = idea.frees | (self.plan.kept - set(ids))
            if frees & self.problem.settings.must_keep:
                return None
            kept = self.plan.kept - frees
            plan = PrecisionPlan(frozenset(new for new, old in enumerate(ids) if old in kept))
            if not frees or len(model.ops) != len(ids) or not plan.kept <= model.candidates:
                return None
            found = self._suggestion(idea.kind, frees, words, model, self.numerics, plan)
        except (EngineError, ModelError):
            return None  # what cannot be built or run is no suggestion
        return None if found is None else found | {"model": self._save(idea.kind, proto)}

    def _suggestion(
        self,
        kind: str,
        frees: frozenset[int],
        changes: list[str],
        model: Model,
        numerics: Numerics,
        plan: PrecisionPlan,
    ) -> Json | None:
        """A repair that passes and is cheaper; its model is not written yet."""
        engine = self.opener(model, numerics)
        verdict = self._verdict(engine, plan)
        cost = self._cost(model, engine, plan)
        if not verdict.passed or cost >= self._total:
            return None
        return {
            "kind": kind,
            "frees": sorted(frees),
            "changes": changes,
            "size": len(plan.kept),
            "cost": (cost - self._total) / self._total,
            "verdict": verdict.to_json(),
            "model": None,
            "fp32_nodes": plan.ids,
        }

    def _save(self, kind: str, model: onnx.ModelProto) -> str:
        """Write the repaired fp32 model, from which the one to deploy is made."""
        path = self.place.path(f"repairs/{kind}_{self.tried}.onnx")
        path.write_bytes(model.SerializeToString())
        return str(path)

    def _verdict(self, engine: Engine, plan: PrecisionPlan) -> Verdict:
        """As an answer is judged: every sample, in every execution there is, and the held ones."""
        settings = replace(self.problem.settings, must_keep=frozenset())
        judge = Judge(engine, self.problem.references, settings)
        judge.strict = True
        verdict = judge.full_margin(plan.kept)
        if verdict.passed:
            verdict = judge.other_verdict(plan.kept) or verdict
        if verdict.passed and self.problem.held is not None:
            held = Judge(engine, self.problem.held, settings).full_margin(plan.kept)
            verdict = verdict if held.passed else held
        return verdict

    def _cost(self, model: Model, engine: Engine, plan: PrecisionPlan) -> float:
        journal = Journal(MemoryStore(), {}, {})
        references, precision = self.problem.references, self.numerics.precision
        prices = prices_of(model, engine, precision, references, journal)
        return prices.floor + prices.cost(plan.kept & model.candidates)

    def _bf16(self) -> Json | None:
        """The whole network in the format with fp32's range, with nothing kept but what must."""
        movable = self.plan.kept - self.problem.settings.must_keep
        if self.numerics.precision is not FP16 or not movable or self.tried >= _MOST:
            return None
        if self._is_too_large():
            return None
        self.tried += 1
        words = ["every candidate op in bf16: --precision bf16"]
        try:
            proto, _ = Workbench(self.problem.model.graph_model).finished()
            plan = PrecisionPlan(self.plan.kept & self.problem.settings.must_keep)
            numerics = replace(self.numerics, precision=BF16)
            model = load_model(proto, BF16)
            return self._suggestion("bf16", movable, words, model, numerics, plan)
        except (EngineError, ModelError):
            return None


def _by_constant(causes: Mapping[int, Json], kinds: set[str]) -> Iterator[frozenset[int]]:
    """Kept ops that suffer from the same constant."""
    groups: dict[str, set[int]] = {}
    for op, cause in causes.items():
        if cause["cause"] in kinds and cause["born"]["op"] is None:
            groups.setdefault(cause["born"]["value"], set()).add(op)
    yield from (frozenset(ops) for _, ops in sorted(groups.items()))


def _from_epsilon(causes: Mapping[int, Json]) -> Iterator[frozenset[int]]:
    """A constant that vanishes, and the ops that then read zero."""
    guards = {op: c for op, c in causes.items() if c["cause"] == "epsilon_underflow"}
    for op, cause in sorted(guards.items()):
        if cause["born"]["op"] is not None:
            continue
        group = {op}
        for _ in guards:  # as often as a chain can be long
            group |= {o for o, c in guards.items() if c["born"]["op"] in group}
        yield frozenset(group)


def _connected(ops: set[int], reads: Mapping[int, Sequence[int]]) -> Iterator[frozenset[int]]:
    """Ops in groups that hand values to each other."""
    left = set(ops)
    while left:
        island, edge = set(), {min(left)}
        while edge:
            island |= edge
            near = {i for op in edge for i in reads.get(op, ())}
            near |= {op for op in left if edge & set(reads.get(op, ()))}
            edge = (near & left) - island
        left -= island
        yield frozenset(island)
