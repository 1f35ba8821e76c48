"""Writes the small networks of the how-tos: random weights, and the usual reasons for fp32.

    python make.py              # all three
    python make.py detector     # one of them: detector, audio, transformer

Each becomes a folder with ``model.onnx`` and ``samples/``, and takes no time to search.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

Weights = dict[str, np.ndarray]
Samples = list[dict[str, np.ndarray]]

DETECTOR = """detector (float[N,3,H,W] image) => (float[N,1,h,w] maps) {
    c1 = Conv <kernel_shape = [3,3], pads = [1,1,1,1], strides = [2,2]> (image, w1)
    f1 = HardSwish (c1)
    c2 = Conv <kernel_shape = [3,3], pads = [1,1,1,1]> (f1, w2)
    pooled = GlobalAveragePool (c2)
    squeezed = Conv (pooled, w3)
    gate = HardSigmoid (squeezed)
    f2 = Mul (c2, gate)
    head_p = Conv (f2, w4)
    head_t = Conv (f2, w5)
    p = Sigmoid (head_p)
    t = Sigmoid (head_t)
    above = Sub (p, t)
    steep = Mul (above, fifty)
    maps = Sigmoid (steep)
}"""

AUDIO = """audio (float[N,1,S] sound) => (float[N,8,F] features) {
    real = Conv <kernel_shape = [64], strides = [32]> (sound, cosines)
    imaginary = Conv <kernel_shape = [64], strides = [32]> (sound, sines)
    real2 = Mul (real, real)
    imaginary2 = Mul (imaginary, imaginary)
    power = Add (real2, imaginary2)
    mel = Conv <kernel_shape = [1]> (power, filters)
    floored = Max (mel, tiny)
    logs = Log (floored)
    hidden = Conv <kernel_shape = [3], pads = [1,1]> (logs, w1)
    active = Relu (hidden)
    features = Conv <kernel_shape = [1]> (active, w2)
}"""

TRANSFORMER = """transformer (float[N,T,32] tokens, float[N,1,T] keep) => (float[N,T,32] states) {
    mean = ReduceMean <axes = [-1]> (tokens)
    centred = Sub (tokens, mean)
    squares = Pow (centred, two)
    variance = ReduceMean <axes = [-1]> (squares)
    guarded = Add (variance, epsilon)
    deviation = Sqrt (guarded)
    normal = Div (centred, deviation)
    scaled = Mul (normal, gamma)
    normed = Add (scaled, beta)
    query = MatMul (normed, wq)
    key = MatMul (normed, wk)
    value = MatMul (normed, wv)
    turned = Transpose <perm = [0,2,1]> (key)
    scores = MatMul (query, turned)
    hidden = Sub (one, keep)
    mask = Mul (hidden, lowest)
    masked = Add (scores, mask)
    attention = Softmax <axis = -1> (masked)
    mixed = MatMul (attention, value)
    states = Add (mixed, normed)
}"""


def detector() -> tuple[str, Weights, Samples]:
    """A text detector that binarises its map in the network, as DBNet does in training."""
    random = np.random.default_rng(0)
    weights = {
        "w1": _normal(random, 8, 3, 3, 3),
        "w2": _normal(random, 16, 8, 3, 3),
        "w3": _normal(random, 16, 16, 1, 1),
        "w4": _normal(random, 1, 16, 1, 1),
        "w5": _normal(random, 1, 16, 1, 1),
        "fifty": np.array(50, np.float32),
    }
    sizes = (32, 64), (48, 48), (64, 32), (32, 32)
    return DETECTOR, weights, [{"image": _normal(random, 1, 3, *size)} for size in sizes]


def audio() -> tuple[str, Weights, Samples]:
    """A spectrogram of 16-bit sound, its logarithm, and a layer behind it."""
    random = np.random.default_rng(1)
    angles = 2 * np.pi * np.outer(np.arange(33), np.arange(64)) / 64
    window = np.hanning(64)
    weights = {
        "cosines": _kernels(np.cos(angles) * window),
        "sines": _kernels(np.sin(angles) * window),
        "filters": _kernels(random.random((12, 33)) / 33)[:, 0, :, None],
        "tiny": np.array(1e-10, np.float32),
        "w1": _normal(random, 16, 12, 3),
        "w2": _normal(random, 8, 16, 1),
    }
    # From silence to loud, in the range of 16-bit integers.
    sounds = [
        (random.normal(size=(1, 1, 640)) * volume).astype(np.float32) for volume in (0, 30, 3e3)
    ]
    return AUDIO, weights, [{"sound": sound} for sound in sounds]


def transformer() -> tuple[str, Weights, Samples]:
    """LayerNorm in single ops, and attention under a mask of the lowest float32."""
    random = np.random.default_rng(2)
    weights = {
        "two": np.array(2, np.float32),
        "one": np.array(1, np.float32),
        "epsilon": np.array(1e-12, np.float32),
        "lowest": np.array(np.finfo(np.float32).min),
        "gamma": np.ones(32, np.float32),
        "beta": np.zeros(32, np.float32),
        "wq": _normal(random, 32, 32),
        "wk": _normal(random, 32, 32),
        "wv": _normal(random, 32, 32),
    }
    samples = []
    for length, kept in ((8, 8), (8, 5), (6, 3)):
        tokens = _normal(random, 1, length, 32)
        # Padding is a row of zeros: its variance is zero too.
        tokens[:, kept:] = 0
        samples.append({"tokens": tokens * 40, "keep": _keep(length, kept)})
    return TRANSFORMER, weights, samples


def _keep(length: int, kept: int) -> np.ndarray:
    return (np.arange(length) < kept).astype(np.float32)[None, None]


def _normal(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights that keep the size of what passes through them."""
    fan_in = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
    return (random.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)


def _kernels(rows: np.ndarray) -> np.ndarray:
    return rows.astype(np.float32)[:, None]


def build(text: str, weights: Weights) -> onnx.ModelProto:
    """A checked model from a graph in ONNX's text format, with these initializers."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{index}"
    model.graph.initializer.extend(onnx.numpy_helper.from_array(w, n) for n, w in weights.items())
    onnx.checker.check_model(model, full_check=True)
    return model


def write(make: Callable[[], tuple[str, Weights, Samples]]) -> None:
    """Writes one network into a folder of its name."""
    text, weights, samples = make()
    folder = Path(make.__name__)
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    onnx.save(build(text, weights), folder / "model.onnx")
    for index, sample in enumerate(samples):
        np.savez(folder / "samples" / f"sample{index}_inputs.npz", **sample)
    print(f"{folder}: model.onnx, {len(samples)} samples")


if __name__ == "__main__":
    networks = {make.__name__: make for make in (detector, audio, transformer)}
    for name in sys.argv[1:] or networks:
        write(networks[name])
