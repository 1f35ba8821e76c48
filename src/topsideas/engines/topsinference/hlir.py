"""The compiled graph as the SDK dumps it: MLIR text of the dialect ``dtu_hlir``.

No attribute that holds an op's id is public, so its name comes from the SDK profile.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from topsideas.errors import EngineError
from topsideas.graph.ops import Op
from topsideas.graph.schemas import NO_SLOTS

_OP = re.compile(r'^\s*(?:%[\w#:, %]+ = )?"?dtu_hlir\.([a-z0-9_]+)"?(.*)$', re.MULTILINE)
_MODULE = re.compile(r"^\s*module\b", re.MULTILINE)
_ATTRIBUTE = re.compile(r'(\w+) = (?:"([^"]*)"|(-?\d+))')
_TENSOR = re.compile(r"tensor<([0-9?x]*?)x?(f16|bf16|f32|f64|i\d+|ui\d+|i1)>")
# Ops that compute nothing: they hold, hand over or convert values.
_NO_WORK = {"constant", "convert", "return", "tuple", "get_tuple_element", "copy"}
_NUMPY = {"f16": "float16", "f32": "float32", "i32": "int32", "i64": "int64", "i1": "bool"}
_ONNX = {"f16": "FLOAT16", "f32": "FLOAT", "i32": "INT32", "i64": "INT64", "i1": "BOOL"}
ORDER = "order"


@dataclass(frozen=True, slots=True)
class HlirOp:
    """One op of a dump.

    Attributes:
        id: Its id.
        type: Its type, like ``conv_bias``.
        name: Its ``op_name``; may be empty.
        results: For each result its sizes (None where they move) and element type.
        reads: The element types of its operands.
    """

    id: int
    type: str
    name: str
    results: tuple[tuple[tuple[int | None, ...], str], ...]
    reads: frozenset[str] = frozenset()


def read_hlir(text: str, id_attribute: str) -> list[HlirOp]:
    """The ops of the last function dump in a text.

    Args:
        text: The dump; where it holds several passes, the last one counts.
        id_attribute: The attribute that holds an op's id, or ``order``.

    Raises:
        EngineError: An op has no such attribute, or two have the same id.
    """
    starts = [0, *(match.start() for match in _MODULE.finditer(text))]
    found = list(_ops(text[starts[-1] :], id_attribute))
    ids = [op.id for op in found]
    if len(set(ids)) != len(ids):
        raise EngineError(
            f"the IR dump gives several ops the same {id_attribute!r}; set ir_id in the SDK "
            "profile to the attribute that numbers them"
        )
    return found


def _ops(text: str, id_attribute: str) -> Iterator[HlirOp]:
    for place, match in enumerate(_OP.finditer(text)):
        kind, rest = match[1], match[2]
        if kind == "return":
            continue
        own = {name: word or number for name, word, number in _ATTRIBUTE.findall(rest)}
        number = str(place) if id_attribute == ORDER else own.get(id_attribute)
        if number is None or not number.isdigit():
            if kind in _NO_WORK:
                continue
            raise EngineError(
                f"the op {kind!r} of the IR dump has no attribute {id_attribute!r} with a number; "
                "set ir_id in the SDK profile to the attribute that holds an op's id, or to "
                f"{ORDER!r}"
            )
        operands, _, written = rest.rpartition("->")
        results = tuple(_result(*found) for found in _TENSOR.findall(written))
        reads = frozenset(t for _, t in _TENSOR.findall(operands.rpartition(" : (")[2]))
        yield HlirOp(int(number), kind, own.get("op_name", ""), results, reads)


def _result(sizes: str, kind: str) -> tuple[tuple[int | None, ...], str]:
    return tuple(None if s == "?" else int(s) for s in sizes.split("x") if s), kind


def as_ops(found: list[HlirOp]) -> tuple[Op, ...]:
    """The ops of an fp32 build as what plans are made of: those that compute floats."""
    return tuple(_as_op(op) for op in sorted(found, key=lambda op: op.id))


def _as_op(op: HlirOp) -> Op:
    floats = "f32" in op.reads or any(kind == "f32" for _, kind in op.results)
    reason = "" if floats else "reads and writes no float32"
    reason = "computes nothing" if op.type in _NO_WORK else reason
    return Op(
        id=op.id,
        path=f"hlir/{op.type}_{op.id}",
        name=op.name,
        type=op.type,
        slots=NO_SLOTS,
        candidate=not reason,
        reason=reason,
        outputs=tuple(f"{op.id}:{at}" for at in range(len(op.results))),
        shapes=tuple(sizes for sizes, _ in op.results),
        dtypes=tuple(_ONNX.get(kind, "") for _, kind in op.results),
    )


def numpy_type(kind: str) -> str | None:
    """The numpy name of an element type; None where it has none."""
    return _NUMPY.get(kind)
