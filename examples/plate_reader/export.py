"""Builds the ONNX file from `weights.npz` (no torch needed) and writes the samples beside it."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from network import BACKBONE, CLASSES, CONTAINER, HEIGHT, WIDTH, Conv, MaxPool, Tap
from onnx import TensorProto, helper, numpy_helper
from render import render_batch

HERE = Path(__file__).parent
MODEL = HERE / "lprnet-pt-op13-fp32-N.onnx"
SAMPLES = HERE / "lprnet-samples"
OPSET, IR_VERSION = 13, 7
SAMPLE_SEED = 9  # chosen among ten: plain fp16 misreads three of these plates, not only one
SAMPLE_SIZES = (1, 1, 1, 2, 1, 1, 1, 1)  # one batch of two: N is dynamic


class Graph:
    """Collects nodes named as exporters name them: type and position, for example `Conv_0`."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: object) -> str:
        """Appends a node and returns the name of its output."""
        name = f"{kind}_{len(self.nodes)}"
        output = output or f"{name}_output_0"
        self.nodes.append(helper.make_node(kind, inputs, [output], name, **attributes))
        return output

    def conv(self, conv: Conv, x: str) -> str:
        """Appends a convolution with its weights, without the ReLU."""
        names = f"{conv.name}.weight", f"{conv.name}.bias"
        for name, key in zip(names, ("w", "b"), strict=True):
            array = self.weights[f"{conv.name}.{key}"]
            self.initializers.append(numpy_helper.from_array(array, name))
        return self.add("Conv", x, *names, kernel_shape=conv.kernel, pads=conv.padding * 2)

    def layer(self, layer: Conv | MaxPool, x: str) -> str:
        """Appends one step of the backbone."""
        if isinstance(layer, Conv):
            return self.add("Relu", self.conv(layer, x))
        shape, strides, pads = [layer.kernel] * 2, [layer.stride] * 2, [layer.padding] * 4
        return self.add("MaxPool", x, kernel_shape=shape, strides=strides, pads=pads)

    def context(self, tap: Tap, x: str) -> str:
        """Appends a branch: pooled features divided by their mean square."""
        if tap.pool > 1:
            shape = [tap.pool] * 2
            x = self.add("AveragePool", x, kernel_shape=shape, strides=shape)
        squares = self.add("Mul", x, x)
        return self.add("Div", x, self.add("ReduceMean", squares, axes=[1, 2, 3], keepdims=1))


def build(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Builds the model.

    Args:
        weights: Arrays `<layer>.w` and `<layer>.b`, BatchNorms folded in.

    Returns:
        The checked fp32 model with a dynamic batch dimension `N`.
    """
    graph, x, taps = Graph(weights), "input", []
    for layer in BACKBONE:
        if isinstance(layer, Tap):
            taps.append((layer, x))
        else:
            x = graph.layer(layer, x)
    # All branches follow the backbone, as a loop over the kept features exports.
    contexts = [graph.context(tap, features) for tap, features in taps]
    grid = graph.conv(CONTAINER, graph.add("Concat", *contexts, axis=1))
    graph.add("ReduceMean", grid, output="output", axes=[2], keepdims=0)
    return _model(graph)


def _model(graph: Graph) -> onnx.ModelProto:
    """Wraps the nodes into a checked model."""
    steps = WIDTH // 4
    x = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, HEIGHT, WIDTH])
    y = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", CLASSES, steps])
    body = helper.make_graph(graph.nodes, "plate_reader", [x], [y], graph.initializers)
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(body, opset_imports=opsets, ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def golden_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Opens the model for plain fp32: no fused kernels, one thread."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)


def write_samples(model: onnx.ModelProto) -> None:
    """Writes inputs as at deployment and golden outputs."""
    SAMPLES.mkdir(exist_ok=True)
    session = golden_session(model)
    pixels, _ = render_batch(SAMPLE_SEED, sum(SAMPLE_SIZES))
    for k, part in enumerate(np.split(pixels, np.cumsum(SAMPLE_SIZES)[:-1])):
        (output,) = session.run(["output"], {"input": part})
        np.savez_compressed(SAMPLES / f"sample{k}_inputs.npz", input=part)
        np.savez_compressed(SAMPLES / f"sample{k}_outputs.npz", output=output)


def main() -> None:
    """Writes the model and the samples."""
    with np.load(HERE / "weights.npz") as weights:
        model = build(dict(weights))
    onnx.save(model, MODEL)
    write_samples(model)


if __name__ == "__main__":
    main()
