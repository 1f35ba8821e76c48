"""What plans of a model cost: the work of its ops in both precisions, and where casts may stand.

The casts are those that :mod:`topsideas.graph.conversion_edges` places: one per tensor and type,
none for weights, and the model's inputs and outputs stay fp32.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import onnx_ir as ir

from topsideas.graph.constants import constant
from topsideas.graph.loading import Model
from topsideas.graph.ops import op_id
from topsideas.graph.schemas import NO_SLOTS, SHAPE_ONLY, Slots
from topsideas.graph.work import Shape, Work, cast_work, work_of
from topsideas.precision import Precision
from topsideas.prices import Boundary, Prices


@dataclass(frozen=True, slots=True)
class Observed:
    """What a run showed of an op.

    Attributes:
        times: How often it ran; ops in loops run many times.
        shapes: The shapes of its outputs, without the empty ones; None for what is no tensor.
    """

    times: int
    shapes: tuple[Shape | None, ...]


@dataclass(frozen=True)
class Observations:
    """What a run showed.

    Attributes:
        inputs: The shapes of the model's inputs by name.
        ops: By op id; ops that did not run are absent.
    """

    inputs: Mapping[str, Shape] = field(default_factory=dict)
    ops: Mapping[int, Observed] = field(default_factory=dict)


Times = Mapping[int, tuple[float, float]]


def plan_prices(
    model: Model, precision: Precision, seen: Observations, times: Times | None = None
) -> Prices:
    """What it costs to keep ops of a model in fp32.

    By the roofline model of :mod:`topsideas.graph.work`, in bytes of memory traffic; or in seconds
    where ops were measured. Casts, which are in no op's time, and ops that were not measured then
    take as long as their bytes do in the ops that were.

    Args:
        model: The model.
        precision: The low format.
        seen: Shapes and loop counts of a run. What it does not show is taken from the model's
            static shapes, with 1 for sizes that are not known.
        times: For each op that was measured, the seconds it takes in fp32 and low, all its
            executions together.
    """
    return _Estimate(model, precision, seen, times or {}).prices()


class _Estimate:
    def __init__(
        self, model: Model, precision: Precision, seen: Observations, times: Times
    ) -> None:
        self._model = model
        self._seen = seen
        self._seconds = times
        nodes = [node for graph in model.graph_model.graphs() for node in graph]
        slots = {op.id: op.slots for op in model.ops if op.candidate}
        # What the low format is not allowed for stays fp32 under every plan.
        lost = model.inexpressible(precision)
        self._slots = {op: own for op, own in slots.items() if op not in lost}
        self._nodes = nodes
        self._shapes = dict(self._observed_shapes())

    def prices(self) -> Prices:
        guessed = {op_id(node): self._work(node) for node in self._nodes}
        rate = self._rate(guessed)
        work = {op: self._measured(op, guess, rate) for op, guess in guessed.items()}
        own = {op: work[op].fp32 - work[op].low for op in self._slots}
        own |= dict.fromkeys(self._model.candidates - self._slots.keys(), 0.0)
        boundaries = list(self._boundaries(rate or 1.0))
        floor = sum(w.low if op in self._slots else w.fp32 for op, w in work.items())
        floor += sum(b.price for b in boundaries if b.is_cast(frozenset()))
        unit = "bytes" if rate is None else "seconds"
        return Prices(own, boundaries, floor, unit, measured=rate is not None)

    def _rate(self, guessed: Mapping[int, Work]) -> float | None:
        """The seconds of a byte, from the ops that were measured; None if none was."""
        known = self._seconds.keys() & guessed.keys()
        moved = sum(guessed[op].low for op in sorted(known))
        return sum(self._seconds[op][1] for op in sorted(known)) / moved if moved else None

    def _measured(self, op: int, guess: Work, rate: float | None) -> Work:
        if rate is None:
            return guess
        fp32, low = self._seconds.get(op, (rate * guess.fp32, rate * guess.low))
        return Work(fp32, low)

    def _work(self, node: ir.Node) -> Work:
        slots = self._slots.get(op_id(node), NO_SLOTS)
        values = [node.inputs[i] for i in slots.inputs] + [node.outputs[i] for i in slots.outputs]
        once = work_of(node, [v for v in values if v is not None], self._shape)
        times = self._times(node)
        return Work(times * once.fp32, times * once.low)

    def _times(self, node: ir.Node) -> int:
        seen = self._seen.ops.get(op_id(node))
        return 1 if seen is None else seen.times

    def _observed_shapes(self) -> Iterator[tuple[ir.Value, Shape]]:
        for node in self._nodes:
            seen = self._seen.ops.get(op_id(node))
            written = [o for o in node.outputs if o.name]
            if seen is not None and len(seen.shapes) == len(written):
                pairs = zip(written, seen.shapes, strict=True)
                yield from ((value, shape) for value, shape in pairs if shape is not None)
        for value in self._model.inputs():
            seen_input = self._seen.inputs.get(str(value.name))
            if seen_input is not None:
                yield value, seen_input

    def _shape(self, value: ir.Value) -> Shape:
        if value not in self._shapes:
            tensor = value.const_value
            known = tensor.shape if tensor is not None else value.shape
            sizes = known if known is not None else ()
            self._shapes[value] = tuple(d if isinstance(d, int) else 1 for d in sizes)
        return self._shapes[value]

    def _boundaries(self, rate: float) -> Iterator[Boundary]:
        readers = self._readers()
        outputs = {v for graph in self._model.graph_model.graphs() for v in graph.outputs}
        for value, wishes in readers.items():
            source = self._source(value)
            outside = wishes.outside or value in outputs
            found = Boundary(rate * self._cast(value), source, *wishes.sorted(), outside)
            if found.low or (source is not None and (found.wide or outside)):
                yield found

    def _readers(self) -> dict[ir.Value, _Wishes]:
        """Who reads each float32 value that may need a cast; values no one reads included."""
        found: dict[ir.Value, _Wishes] = defaultdict(_Wishes)
        for node in self._nodes:
            for output in node.outputs:
                if _may_be_cast(output):
                    found[output]
            low = self._slots.get(op_id(node), NO_SLOTS).inputs
            for index, value in enumerate(node.inputs):
                if value is not None and _may_be_cast(value):
                    found[value].add(node, is_low=index in low)
        return dict(found)

    def _source(self, value: ir.Value) -> int | None:
        producer = value.producer()
        if producer is None:
            return None
        slots: Slots = self._slots.get(op_id(producer), NO_SLOTS)
        return op_id(producer) if value.index() in slots.outputs else None

    def _cast(self, value: ir.Value) -> float:
        """A cast of a value runs as often as the graph that holds it."""
        producer = value.producer()
        graph = value.graph
        inside = producer if producer is not None or graph is None else next(iter(graph), None)
        return cast_work(self._shape(value)) * (1 if inside is None else self._times(inside))


class _Wishes:
    """What the readers of a value want."""

    def __init__(self) -> None:
        self._low: set[int] = set()
        self._wide: set[int] = set()
        self.outside = False

    def add(self, node: ir.Node, *, is_low: bool) -> None:
        # Casts and ops that read only the shape take what is stored.
        takes_any = not node.domain and (node.op_type == "Cast" or node.op_type in SHAPE_ONLY)
        if is_low:
            self._low.add(op_id(node))
            self._wide |= set() if takes_any else {op_id(node)}
        elif not takes_any:
            self.outside = True

    def sorted(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return tuple(sorted(self._low)), tuple(sorted(self._wide))


def _may_be_cast(value: ir.Value) -> bool:
    """Weights are converted with the model, unless a caller may replace them."""
    if not isinstance(value.type, ir.TensorType) or value.dtype != ir.DataType.FLOAT:
        return False
    overridable = value.is_initializer() and value.is_graph_input()
    return overridable or constant(value) is None
