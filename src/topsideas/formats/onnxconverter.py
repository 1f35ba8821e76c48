"""Arguments of onnxconverter-common's ``convert_float_to_float16``, as JSON.

``node_block_list`` keeps ops in fp32 by name. The converter's own list of op types that it keeps
besides (``Resize``, ``Max``, ``TopK`` and others) stays in force, as it cannot convert them.
"""

from __future__ import annotations

import json

from topsideas.errors import EngineError
from topsideas.formats.base import Order, Written
from topsideas.formats.naming import unique_names
from topsideas.precision import FP16

_USE = "use: float16.convert_float_to_float16(onnx.load(MODEL), **json.load(open(FILE)))"
_DIFFERS = (
    "that converter keeps some op types in fp32 besides, clips weights at 65504 and passes the "
    "neighbours of a kept op through fp16; the ONNX model of this tool does none of that"
)


def write(order: Order) -> Written:
    """Write keyword arguments for the converter.

    Raises:
        EngineError: The low format is not fp16, the only one that the converter knows.
    """
    if order.numerics.precision is not FP16:
        name = order.numerics.precision.name
        raise EngineError(f"onnxconverter-common converts to fp16 only, the plan is for {name}")
    naming = unique_names(order, lambda name: True)
    arguments = {
        "keep_io_types": True,
        "node_block_list": [naming.names[i] for i in sorted(order.fp32_ids)],
        "min_positive_val": 0.0,
        "max_finite_val": 65504.0,
    }
    text = json.dumps(arguments, indent=2, allow_nan=False)
    order.path.write_text(text + "\n", encoding="utf-8")
    return Written((order.path, *naming.files), (_USE, _DIFFERS, *naming.note()))
