"""The ONNX project's test cases for backends, as the converter's tests use them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx.backend.test.case.node import collect_testcases

FOLDERS = ("simple", "pytorch-operator", "pytorch-converted", "light")
_DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"


@dataclass(frozen=True)
class Case:
    """A model with inputs.

    Attributes:
        group: ``node``, or the folder of the ONNX project.
        name: Its name there.
        model: The model.
        feeds: Inputs by name.
    """

    group: str
    name: str
    model: onnx.ModelProto
    feeds: Mapping[str, object]


def float_cases(groups: tuple[str, ...] = ("node", *FOLDERS)) -> Iterator[Case]:
    """All cases with a float32 input or output, by group and name."""
    if "node" in groups:
        yield from _node_cases()
    for folder in FOLDERS:
        if folder in groups:
            yield from _stored_cases(folder)


def has_float(graph: onnx.GraphProto) -> bool:
    """Whether a graph takes or gives float32, in a tensor, a sequence or an optional."""
    return any(_is_float(value.type) for value in (*graph.input, *graph.output))


def _is_float(kind: onnx.TypeProto) -> bool:
    if kind.HasField("sequence_type"):
        return _is_float(kind.sequence_type.elem_type)
    if kind.HasField("optional_type"):
        return _is_float(kind.optional_type.elem_type)
    return bool(kind.tensor_type.elem_type == onnx.TensorProto.FLOAT)


def _node_cases() -> Iterator[Case]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ONNX's own code that generates the cases
        found = collect_testcases(None)
    for case in sorted(found, key=lambda case: case.name):
        if has_float(case.model.graph):
            names = [value.name for value in case.model.graph.input]
            feeds = dict(zip(names, map(_plain, case.data_sets[0][0]), strict=False))
            yield Case("node", case.name, case.model, feeds)


def _stored_cases(folder: str) -> Iterator[Case]:
    paths = sorted((_DATA / folder).glob("*.onnx" if folder == "light" else "*/model.onnx"))
    for path in paths:
        model = onnx.load(path)
        if has_float(model.graph):
            name = path.stem if folder == "light" else path.parent.name
            yield Case(folder, name, model, _stored_feeds(path, model))


def _stored_feeds(path: Path, model: onnx.ModelProto) -> dict[str, object]:
    """The inputs kept beside a model; made up where there are none."""
    given = {i.name for i in model.graph.initializer}
    rng, feeds = np.random.default_rng(0), {}
    for index, value in enumerate(model.graph.input):
        file = path.parent / "test_data_set_0" / f"input_{index}.pb"
        if file.is_file():
            feeds[value.name] = _read(file, value.type)
        elif value.name not in given:
            shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
    return feeds


def _read(file: Path, kind: onnx.TypeProto) -> object:
    proto = onnx.SequenceProto() if kind.HasField("sequence_type") else onnx.TensorProto()
    proto.ParseFromString(file.read_bytes())
    if isinstance(proto, onnx.SequenceProto):
        return onnx.numpy_helper.to_list(proto)
    return onnx.numpy_helper.to_array(proto)


def _plain(value: object) -> object:
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, onnx.SequenceProto):
        return onnx.numpy_helper.to_list(value)
    if isinstance(value, onnx.OptionalProto):
        return onnx.numpy_helper.to_optional(value)
    return np.asarray(value) if isinstance(value, np.generic) else value
