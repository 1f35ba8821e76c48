"""The numerics of low ops written down a second time, from their definition and with other tools.

A low op rounds its float32 inputs, computes in float32, and rounds its float32 outputs; a kept op
does neither. Which inputs and outputs those are is read from the operator's schema: all whose type
variable allows float16, but for what is listed below. Ops are computed by the ONNX project's
reference evaluator, one at a time, on what the emulator had stored for their inputs, so that
differences do not add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from topsideas.engines.base import OpRecord
from topsideas.precision import FP16, Numerics, Overflow, Subnormals

# Inputs that are positions, not data: rounding them would move things.
POSITIONS = {"Resize": {1, 2}, "Upsample": {1}}
# Ops that never run low although a type variable of theirs allows float16.
NEVER_LOW = {
    "Constant",  # its readers round it
    "Shape",  # reads no values, like the next three
    "Size",
    "SequenceLength",
    "OptionalHasElement",
    "BitCast",  # reads the bits
    "MeanVarianceNormalization",  # float32 constants in its definition as a function
    "TreeEnsemble",  # thresholds in the type of its input
}
# Kernels that have no choice: they move values, compare them, or round once as IEEE 754 asks.
EXACT = {
    *("Abs", "Add", "And", "ArgMax", "ArgMin", "Cast", "CastLike", "Ceil", "Clip", "Compress"),
    *("Concat", "DepthToSpace", "Equal", "Expand", "Flatten", "Floor", "Gather"),
    *("GatherElements", "GatherND", "Greater", "GreaterOrEqual", "Identity", "Less"),
    *("LessOrEqual", "Max", "MaxPool", "Min", "Mul", "Neg", "NonZero", "Not", "OneHot", "Or"),
    *("Pad", "Relu", "Reshape", "ReverseSequence", "Sign", "Slice", "SpaceToDepth", "Split"),
    *("Squeeze", "Sub", "Tile", "TopK", "Transpose", "Unsqueeze", "Where", "Xor"),
}
# What kernels that add or approximate may differ by in float32: of the value itself, and of the
# largest value in the output, since sums cancel.
RELATIVE, OF_LARGEST = 2e-5, 2e-6

Env = dict[str, Any]


class Mismatch(Exception):  # noqa: N818 - a finding, no error
    """The emulator and the definition disagree."""


@dataclass(frozen=True)
class Step:
    """One executed op with what it read.

    Attributes:
        id: Its op id.
        node: The node.
        inputs: What was stored for its inputs; None where there is none.
    """

    id: int
    node: onnx.NodeProto
    inputs: list[Any]


def round_once(array: np.ndarray, numerics: Numerics) -> np.ndarray:
    """Store in the low format and read back."""
    low = np.float16 if numerics.precision is FP16 else ml_dtypes.bfloat16
    with np.errstate(all="ignore"):
        rounded = array.astype(low).astype(np.float32)
    if numerics.overflow is Overflow.SATURATE:
        beyond = np.isinf(rounded)
        rounded = np.where(beyond, np.copysign(np.float32(numerics.precision.max), array), rounded)
    if numerics.subnormals is Subnormals.FLUSH:
        tiny = np.abs(rounded) < numerics.precision.smallest_normal
        rounded = np.where(tiny, np.copysign(np.float32(0), rounded), rounded)
    return rounded


def slots(node: onnx.NodeProto, version: int, values: list[Any], side: str) -> set[int]:
    """The indices of the values on one side that a low op rounds."""
    if _never_low(node, version):
        return set()
    allowed = _allowed(node.op_type, node.domain, version, side)
    skipped = POSITIONS.get(node.op_type, set()) if side == "inputs" else set()
    return {
        i
        for i, value in enumerate(values)
        if isinstance(value, np.ndarray)
        and value.dtype == np.float32
        and "tensor(float16)" in allowed(i)
        and i not in skipped
    }


def _never_low(node: onnx.NodeProto, version: int) -> bool:
    bodies = any(a.type in (a.GRAPH, a.GRAPHS) for a in node.attribute)
    return bodies or node.op_type in NEVER_LOW or _on_containers(node, version)


def _on_containers(node: onnx.NodeProto, version: int) -> bool:
    """Whether an input or output of the op is a sequence or an optional, whatever is fed."""
    schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    constraints = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    return any(
        not any(t.startswith("tensor(") for t in constraints.get(p.type_str, [p.type_str]))
        for p in (*schema.inputs, *schema.outputs)
    )


@cache
def _formals(
    op_type: str, domain: str, version: int, side: str
) -> list[tuple[frozenset[str], bool]]:
    schema = onnx.defs.get_schema(op_type, version, domain)
    constraints = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    return [
        (frozenset(constraints.get(p.type_str, [p.type_str])), p.option == variadic)
        for p in getattr(schema, side)
    ]


def _allowed(op_type: str, domain: str, version: int, side: str) -> Any:
    formals = _formals(op_type, domain, version, side)

    def of(index: int) -> frozenset[str]:
        if index < len(formals):
            return formals[index][0]
        return formals[-1][0] if formals[-1][1] else frozenset()

    return of


@dataclass(frozen=True)
class Node:
    """A node with its number: the place in the main graph; bodies follow, depth first."""

    id: int
    proto: onnx.NodeProto
    bodies: dict[str, Body]


@dataclass(frozen=True)
class Body:
    """A graph with its numbered nodes."""

    proto: onnx.GraphProto
    nodes: list[Node]


def numbered(graph: onnx.GraphProto) -> Body:
    """The main graph."""
    nodes, after = [], len(graph.node)
    for index, proto in enumerate(graph.node):
        node = Node(index, proto, {})
        after = _number_bodies(node, after)
        nodes.append(node)
    return Body(graph, nodes)


def _number_bodies(node: Node, after: int) -> int:
    for attribute in node.proto.attribute:
        if attribute.type == attribute.GRAPH:
            inside = []
            for proto in attribute.g.node:
                child = Node(after, proto, {})
                after = _number_bodies(child, after + 1)
                inside.append(child)
            node.bodies[attribute.name] = Body(attribute.g, inside)
    return after


class Walk:
    """Follows a trace of the emulator through a model without functions.

    Args:
        model: The model.
        records: The trace, in the order of execution.
        feeds: The model's inputs.
    """

    def __init__(
        self, model: onnx.ModelProto, records: Iterator[OpRecord], feeds: Mapping[str, Any]
    ) -> None:
        self.opsets = {
            "" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import
        }
        self._body = numbered(model.graph)
        self._records = records
        self._feeds = feeds

    def __iter__(self) -> Iterator[tuple[Step, OpRecord]]:
        """Each op that computes, with what it read and what the emulator says of it."""
        yield from self._graph(self._body, dict(self._feeds))
        for record in self._records:
            raise Mismatch(f"op {record.id} was run although the graph had ended")

    def _graph(self, body: Body, env: Env) -> Iterator[tuple[Step, OpRecord]]:
        """Run one graph; ``env`` then holds its values."""
        env |= {t.name: onnx.numpy_helper.to_array(t) for t in body.proto.initializer}
        for node in body.nodes:
            proto = node.proto
            if proto.op_type == "Constant":
                env[proto.output[0]] = self.compute(proto, [])[0]
                continue
            inputs = [env[name] if name else None for name in proto.input]
            if node.bodies:
                yield from self._container(node, inputs, env)
            record = next(self._records)
            if record.id != node.id:
                raise Mismatch(f"op {record.id} was run, expected op {node.id}")
            if not node.bodies:
                yield Step(node.id, proto, inputs), record
            env.update(zip([o for o in proto.output if o], record.outputs, strict=True))

    def _container(self, node: Node, inputs: list[Any], env: Env) -> Iterator[Any]:
        if node.proto.op_type == "If":
            taken = "then_branch" if np.all(inputs[0]) else "else_branch"
            yield from self._graph(node.bodies[taken], dict(env))
        elif node.proto.op_type == "Loop":
            yield from self._loop(node.bodies["body"], inputs, env)
        elif node.proto.op_type == "Scan" and self.opsets[""] > 8:
            yield from self._scan(node, inputs, env)

    def _loop(self, body: Body, inputs: list[Any], env: Env) -> Iterator[Any]:
        most, going, *carried = inputs
        going, turn = np.array(True) if going is None else going, 0
        while np.all(going) and (most is None or turn < most):
            inner = dict(env)
            names = [i.name for i in body.proto.input]
            inner.update(zip(names, [np.array(turn), going, *carried], strict=True))
            yield from self._graph(body, inner)
            going, *carried = [inner[o.name] for o in body.proto.output[: 1 + len(carried)]]
            turn += 1

    def _scan(self, node: Node, inputs: list[Any], env: Env) -> Iterator[Any]:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.proto.attribute}
        count, body = attributes["num_scan_inputs"], node.bodies["body"]
        state, scanned = inputs[:-count], inputs[-count:]
        axes = attributes.get("scan_input_axes", [0] * count)
        reverse = attributes.get("scan_input_directions", [0] * count)
        length = scanned[0].shape[axes[0]]
        for turn in range(length):
            rows = [
                np.take(s, length - 1 - turn if r else turn, a)
                for s, a, r in zip(scanned, axes, reverse, strict=True)
            ]
            inner = dict(env)
            inner.update(zip([i.name for i in body.proto.input], [*state, *rows], strict=True))
            yield from self._graph(body, inner)
            state = [inner[o.name] for o in body.proto.output[: len(state)]]

    def compute(self, node: onnx.NodeProto, inputs: list[Any]) -> list[Any]:
        """The node's outputs in float32, by the reference evaluator; empty ones left out."""
        names = [f"i{i}" if value is not None else "" for i, value in enumerate(inputs)]
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:]
        copy.input.extend(names)
        fed = {n: v for n, v in zip(names, inputs, strict=True) if n}
        graph = onnx.helper.make_graph(
            [copy],
            "one",
            [_declared(name, value) for name, value in fed.items()],
            [onnx.ValueInfoProto(name=name) for name in node.output if name],
        )
        opsets = [onnx.helper.make_opsetid(d, v) for d, v in self.opsets.items()]
        model = onnx.helper.make_model(graph, opset_imports=opsets)
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, fed)
        return [np.asarray(r) if not isinstance(r, list) else r for r in results]


def _declared(name: str, value: Any) -> onnx.ValueInfoProto:
    if not isinstance(value, np.ndarray):
        return onnx.ValueInfoProto(name=name)
    kind = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return onnx.helper.make_tensor_value_info(name, kind, value.shape)


def check_step(walk: Walk, step: Step, record: OpRecord, low: bool, numerics: Numerics) -> None:
    """Compute one op by the definition and compare. Raises Mismatch.

    Args:
        walk: Where it was found.
        step: The op.
        record: What the emulator says.
        low: Whether the op runs low.
        numerics: What rounds.
    """
    version = walk.opsets.get(step.node.domain, 1)
    inputs = list(step.inputs)
    if low:
        for i in slots(step.node, version, inputs, "inputs"):
            inputs[i] = round_once(inputs[i], numerics)
    computed = walk.compute(step.node, inputs)
    named = [i for i, name in enumerate(step.node.output) if name]
    stored = dict(zip(named, record.outputs, strict=True))
    aligned = [stored.get(i) for i in range(len(step.node.output))]
    rounds = slots(step.node, version, aligned, "outputs") if low else set()
    exact = step.node.op_type in EXACT
    raw = dict(zip(named, record.raw, strict=True)) if record.raw else {}
    for index, value in zip(named, computed, strict=True):
        where = f"output {index} of op {step.id} ({step.node.op_type})"
        if index in rounds:
            _check_near(raw[index], value, where, exact=exact)
            _check_same(stored[index], round_once(raw[index], numerics), f"{where}, rounded")
            _check_ulp(stored[index], value, where, numerics)
        else:
            if raw.get(index) is not None:
                raise Mismatch(f"{where} was rounded")
            _check_near(stored[index], value, where, exact=exact)


def goes_low(walk: Walk, step: Step, record: OpRecord) -> bool:
    """Whether the op can run low: whether it holds anything that would be rounded."""
    version = walk.opsets.get(step.node.domain, 1)
    named = [i for i, name in enumerate(step.node.output) if name]
    stored = dict(zip(named, record.outputs, strict=True))
    outputs = [stored.get(i) for i in range(len(step.node.output))]
    return bool(
        slots(step.node, version, step.inputs, "inputs")
        or slots(step.node, version, outputs, "outputs")
    )


def same(found: Any, expected: Any) -> bool:
    """Bit for bit, but for the payload of NaN."""
    if isinstance(expected, list):
        together = zip(found, expected, strict=True)
        return isinstance(found, list) and all(same(f, e) for f, e in together)
    left, right = np.asarray(found), np.asarray(expected)
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if right.dtype.kind != "f":
        return bool(np.array_equal(left, right))
    signs = np.signbit(left) == np.signbit(right)
    return bool((((left == right) & signs) | (np.isnan(left) & np.isnan(right))).all())


def _check_near(found: Any, expected: Any, where: str, *, exact: bool) -> None:
    if isinstance(expected, list) or isinstance(found, list):
        if not (isinstance(expected, list) and isinstance(found, list)):
            raise Mismatch(f"{where}: {type(found)}, expected {type(expected)}")
        for left, right in zip(found, expected, strict=True):
            _check_near(left, right, where, exact=exact)
        return
    found, expected = np.asarray(found), np.asarray(expected)
    if expected.dtype.name.startswith("float8"):  # onnxruntime's Python hands out the bytes
        expected = expected.view(np.uint8)
    if exact or found.dtype != expected.dtype or expected.dtype.kind != "f":
        _check_same(found, expected, where)
    elif found.shape != expected.shape or not np.allclose(
        found, expected, rtol=RELATIVE, atol=_noise(expected), equal_nan=True
    ):
        raise Mismatch(f"{where}: computed {_some(found)}, expected {_some(expected)}")


def _noise(expected: np.ndarray) -> float:
    """What sums may differ by: a share of the largest value, since they cancel."""
    finite = np.abs(expected[np.isfinite(expected)])
    return OF_LARGEST * float(finite.max(initial=0.0))


def _check_same(found: Any, expected: Any, where: str) -> None:
    if not np.array_equal(found, expected, equal_nan=np.asarray(expected).dtype.kind in "fc"):
        raise Mismatch(f"{where}: {_some(found)}, expected exactly {_some(expected)}")


def _check_ulp(found: np.ndarray, computed: np.ndarray, where: str, numerics: Numerics) -> None:
    """At most one step of the low format apart, but for values that are mostly noise."""
    low = np.float16 if numerics.precision is FP16 else ml_dtypes.bfloat16
    expected = round_once(computed, numerics)
    near = np.abs(_place(found, low) - _place(expected, low)) <= 1
    noise = np.abs(computed) < 100 * _noise(computed)
    if not (near | noise | (np.isnan(found) & np.isnan(expected))).all():
        raise Mismatch(f"{where}: stored {_some(found)}, expected {_some(expected)}")


def _place(array: np.ndarray, low: Any) -> np.ndarray:
    """Where a value stands among all values of the low format, in order."""
    with np.errstate(all="ignore"):
        bits = array.astype(low).view(np.uint16).astype(np.int64)
    return np.where(bits & 0x8000, -(bits & 0x7FFF), bits)


def _some(value: Any) -> str:
    return f"{np.asarray(value).ravel()[:4]} {np.asarray(value).dtype}{np.asarray(value).shape}"
