"""The corpus that fuzzing starts from: ``python -m tests.trust.seeds`` writes it anew.

Small models, samples and plans, each with something that others lack.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx

SEEDS = Path(__file__).with_name("corpus")

MODELS = {
    "squares": """(float[N,4] x) => (float[N,4] y) <float c = {300}> {
        [scale] a = Mul(x, c) [square] s = Mul(a, a) [root] r = Sqrt(s) [un] y = Div(r, c) }""",
    "bodies": """(float[4] x, bool flag) => (float[4] y, float[4] z) {
        y = If (flag) < then_branch = yes () => (float[4] a) { a = Exp(x) },
                        else_branch = no () => (float[4] a) { a = Neg(x) } >
        n = Constant <value = int64 {3}> () t = Constant <value = bool {1}> ()
        z = Loop (n, t, x) < body = turn (int64 i, bool k, float[4] s) => (bool d, float[4] u) {
            d = Identity(k) u = Add(s, s) } > }""",
    "function": """(float[2,3] x) => (float[2,3] y) { y = local.f(x) }
        <domain: "local", opset_import: ["": 17]> f (a) => (b) {
        c = Constant <value = float {0.5}> () b = Mul(a, c) }""",
    "network": """(float[1,2,6,6] x) => (float[1,3] y)
        <float[3,2,3,3] w = {WEIGHTS}, float[3] s = {1,1,1}, float[3] b = {0,0,0},
         float[3] m = {0,0,0}, float[3] v = {1,1,1}, int64[2] shape = {1, 3}> {
        a = Conv <pads = [1,1,1,1]> (x, w) n = BatchNormalization(a, s, b, m, v) r = Relu(n)
        g = GlobalAveragePool(r) f = Reshape(g, shape) y = Softmax <axis = 1> (f) }""",
    "shapes": """(float[2,3] x) => (float[4,3] y, int64[2] i) <int64[2] many = {2, 1}> {
        t = Tile(x, many) s = Shape(t) big = ConstantOfShape <value = float {1}> (s)
        y = Add(t, big) i = ArgMax <axis = 1, keepdims = 0> (x) }""",
    "quantised": """(float[2,4] x) => (float[2,4] y) <float s = {0.1}, int8 z = {0}> {
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y = Tanh(d) }""",
}


_WEIGHTS = ",".join(["0.1"] * 54)


def model(text: str, opset: int = 17) -> onnx.ModelProto:
    """A model of the ONNX text format, without its header."""
    header = f'<ir_version: 8, opset_import: ["": {opset}, "local": 1]> main '
    return onnx.parser.parse_model(header + text.replace("WEIGHTS", _WEIGHTS))


def _npz(compressed: bool = False, **arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)
    return stream.getvalue()


def _with_external_data() -> bytes:
    made = model(MODELS["squares"])
    tensor = made.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", "offset": "0", "length": "4"}.items():
        tensor.external_data.add(key=key, value=value)
    return made.SerializeToString()


def _report() -> bytes:
    report = {
        "schema_version": 1,
        "verdict": "pass",
        "margin": 0.2,
        "fp32_nodes": [1, 2],
        "engine": {"name": "emulator", "version": "1", "evidence": "emulated"},
        "model": {"path": "model.onnx", "ops": 4},
        "options": {
            "precision": "fp16",
            "overflow": "inf",
            "rtol": 0.01,
            "atol": 0.01,
            "ntol": 0.0,
            "cos_sim": None,
            "margin": 1.0,
            "val_func": None,
            "compile_options": {"subnormals": "keep"},
        },
    }
    return json.dumps(report).encode()


def _with_devices() -> bytes:
    proto = model(MODELS["squares"])
    proto.ir_version = 11  # the first that knows them
    proto.graph.node[0].device_configurations.add(configuration_id="both")
    return proto.SerializeToString()


def seeds() -> dict[str, dict[str, bytes]]:
    """Files by target and name."""
    x = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    return {
        "model": {name: model(text).SerializeToString() for name, text in MODELS.items()}
        | {"external": _with_external_data(), "devices": _with_devices()},
        "npz": {
            "plain": _npz(x=x),
            "compressed": _npz(compressed=True, x=x),
            "fortran": _npz(x=np.asfortranarray(x)),
            "zeros": _npz(compressed=True, x=np.zeros((500, 4), np.float32)),
        },
        "plan": {"report": _report(), "list": b'[1, "root"]', "lines": b"1\nroot\n"},
        "options": {
            "emulator": b'{"subnormals": "flush", "accumulation": "low"}',
            "mode": b'{"resource_mode": "1c4s"}',
        },
    }


def main() -> None:
    """Write the corpus."""
    for target, files in seeds().items():
        (SEEDS / target).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (SEEDS / target / name).write_bytes(content)


if __name__ == "__main__":
    main()
