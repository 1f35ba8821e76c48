"""The strongly typed mixed-precision model of a plan, as engines that compile ONNX take it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import onnx_ir as ir

from topsideas.engines.base import Arrays, OpRecord
from topsideas.engines.workplace import Folder
from topsideas.graph.constants import constant
from topsideas.graph.conversion import Converter
from topsideas.graph.conversion_files import write_model
from topsideas.graph.loading import Model
from topsideas.graph.ops import op_id
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics

_NAME = "topsideas_op_"
_NAMED = re.compile(rf"{_NAME}(\d+)(?!\d)")


@dataclass(frozen=True)
class TypedModel:
    """A mixed-precision model in a file.

    Attributes:
        folder: Where it is; the files last as long as this model is referred to.
        path: The file; large weights lie beside it.
        low: Ids of the ops that are low in it. Ops that the low format has no variant of are not.
        producers: For each name of a model output, the op that computes it.
        shown: For each top-level op of a traced model, the output that shows each of its
            outputs in float32 or as it is; None for what cannot be shown.
        warnings: What the converter had to say.
    """

    folder: Folder
    path: Path
    low: frozenset[int]
    producers: Mapping[str, int]
    shown: Mapping[int, tuple[str | None, ...]]
    warnings: tuple[str, ...]

    def op_of(self, name: str) -> int | None:
        """The op that a runtime's name for a node stands for, if any."""
        named = _NAMED.search(name)
        return int(named[1]) if named else self.producers.get(name)


class TypedModels:
    """Writes the typed models of a model's plans.

    Args:
        model: The model.
        numerics: The low format.
    """

    def __init__(self, model: Model, numerics: Numerics) -> None:
        self._model = model
        self._converter = Converter(model, numerics)
        self._converting = Lock()

    def write(self, plan: PrecisionPlan, *, traced: bool = False) -> TypedModel:
        """Write the model of a plan into a temporary folder.

        Args:
            plan: The ops in fp32.
            traced: Whether every top-level op's outputs become outputs of the model as well.

        Raises:
            EngineError: The model's opset cannot express the low format.
            ModelError: The result's types do not check.
        """
        with self._converting:
            conversion = self._converter.convert(plan)
        copy = conversion.model
        nodes = [n for graph in copy.graphs() for n in graph if op_id(n) >= 0]
        for node in nodes:
            node.name = f"{_NAME}{op_id(node)}"
        producers = {str(v.name): op_id(n) for n in nodes for v in n.outputs if v.name}
        producers |= _behind_casts(copy)
        shown = _show(copy) if traced else {}
        folder = Folder()
        path = folder.path / "model.onnx"
        write_model(copy, path)
        low = frozenset(op_id(n) for n in nodes if _is_low(n)) & plan.low(self._model.candidates)
        return TypedModel(folder, path, low, producers, shown, conversion.warnings)


def _behind_casts(copy: ir.Model) -> dict[str, int]:
    """Outputs that a cast makes: a runtime that drops it gives their name to the op before."""
    found = {}
    for value in copy.graph.outputs:
        node = value.producer()
        if node is not None and op_id(node) < 0 and node.inputs[0] is not None:
            before = node.inputs[0].producer()
            if before is not None and op_id(before) >= 0:
                found[str(value.name)] = op_id(before)
    return found


def _is_low(node: ir.Node) -> bool:
    low = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    return any(v is not None and v.dtype in low for v in (*node.inputs, *node.outputs))


def _show(copy: ir.Model) -> dict[int, tuple[str | None, ...]]:
    """Make outputs of what top-level ops write; low tensors leave as float32."""
    shown: dict[int, tuple[str | None, ...]] = {}
    given = set(copy.graph.outputs)
    for node in list(copy.graph):
        if op_id(node) >= 0 and not (node.op_type == "Constant" and not node.domain):
            outputs = [v for v in node.outputs if v.name]
            shown[op_id(node)] = tuple(_shown(copy, node, v, given) for v in outputs)
    return shown


def _shown(copy: ir.Model, node: ir.Node, value: ir.Value, given: set[ir.Value]) -> str | None:
    if not isinstance(value.type, ir.TensorType):
        return None
    if value in given:
        return value.name
    if value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        cast = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)})
        cast.name = cast.outputs[0].name = f"topsideas_shown_{value.name}"
        copy.graph.insert_after(node, cast)
        value, shape = cast.outputs[0], value.shape
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), shape
    copy.graph.outputs.append(value)
    return value.name


def records(
    model: Model, typed: TypedModel, feeds: Arrays, fetched: Mapping[str, Any]
) -> Iterator[OpRecord]:
    """A record per traced op, from what a traced model's run gave.

    Args:
        model: The user's model.
        typed: The traced model.
        feeds: The inputs.
        fetched: Every output of the run by name.
    """
    known: dict[ir.Value, Any] = {v: feeds[str(v.name)] for v in model.inputs()}
    ops = {op.id: op for op in model.ops}
    for node in model.graph:
        names = typed.shown.get(op_id(node))
        if names is None:
            continue
        written = [v for v in node.outputs if v.name]
        known |= {
            value: fetched[name]
            for value, name in zip(written, names, strict=True)
            if name is not None
        }
        op = ops[op_id(node)]
        read = (node.inputs[i] for i in sorted(op.slots.inputs)) if op.candidate else ()
        yield OpRecord(
            id=op.id,
            outputs=tuple(fetched[n] if n is not None else None for n in names),
            slot_inputs=tuple(a for v in read if (a := _value(v, known)) is not None),
            stored_low=op.id in typed.low,
        )


def _value(value: ir.Value | None, known: Mapping[ir.Value, Any]) -> np.ndarray | None:
    if value is None:
        return None
    tensor = constant(value)
    return known.get(value) if tensor is None else tensor.numpy()
