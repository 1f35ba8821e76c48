"""Types that numpy lacks pass between ops, in plain and in traced runs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from topsideas.engines.emulator.engine import open_emulator
from topsideas.engines.options import EngineOptions
from topsideas.graph.loading import load_model
from topsideas.plan import PrecisionPlan

X = np.array([0.1, -0.7, 1.25, 3, -3.3], np.float32)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (onnx.TensorProto.BFLOAT16, [0.10009765625, -0.69921875, 1.25, 3, -3.296875]),
        (onnx.TensorProto.FLOAT8E5M2, [0.09375, -0.75, 1.25, 3, -3.5]),
        (onnx.TensorProto.FLOAT8E4M3FNUZ, [0.1015625, -0.6875, 1.25, 3, -3.25]),
        (onnx.TensorProto.INT4, [0, -1, 1, 3, -3]),
        (onnx.TensorProto.UINT4, [0, 0, 1, 3, 0]),
    ],
)
def test_between_ops(kind: int, expected: list[float]) -> None:
    model = load_model(
        onnx.parser.parse_model(
            f"""<ir_version: 10, opset_import: ["": 21]> g (float[5] x) => (float[5] y) {{
                a = Neg (x)
                b = Neg (a)
                c = Cast <to = {kind}> (b)
                d = Cast <to = 1> (c)
                e = Neg (d)
                y = Neg (e)
            }}"""
        )
    )
    engine = open_emulator(model, EngineOptions())
    executable = engine.compile(PrecisionPlan(model.candidates))
    plain = executable.run({"x": X})["y"]
    if kind != onnx.TensorProto.UINT4:  # what is below its range is not defined
        np.testing.assert_array_equal(plain, np.float32(expected))
    trace = executable.trace({"x": X})
    assert len(list(trace)) == 6
    np.testing.assert_array_equal(trace.outputs["y"], plain)
