"""What a target may do otherwise than the emulator's definition, and which of it one does.

A compiler fuses ops, so that nothing is rounded between them; a kernel may hold sums in the low
precision or flush subnormals. The control with every op low, which is built anyway, shows which
of these habits explains an engine's outputs best. Searched with them, the emulator proposes plans
that hold on the engine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from topsideas.engines.base import Arrays
from topsideas.graph.loading import Model
from topsideas.graph.ops import Op, op_id
from topsideas.graph.schemas import Slots

# Ops that compilers run at the end of the kernel before them.
_AT_THE_END = frozenset(
    [
        "Abs",
        "Add",
        "BatchNormalization",
        "Ceil",
        "Clip",
        "Div",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Log",
        "Max",
        "Min",
        "Mish",
        "Mul",
        "Neg",
        "PRelu",
        "Pow",
        "Reciprocal",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Sqrt",
        "Sub",
        "Swish",
        "Tanh",
        "ThresholdedRelu",
    ]
)
_TERMS = "adds terms low"
# A habit must explain an engine by so much better than the definition does to be taken for its.
_BETTER = 0.8
# Finite outputs are at most so unlike; those that are finite elsewhere are more, up to this.
_ELSEWHERE, _UNLIKE = 3.0, 4.0

Edges = Callable[[ir.Node, ir.Node], bool]


@dataclass(frozen=True, slots=True)
class Habit:
    """One way of being a target.

    Attributes:
        name: For reports.
        options: Compile options of the emulator.
        fuses: Whether nothing is rounded between two neighbours.
        key: What it is, for cache keys.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    fuses: Edges | None = None
    key: str = ""

    def applied(self, model: Model) -> Model:
        """The model whose ops round where this target rounds."""
        return model if self.fuses is None else _fused(model, self.fuses)

    @property
    def slow(self) -> bool:
        """Whether the emulator takes very much longer with it."""
        return self.options.get("accumulation") == "termwise"


def habits(kernels: Sequence[Collection[int]] = ()) -> list[Habit]:
    """All habits to try, the definition first.

    Args:
        kernels: Ops that an engine says it ran in one kernel, if it tells.
    """
    fusing: list[tuple[str, Edges | None]] = [
        ("by the definition", None),
        ("fuses activations", lambda _, after: after.op_type in _AT_THE_END),
        ("fuses all neighbours", lambda before, after: True),
    ]
    if kernels:
        of = {op: at for at, ops in enumerate(kernels) for op in ops if len(ops) > 1}
        fusing.append(("fuses as read back", lambda a, b: _together(of, a, b)))
    found = [Habit(name, {}, fuses, name) for name, fuses in fusing]
    for how, sums in (("sums low", "low"), (_TERMS, "termwise")):
        own = {"accumulation": sums}
        found += [Habit(f"{name}, {how}", own, fuses, name) for name, fuses in fusing]
    flush = {"subnormals": "flush"}
    return [*found, Habit("flushes subnormals", flush)]


def _together(of: Mapping[int, int], before: ir.Node, after: ir.Node) -> bool:
    return op_id(before) in of and of[op_id(before)] == of.get(op_id(after))


def _fused(model: Model, fuses: Edges) -> Model:
    inputs: dict[int, set[int]] = {op.id: set(op.slots.inputs) for op in model.ops}
    outputs: dict[int, set[int]] = {op.id: set(op.slots.outputs) for op in model.ops}
    candidates = model.candidates
    for before, at, after, into in _private_edges(model):
        both = op_id(before) in candidates and op_id(after) in candidates
        if both and into in inputs[op_id(after)] and fuses(before, after):
            outputs[op_id(before)].discard(at)
            inputs[op_id(after)].discard(into)
    changed = tuple(_with_slots(op, inputs[op.id], outputs[op.id]) for op in model.ops)
    return replace(model, ops=changed)


def _with_slots(op: Op, inputs: set[int], outputs: set[int]) -> Op:
    return replace(op, slots=Slots(frozenset(inputs), frozenset(outputs)))


def _private_edges(model: Model) -> Iterator[tuple[ir.Node, int, ir.Node, int]]:
    """Top-level tensors that one op alone reads: what a kernel need not write down."""
    given = set(model.graph.outputs)
    top = set(model.graph)
    for node in model.graph:
        for at, value in enumerate(node.outputs):
            uses = list(value.uses())
            if value not in given and len(uses) == 1 and uses[0].node in top:
                yield node, at, uses[0].node, uses[0].idx


def unlikeness(real: Arrays, emulated: Arrays, exact: Arrays) -> float:
    """How unlike an engine's error the emulated one is.

    Where ``r`` and ``e`` are the two errors, this is ``sqrt(2 (1 - cos) + log(|e| / |r|)^2)``: the
    first part tells whether they are the same numbers, the second whether they are as large. A
    plain distance would prefer what rounds next to nothing to what rounds as much, but otherwise.

    Args:
        real: The engine's outputs.
        emulated: The emulator's.
        exact: The golden ones.

    Returns:
        0 where they are the same, about 1.4 where both err by as much but independently.
    """
    return float(np.mean([_unlike(real[n], emulated[n], exact[n]) for n in exact]))


def _unlike(real: object, emulated: object, exact: object) -> float:
    arrays = [np.asarray(a) for a in (real, emulated, exact)]
    if arrays[0].dtype.kind != "f" or len({a.shape for a in arrays}) != 1:
        return 0.0 if np.array_equal(arrays[0], arrays[1]) else _UNLIKE
    r, e, x = (a.astype(np.float64).ravel() for a in arrays)
    elsewhere = float(np.mean(np.isfinite(r) != np.isfinite(e))) if r.size else 0.0
    if elsewhere > 0:
        return _ELSEWHERE + (_UNLIKE - _ELSEWHERE) * elsewhere
    compared = np.isfinite(r) & np.isfinite(e) & np.isfinite(x)
    r, e, x = r[compared], e[compared], x[compared]
    if np.array_equal(r, e):
        return 0.0
    own, other = r - x, e - x
    sizes = float(np.linalg.norm(own)), float(np.linalg.norm(other))
    if 0.0 in sizes:
        return _ELSEWHERE
    cosine = min(1.0, float(own @ other) / (sizes[0] * sizes[1]))
    return min(_ELSEWHERE, math.hypot(math.sqrt(2 * (1 - cosine)), math.log(sizes[1] / sizes[0])))


def best_habit(scores: Mapping[str, float], plain: str) -> str:
    """The habit that explains an engine best; the definition unless another does clearly better.

    Args:
        scores: By habit, how unlike the engine it is.
        plain: The definition's name.
    """
    best = min(scores, key=lambda name: (scores[name], name != plain))
    return best if scores[best] < _BETTER * scores[plain] else plain


def closeness(scores: Sequence[float]) -> float:
    """How unlike an engine a habit is on several plans; the last is nearest the answer."""
    weights = [2.0**at for at in range(len(scores))]
    both = zip(weights, scores, strict=True)
    return sum(w * s for w, s in both) / sum(weights) if scores else 1.0
