"""Does the installed runtime do what the emulator relies on? Asked once per process and numerics.

ONNX Runtime before 1.17 removed pairs of casts even with optimisation off; such a runtime would
report every model as accurate. So the pairs are run on values whose rounding is known.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from topsideas.engines.emulator import runtime
from topsideas.errors import EngineError
from topsideas.graph.emulation import emulated
from topsideas.graph.ops import enumerate_ops
from topsideas.precision import Numerics
from topsideas.rounding import round_to

_OPSET = 13


@cache
def check_runtime(numerics: Numerics) -> None:
    """Raise EngineError unless the runtime rounds as the reference does, bit for bit."""
    values = _probe_values(numerics)
    model = _identity_model()
    slots = {op.id: op.slots for op in enumerate_ops(model)}
    proto = ir.to_proto(emulated(model, frozenset(slots), slots, numerics)).SerializeToString()
    for fused in (False, True):
        runner = runtime.session(proto, fused=fused)
        _compare(values, runtime.run(runner, {"x": values}, "the self-test")[0], numerics)


def _compare(values: np.ndarray, found: np.ndarray, numerics: Numerics) -> None:
    expected = round_to(values, numerics)
    same = (found.view(np.uint32) == expected.view(np.uint32)) | (
        np.isnan(found) & np.isnan(expected)
    )
    if not same.all():
        bad = int(np.flatnonzero(~same)[0])
        raise EngineError(
            f"onnxruntime {ort.__version__} does not round as {numerics.to_json()} asks: "
            f"{values[bad]!r} became {found[bad]!r}, expected {expected[bad]!r}. Emulation would "
            "report wrong results. Remedy: install onnxruntime 1.20 or newer"
        )


def _probe_values(numerics: Numerics) -> np.ndarray:
    """Magnitudes around every boundary of the format, both signs, and the special values."""
    low = numerics.precision
    edges = np.array([low.max, low.smallest_normal, 1.0, 2049.0, 1 / 3], np.float32)
    with np.errstate(over="ignore"):
        steps = np.float32(1) + np.arange(-40, 41, dtype=np.float32) * np.float32(2.0**-13)
        near = (edges[:, None] * steps).ravel()
    tiny = np.float32(low.smallest_normal) * np.float32(2) ** np.arange(-12, 2, dtype=np.float32)
    special = np.array([0.0, np.inf, np.nan], np.float32)
    magnitudes = np.concatenate([near, tiny, tiny * np.float32(1.5), special])
    return np.concatenate([magnitudes, -magnitudes]).astype(np.float32)


def _identity_model() -> ir.Model:
    """One op that hands its input on, so that only the rounding is seen."""
    x = ir.val("x", ir.DataType.FLOAT, ["n"])
    node = ir.node("Identity", [x])
    node.outputs[0].name = "y"
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], node.outputs, nodes=[node], opset_imports={"": _OPSET}, name="selftest")
    return ir.Model(graph, ir_version=8)
