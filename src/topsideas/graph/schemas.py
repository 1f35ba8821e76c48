"""Which inputs and outputs of a node can be held in a low precision: decided by op schemas.

An ONNX schema ties each input and output to a type variable with a list of allowed types. A
float32 slot can go low exactly if its variable allows the low type too; slots that a schema
fixes to float32 (``Resize`` scales, ``NonMaxSuppression`` boxes) stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import onnx
import onnx_ir as ir

from topsideas.graph.lifting import FIRST_WITH_BF16, liftable_to, needed_version
from topsideas.graph.quantised import in_quantised_part
from topsideas.precision import BF16, FP16, Precision

# Values that are coordinates, not data: their own type variable allows fp16, yet rounding a
# position would move it. ONNX runtimes and converters keep them in float32.
_COORDINATES = {("", "Resize"): {1, 2}, ("", "Upsample"): {1}}

# Outputs that an attribute of the op (``stash_type``) holds in float32, whatever their variable.
_STASHED = {("", "LayerNormalization"): {1, 2}}

# Ops that are bound to the float32 format in ways that their type variables do not say.
_FORMAT_BOUND = {
    ("", "BitCast"): "reads the bits, not the values",
    ("", "MeanVarianceNormalization"): "its definition as a function holds float32 constants",
    ("ai.onnx.ml", "TreeEnsemble"): "its attributes hold thresholds in the type of its input",
}

# Ops whose definition as a function uses another op that knows bfloat16 only from this opset on:
# runtimes that expand them refuse what their own schema allows.
_BF16_BODY = {"Clip": 16, "SoftmaxCrossEntropyLoss": 22}

# Ops that read only the shape or existence of a tensor; no precision changes their answer.
SHAPE_ONLY = {"Shape", "Size", "SequenceLength", "OptionalHasElement"}


# Several of them share a byte.
_PACKED = frozenset(
    getattr(ir.DataType, name)
    for name in ("INT4", "UINT4", "INT2", "UINT2", "FLOAT4E2M1")
    if hasattr(ir.DataType, name)
)

_CONTAINERS = (ir.SequenceType, ir.OptionalType)
_TENSOR_OF = {FP16.onnx_type: "tensor(float16)", BF16.onnx_type: "tensor(bfloat16)"}


@dataclass(frozen=True, slots=True)
class Slots:
    """Indices of the float32 inputs and outputs that are rounded when the op runs low."""

    inputs: frozenset[int]
    outputs: frozenset[int]


NO_SLOTS = Slots(frozenset(), frozenset())


@dataclass(frozen=True, slots=True)
class _Formal:
    """One formal input or output: the type variable it is bound to, and whether it repeats."""

    variable: str
    types: frozenset[str]
    variadic: bool

    @classmethod
    def of(cls, parameter: Any, variadic: Any) -> _Formal:
        """From a formal parameter of onnx's schemas or of the runtime's."""
        name = getattr(parameter, "type_str", None) or parameter.typeStr
        return cls(name, frozenset(parameter.types), parameter.option == variadic)


@dataclass(frozen=True, slots=True)
class Target:
    """What a low format needs of schemas.

    Attributes:
        precision: The low format.
        opsets: The versions that the model imports, by domain.
        limit: The version of the default domain that the model may be lifted to for it.
    """

    precision: Precision
    opsets: Mapping[str, int]
    limit: int

    def version(self, node: ir.Node) -> int:
        """The lowest version of the node's domain that allows the low format in any slot."""
        own = self.opsets.get(node.domain, 1)
        if self.limit <= own or node.domain:
            return own
        return needed_version(own, self.limit, lambda version: self._knows(node, version))

    def formals(self, node: ir.Node) -> tuple[tuple[_Formal, ...], tuple[_Formal, ...]] | None:
        """Formal inputs and outputs at that version; None without a schema."""
        return _formals(node.domain, node.op_type, self.version(node))

    def expands(self, node: ir.Node) -> bool:
        """Whether what the node is defined by knows the low format too, as far as it is lifted."""
        needed = _BF16_BODY.get(node.op_type, 0) if self.precision is BF16 else 0
        return bool(node.domain) or self.version(node) >= needed

    def allows(self, node: ir.Node, slots: Slots) -> bool:
        """Whether the low format is allowed in all of ``slots``."""
        found = low_slots(node, self)
        return (
            isinstance(found, Slots)
            and slots.inputs <= found.inputs
            and slots.outputs <= found.outputs
        )

    @property
    def tensor(self) -> str:
        """The low type as schemas spell it."""
        return _TENSOR_OF[self.precision.onnx_type]

    def _knows(self, node: ir.Node, version: int) -> bool:
        if self.precision is BF16 and version < _BF16_BODY.get(node.op_type, 0):
            return False
        formals = _formals(node.domain, node.op_type, version)
        return formals is not None and any(
            True
            for side, values in zip(formals, (node.inputs, node.outputs), strict=True)
            for _ in _low(values, side, self.tensor)
        )


def target_of(model: ir.Model, precision: Precision) -> Target:
    """What ``precision`` needs of the schemas of a model's ops. Only bf16 lifts the opset."""
    opset = model.opset_imports.get("", 1)
    nodes = (node for graph in model.graphs() for node in graph)
    lifts = precision is BF16 and opset >= FIRST_WITH_BF16
    limit = liftable_to(nodes, opset) if lifts else opset
    return Target(precision, model.opset_imports, limit)


def low_slots(node: ir.Node, target: Target) -> Slots | str:
    """The slots of ``node`` that can go low, or the reason why it is pinned."""
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in _attrs(node)):
        return "control flow: its body's ops are candidates, the container computes nothing"
    if node.op_type == "Constant" and not node.domain:
        return "a constant: its readers round it"
    if node.op_type in SHAPE_ONLY and not node.domain:
        return "reads only the shape, not the values"
    if (node.domain, node.op_type) in _FORMAT_BOUND:
        return _FORMAT_BOUND[node.domain, node.op_type]
    if any(v is not None and v.dtype in _PACKED for v in _values(node)):
        return "handles values of less than a byte, which are quantised already"
    if in_quantised_part(node):
        return "part of a quantised region, whose scales and types are the user's choice"
    formals = target.formals(node)
    if formals is None:
        version = target.opsets.get(node.domain, 1)
        return f"no schema known for domain {node.domain!r} at version {version}"
    if not target.expands(node):
        return f"its definition as a function has no {target.precision.name} variant"
    if _handles_containers(node, *formals):
        return "handles a sequence or an optional, whose elements keep their type"
    return _slots_of(node, *formals, target)


def _handles_containers(
    node: ir.Node, inputs: tuple[_Formal, ...], outputs: tuple[_Formal, ...]
) -> bool:
    by_value = any(v is not None and isinstance(v.type, _CONTAINERS) for v in _values(node))
    return by_value or any(
        formal.types and not any(t.startswith("tensor(") for t in formal.types)
        for formal in (*inputs, *outputs)
    )


def _slots_of(
    node: ir.Node, inputs: tuple[_Formal, ...], outputs: tuple[_Formal, ...], target: Target
) -> Slots | str:
    skip = _COORDINATES.get((node.domain, node.op_type), set())
    low_in = frozenset(_low(node.inputs, inputs, target.tensor)) - skip
    stashed = _STASHED.get((node.domain, node.op_type), set())
    low_out = frozenset(_low(node.outputs, outputs, target.tensor)) - stashed
    if low_in or low_out:
        unknown = next(_untyped(node.inputs, inputs), None) or next(
            _untyped(node.outputs, outputs), None
        )
        return f"the type of {unknown!r} is not known" if unknown else Slots(low_in, low_out)
    floats = any(v is not None and v.dtype == ir.DataType.FLOAT for v in _values(node))
    if not floats:
        return "no float32 input or output"
    return _no_variant(node, target)


def _no_variant(node: ir.Node, target: Target) -> str:
    name, opset = target.precision.name, target.opsets.get(node.domain, 1)
    if node.domain or target.limit <= opset:
        return f"its schema (opset {opset}) has no {name} variant"
    return f"its schemas (opset {opset} to {target.limit}) have no {name} variant"


def _values(node: ir.Node) -> Iterable[ir.Value | None]:
    return (*node.inputs, *node.outputs)


def _attrs(node: ir.Node) -> Iterable[ir.Attr]:
    return node.attributes.values()


def _low(
    values: Iterable[ir.Value | None], formals: tuple[_Formal, ...], tensor: str
) -> Iterable[int]:
    for index, value in enumerate(values):
        if value is None or value.dtype != ir.DataType.FLOAT:
            continue
        formal = _formal_at(formals, index)
        if formal is not None and tensor in formal.types:
            yield index


def _untyped(values: Iterable[ir.Value | None], formals: tuple[_Formal, ...]) -> Iterator[str]:
    """Names of values that may be float32: beside them no other value can change its type."""
    for index, value in enumerate(values):
        formal = _formal_at(formals, index)
        if value is None or not value.name or value.type is not None or formal is None:
            continue
        if "tensor(float)" in formal.types:
            yield value.name


def same_type_inputs(node: ir.Node, output: int, opsets: Mapping[str, int]) -> list[int]:
    """Inputs whose type variable is that of an output, so that both have one type."""
    formals = _formals(node.domain, node.op_type, opsets.get(node.domain, 1))
    wanted = _formal_at(formals[1], output) if formals is not None else None
    if formals is None or wanted is None:
        return []
    sides = ((i, _formal_at(formals[0], i)) for i in range(len(node.inputs)))
    return [i for i, formal in sides if formal is not None and formal.variable == wanted.variable]


def _formal_at(formals: tuple[_Formal, ...], index: int) -> _Formal | None:
    if index < len(formals):
        return formals[index]
    return formals[-1] if formals and formals[-1].variadic else None


@cache
def _formals(
    domain: str, op_type: str, version: int
) -> tuple[tuple[_Formal, ...], tuple[_Formal, ...]] | None:
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return _runtime_schemas().get((domain, op_type))
    variadic = onnx.defs.OpSchema.FormalParameterOption.Variadic
    return (
        tuple(_Formal.of(p, variadic) for p in schema.inputs),
        tuple(_Formal.of(p, variadic) for p in schema.outputs),
    )


@cache
def _runtime_schemas() -> dict[tuple[str, str], tuple[tuple[_Formal, ...], tuple[_Formal, ...]]]:
    """Schemas of ONNX Runtime's own domains (``com.microsoft``), which onnx does not know."""
    from onnxruntime.capi import onnxruntime_pybind11_state as runtime

    variadic = runtime.schemadef.OpSchema.FormalParameterOption.Variadic
    return {
        (s.domain, s.name): (
            tuple(_Formal.of(p, variadic) for p in s.inputs),
            tuple(_Formal.of(p, variadic) for p in s.outputs),
        )
        for s in runtime.get_all_operator_schema()
        if s.domain not in ("", "ai.onnx")
    }
