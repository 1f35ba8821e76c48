"""Why an op must stay in fp32: rules on what was measured at it, the first that holds decides.

The order is that of how much a fact explains: a value that the format cannot hold explains more
than one that it holds inexactly. Every rule looks at the op as it runs in the answer, where its
inputs are good, and where it helps also at the run of the answer without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from topsideas.graph.wiring import Source
from topsideas.precision import Numerics
from topsideas.stats.criteria import finite
from topsideas.stats.symptoms import Symptoms

# An error that grows by more than this from what an op reads to what it writes is amplified.
_GROWS = 8.0
# A sum inside an op overflowed if the op's own output is off by more than this.
_WRONG = 0.05
# Values that vanish explain an error if they are at least this share of those that are not zero.
_MOSTLY = 0.5
# Most of a tensor is whole numbers that are stored as other ones.
_COUNTED = 0.25

# Ops that add or subtract, the means that a normalisation takes away included.
_ADDITIVE = {"Add", "Sub", "Sum", "Mean", "ReduceSum", "ReduceMean", "CumSum", "MatMul", "Gemm"}
_ADDITIVE |= {"Conv", "ConvTranspose", "Einsum", "GlobalAveragePool", "AveragePool"}
_ADDITIVE |= {f"{kind}Normalization" for kind in ("Batch", "Layer", "Group", "Instance", "RMS")}
# Ops that are infinite or steepest at zero, each with the input that must not become zero.
_SINGULAR = {"Log": 0, "Reciprocal": 0, "Div": 1, "Sqrt": 0, "Pow": 0}
# Ops that hold a sum before they divide it by the number of its terms.
AVERAGING = frozenset({"ReduceMean", "GlobalAveragePool", "AveragePool", "Mean"})


@dataclass(frozen=True, slots=True)
class Error:
    """How far one output of a run is off.

    Attributes:
        relative: ``‖out - ref‖₂ / ‖ref‖₂`` of the finite elements; None where undefined.
        broken: Elements that became NaN or infinite.
        nan: Whether there is a NaN among them.
    """

    relative: float | None
    broken: int = 0
    nan: bool = False

    @property
    def size(self) -> float:
        """The error as one number to compare by; infinite where something broke."""
        return math.inf if self.broken else (self.relative or 0.0)


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured at a kept op.

    Attributes:
        id: The op.
        type: Its operator.
        inputs: What it would round, as the answer feeds it, and where that comes from.
        output: Its outputs in the answer.
        inside: The largest sum that an averaging op holds inside; 0 for others.
        narrow: Whether the target may hold such a sum in the low format.
        without: By op, the errors of the answer without this op, in execution order; empty if
            that was not run.
        reads: For each op the ops it reads from.
        types: For each op its operator.
    """

    id: int
    type: str
    inputs: Sequence[tuple[Source, Symptoms]]
    output: Symptoms
    inside: float
    narrow: bool
    numerics: Numerics
    without: Mapping[int, Error]
    reads: Mapping[int, Sequence[int]]
    types: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an op must stay.

    Attributes:
        kind: One of the keys of :data:`RULES`, or ``rounding``.
        born: The op in which the value or the error arises; None if it is a constant or input.
        value: The constant's or input's name, else empty.
        figures: What the rule looked at, by name.
        shows: Where it shows first: ``op``, and ``how``: ``nan``, ``inf`` or ``error``, with the
            relative ``error``; None where the run without the op was not made or shows nothing.
    """

    kind: str
    born: int | None
    value: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)
    shows: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Strict JSON."""
        return {
            "cause": self.kind,
            "born": {"op": self.born, "value": self.value},
            "figures": {name: finite(value) for name, value in self.figures.items()},
            "shows": dict(self.shows) if self.shows is not None else None,
        }


_Found = tuple[int | None, str, dict[str, float]]


def cause_of(facts: Facts) -> Cause:
    """The cause by the first rule that holds; accumulated rounding if none does."""
    for kind, rule in RULES.items():
        found = rule(facts)
        if found is not None:
            born, value, figures = found
            return Cause(kind, born, value, figures, _shows(facts))
    return Cause("rounding", facts.id, "", _rounding_figures(facts), _shows(facts))


def _over_figures(symptoms: Symptoms, facts: Facts) -> dict[str, float]:
    share = symptoms.over / symptoms.elements
    return {"most": symptoms.most, "limit": facts.numerics.precision.max, "share": share}


def _from(source: Source) -> tuple[int | None, str]:
    computed = source.op is not None and not source.constant
    return (source.op, "") if computed else (None, source.name)


def _beyond(facts: Facts, *, constant: bool) -> Iterator[tuple[Source, Symptoms]]:
    return (
        (source, found)
        for source, found in facts.inputs
        if found.over and source.constant is constant
    )


def _mask_sentinel(facts: Facts) -> _Found | None:
    for is_constant in (True, False):
        for source, found in _beyond(facts, constant=is_constant):
            if found.sentinel:
                return *_from(source), _over_figures(found, facts)
    if facts.output.over and facts.output.sentinel:
        return facts.id, "", _over_figures(facts.output, facts)
    return None


def _constant_overflow(facts: Facts) -> _Found | None:
    for source, found in _beyond(facts, constant=True):
        return *_from(source), _over_figures(found, facts)
    return None


def _input_overflow(facts: Facts) -> _Found | None:
    for source, found in _beyond(facts, constant=False):
        return *_from(source), _over_figures(found, facts)
    return None


def _output_overflow(facts: Facts) -> _Found | None:
    if facts.output.over:
        return facts.id, "", _over_figures(facts.output, facts)
    return None


def _accumulation_overflow(facts: Facts) -> _Found | None:
    limit = facts.numerics.precision.max
    if not (facts.narrow and facts.inside > limit):
        return None
    own = facts.without.get(facts.id)
    if own is not None and own.size <= _WRONG:
        return None
    read = max((found.most for _, found in facts.inputs), default=0.0)
    figures = {"inside": facts.inside, "limit": limit, "read": read}
    return facts.id, "", figures | {"written": facts.output.most}


def _epsilon_underflow(facts: Facts) -> _Found | None:
    """A guard that becomes zero, in the op that adds it or in the one that needs it."""
    for index, (source, found) in enumerate(facts.inputs):
        all_vanish = found.vanishing and found.vanishing + found.zero == found.elements
        if source.constant and all_vanish and facts.output.vanishing:
            return *_from(source), _small_figures(found, facts)
        needs = facts.type in _SINGULAR and index == _SINGULAR[facts.type]
        if needs and not source.constant and found.vanishing:
            return *_from(source), _small_figures(found, facts)
    return None


def _small_figures(symptoms: Symptoms, facts: Facts) -> dict[str, float]:
    share = symptoms.vanishing / symptoms.elements
    return {"least": symptoms.least, "limit": facts.numerics.precision.smallest, "share": share}


def _underflow(facts: Facts) -> _Found | None:
    breaks = any(error.broken for error in facts.without.values())
    seen = [*facts.inputs, (Source(facts.id, "", constant=False), facts.output)]
    for source, found in seen:
        mostly = found.vanishing >= _MOSTLY * (found.elements - found.zero)
        if found.vanishing and (breaks or mostly):
            return *_from(source), _small_figures(found, facts)
    return None


def _integers(facts: Facts) -> _Found | None:
    seen = [*facts.inputs, (Source(facts.id, "", constant=False), facts.output)]
    for source, found in seen:
        counted = found.miscounted >= _COUNTED * (found.elements - found.zero)
        if found.whole and found.miscounted and counted:
            figures = {
                "most": found.most,
                "limit": 2.0**facts.numerics.precision.digits,
                "share": found.miscounted / found.elements,
            }
            return *_from(source), figures
    return None


def _cancellation(facts: Facts) -> _Found | None:
    return _grown(facts, additive=True)


def _amplified(facts: Facts) -> _Found | None:
    return _grown(facts, additive=False)


def _grown(facts: Facts, *, additive: bool) -> _Found | None:
    """Where the error grows most on its way through the network, from what is read."""
    growth = _growth(facts)
    if growth is None or growth[1] < _GROWS:
        return None
    op, factor, before, after = growth
    if (facts.types.get(op) in _ADDITIVE) is not additive:
        return None
    figures = {"factor": factor, "before": before, "after": after, "at": float(op)}
    return facts.id, "", figures


def _growth(facts: Facts) -> tuple[int, float, float, float] | None:
    """(op, factor, error read, error written) where the error grows most, in a finite run."""
    step = 2.0**-facts.numerics.precision.digits / 4  # less than values round by as a rule
    found = []
    for op, error in facts.without.items():
        after = error.relative
        if not after or error.broken:
            continue
        read = [
            facts.without[i].relative or 0.0 for i in facts.reads.get(op, ()) if i in facts.without
        ]
        if op == facts.id:
            read += [symptoms.error for _, symptoms in facts.inputs]
        before = max([*read, step])
        found.append((op, after / before, before, after))
    return max(found, key=lambda f: f[1], default=None)


def _rounding_figures(facts: Facts) -> dict[str, float]:
    own = facts.without.get(facts.id)
    figures = {"step": 2.0**-facts.numerics.precision.digits}
    return figures if own is None or own.relative is None else figures | {"born": own.relative}


def _shows(facts: Facts) -> dict[str, Any] | None:
    """The first op that breaks, else the one whose output is furthest off."""
    if not facts.without:
        return None
    broken = next((op for op, error in facts.without.items() if error.broken), None)
    if broken is not None:
        error = facts.without[broken]
        return {"op": broken, "how": "nan" if error.nan else "inf", "error": error.relative}
    worst = max(facts.without, key=lambda op: facts.without[op].size)
    if not facts.without[worst].size:
        return None
    return {"op": worst, "how": "error", "error": facts.without[worst].relative}


RULES: Mapping[str, Callable[[Facts], _Found | None]] = {
    "mask_sentinel": _mask_sentinel,
    "constant_overflow": _constant_overflow,
    "input_overflow": _input_overflow,
    "output_overflow": _output_overflow,
    "accumulation_overflow": _accumulation_overflow,
    "epsilon_underflow": _epsilon_underflow,
    "underflow": _underflow,
    "integers": _integers,
    "cancellation": _cancellation,
    "amplified_rounding": _amplified,
}
