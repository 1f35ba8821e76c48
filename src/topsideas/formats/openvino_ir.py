"""OpenVINO IR: the mixed-precision model as OpenVINO stores it, fp16 where it is low."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from topsideas.errors import EngineError
from topsideas.formats.base import Order, Written
from topsideas.graph.ops import Op

_USE = (
    "compile with EXECUTION_MODE_HINT=ACCURACY: in its default mode OpenVINO may choose "
    "precisions of its own"
)


def write(order: Order) -> Written:
    """Convert the mixed-precision ONNX model and read the result back.

    Raises:
        ImportError: OpenVINO is not installed.
        EngineError: OpenVINO refuses the model, or its IR has another precision for an op.
    """
    import openvino

    assert order.mixed is not None
    core, xml = openvino.Core(), order.path.with_suffix(".xml")
    weights = xml.with_suffix(".bin")
    with tempfile.TemporaryDirectory(prefix=f".{xml.name}.", dir=xml.parent) as folder:
        written = Path(folder) / xml.name
        try:
            openvino.save_model(core.read_model(order.mixed), written, compress_to_fp16=False)
            seen = _check(core.read_model(written), order)
        except RuntimeError as error:  # what all of OpenVINO's errors are
            raise EngineError(f"OpenVINO {openvino.__version__} refuses it: {error}") from error
        shutil.move(written.with_suffix(".bin"), weights)
        shutil.move(written, xml)
    return Written((xml, weights), (_USE, seen))


def _check(model: Any, order: Order) -> str:
    """Compare the element types of ops that OpenVINO calls by our names."""
    low = order.numerics.precision.name.replace("fp16", "f16")
    kinds = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    fp32, found, wrong = order.fp32_ids, 0, []
    names = [op.name for op in order.model.ops]
    for op in order.model.ops:
        if not op.candidate or not op.slots.outputs or names.count(op.name) != 1:
            continue
        node = kinds.get(op.name)
        if node is None or node.get_output_size() != len(op.outputs):
            continue
        found += 1
        kind = node.get_output_element_type(min(op.slots.outputs)).get_type_name()
        if kind != ("f32" if op.id in fp32 else low):
            wrong.append(_describe(op, kind))
    if wrong:
        raise EngineError(f"OpenVINO changed the precision of {', '.join(wrong[:5])}")
    every = len(order.model.candidates)
    return f"read back: {found} of {every} candidate ops bear their names, all typed right"


def _describe(op: Op, kind: str) -> str:
    return f"op {op.id} ({op.name}) to {kind}"
