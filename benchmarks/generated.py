"""Generated models that are large: in ops, or in weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

_OPSET = 17
_CHANNELS, _SIDE = 16, 32
# Blocks in which values leave the range of fp16 for one op, and blocks that lose their digits.
_OVERFLOWING, _CANCELLING = 3, 1
_WIDTH, _ROWS = 4096, 16


@dataclass
class _Graph:
    """A graph in the making."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    planted: list[str] = field(default_factory=list)

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        """A node; returns the name of its output, which is the node's too."""
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def plant(self, kind: str, *inputs: str) -> str:
        """A node that must be kept."""
        self.planted.append(self.add(kind, *inputs))
        return self.planted[-1]

    def constant(self, values: object) -> str:
        """An initializer; returns its name."""
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def model(self, inputs: list[int], output: str, rank: int) -> onnx.ModelProto:
        """The model from ``x`` to ``output``."""
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)
        y = helper.make_tensor_value_info(output, TensorProto.FLOAT, rank * [None])
        graph = helper.make_graph(self.nodes, "large", [x], [y], self.initializers)
        opsets = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def deep(folder: Path, ops: int, samples: int = 2) -> list[str]:
    """Write a model of about ``ops`` ops: a chain of blocks with branches, each with a head.

    Blocks damp what comes in, as trained networks do, so that rounding does not add up over
    thousands of ops.

    Returns:
        The names of the ops that must be kept.
    """
    rng = np.random.default_rng(0)
    graph, value, heads = _Graph(), "x", list[str]()
    flat, image = graph.constant([1, _CHANNELS, -1]), graph.constant([1, _CHANNELS, _SIDE, _SIDE])
    count, planted = ops // 14, _OVERFLOWING + _CANCELLING
    special = {(2 * i + 1) * count // (2 * planted): i for i in range(planted)}
    for block in range(count):
        bias = graph.constant(rng.standard_normal(_CHANNELS, dtype=np.float32))
        a = graph.add("Conv", value, _weight(graph, rng, 3), bias, pads=[1, 1, 1, 1])
        b = graph.add("Conv", graph.add("Relu", a), _weight(graph, rng, 1))
        gate = graph.add("Mul", graph.add("Sigmoid", b), graph.add("Tanh", a))
        gate = _plant(graph, gate, special.get(block))
        mixed = graph.add("MatMul", _weight(graph, rng, 0), graph.add("Reshape", gate, flat))
        back = graph.add("Reshape", mixed, image)
        damped = graph.add("Mul", value, graph.constant(np.float32(0.5)))
        value = graph.add("Add", damped, back)
        heads.append(graph.add("GlobalMaxPool", value))
    output = graph.add("Concat", *heads, axis=1)
    shape = [1, _CHANNELS, _SIDE, _SIDE]
    onnx.save(graph.model(shape, output, 4), folder / "model.onnx")
    _samples(folder, rng, shape, samples)
    return graph.planted


def heavy(folder: Path, size: int, samples: int = 1) -> list[str]:
    """Write a model with ``size`` bytes of weights in external data; see :func:`deep`."""
    rng = np.random.default_rng(0)
    graph, value = _Graph(), "x"
    block = rng.standard_normal((_WIDTH, _WIDTH), dtype=np.float32) * np.float32(_WIDTH**-0.5)
    layers = max(1, size // block.nbytes)
    with (folder / "weights.bin").open("wb") as file:
        for layer in range(layers):
            graph.initializers.append(_external(f"weight_{layer}", block, file.tell()))
            np.roll(block, 101 * layer, axis=0).tofile(file)
            value = graph.add("MatMul", value, f"weight_{layer}")
            value = graph.add("Add", value, graph.constant(_bias(rng)))
            value = _plant(graph, graph.add("Tanh", value), 0 if layer == layers - 2 else None)
    onnx.save(graph.model([_ROWS, _WIDTH], value, 2), folder / "model.onnx")
    _samples(folder, rng, [_ROWS, _WIDTH], samples)
    return graph.planted


def _weight(graph: _Graph, rng: np.random.Generator, kernel: int) -> str:
    shape = [_CHANNELS, _CHANNELS, *([kernel, kernel] if kernel else [])]
    scale = np.float32(1 / np.sqrt(_CHANNELS * max(1, kernel) ** 2))
    return graph.constant(rng.standard_normal(shape, dtype=np.float32) * scale)


def _plant(graph: _Graph, value: str, kind: int | None) -> str:
    """Two ops that are nothing in fp32; in fp16 they overflow or cancel, if that is asked for."""
    if kind is None:
        value = graph.add("Mul", value, graph.constant(np.float32(2.0)))
        return graph.add("Mul", value, graph.constant(np.float32(0.5)))
    if kind < _OVERFLOWING:
        value = graph.plant("Mul", value, graph.constant(np.float32(1e7)))
        return graph.plant("Mul", value, graph.constant(np.float32(1e-7)))
    value = graph.plant("Add", value, graph.constant(np.float32(4096.0)))
    return graph.plant("Sub", value, graph.constant(np.float32(4096.0)))


def _bias(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(_WIDTH, dtype=np.float32) * np.float32(0.5)


def _external(name: str, array: np.ndarray, offset: int) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {
        "location": "weights.bin",
        "offset": offset,
        "length": array.nbytes,
    }.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _samples(folder: Path, rng: np.random.Generator, shape: list[int], count: int) -> None:
    for number in range(count):
        x = rng.standard_normal(shape, dtype=np.float32)
        np.savez(folder / f"sample{number}_inputs.npz", x=x)
