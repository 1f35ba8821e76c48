"""A converted model on disk: one file, or two when its weights are large."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Protocol

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from topsideas.graph.portable import take_in

# A protobuf message ends at 2 GB; weights beyond this size go into a file of their own.
_INLINE_LIMIT = 1_500_000_000

# Weights smaller than this stay in the message even then: shapes, scalars, biases.
_EXTERNAL_BYTES = 1024


# Whoever knows that no other run is writing removes what begins so: a killed run left it.
_TEMPORARY = ".topsideas-tmp."


class _HasModel(Protocol):
    @property
    def model(self) -> ir.Model: ...


def write(conversion: _HasModel, path: Path, *, inline_limit: int = _INLINE_LIMIT) -> list[Path]:
    """Write a converted model; see :func:`write_model`."""
    return write_model(conversion.model, path, inline_limit=inline_limit)


def write_model(model: ir.Model, path: Path, *, inline_limit: int = _INLINE_LIMIT) -> list[Path]:
    """Write a model, complete or not at all.

    Weights above ``inline_limit`` bytes in total go into a second file beside ``path``, which
    must stay beside it. They are written one by one, so that at most one of them is in memory.

    Args:
        model: The model; unchanged.
        path: The ``.onnx`` file to write; an existing file is replaced.
        inline_limit: The size in bytes up to which everything is one file.

    Returns:
        The files written: the model, then its weights if they are separate.
    """
    # Serialising renames and moves tensors: work on a copy, which shares their bytes.
    model = model.clone()
    with folder_beside(path) as folder:
        names = _save(model, Path(folder), path, inline_limit)
        targets = [path.parent / name for name in names]
        for target in reversed(targets):  # weights first: the model never points to nothing
            (Path(folder) / target.name).replace(target)
    return targets


def write_serialised(model: bytes, path: Path) -> None:
    """Write a serialised model that refers to no other file, complete or not at all."""
    with folder_beside(path) as folder:
        (Path(folder) / path.name).write_bytes(model)
        (Path(folder) / path.name).replace(path)


def folder_beside(path: Path) -> tempfile.TemporaryDirectory[str]:
    """Where a file is made before it is moved to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=f"{_TEMPORARY}{path.name}.", dir=path.parent)


def _save(model: ir.Model, folder: Path, path: Path, inline_limit: int) -> list[str]:
    tensors = [t for graph in model.graphs() for t in _tensors(graph)]
    if sum(tensor.nbytes for tensor in tensors) <= inline_limit:
        take_in(model.graph)
        ir.save(model, folder / path.name)
        return [path.name]
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=_EXTERNAL_BYTES)(model)
    data = f"{path.name}.data"
    ir.save(model, folder / path.name, external_data=data, size_threshold_bytes=_EXTERNAL_BYTES)
    return [path.name, data]


def _tensors(graph: ir.Graph) -> list[ir.TensorProtocol]:
    held = [v.const_value for v in graph.initializers.values() if v.const_value is not None]
    attributes = [attr for node in graph for attr in node.attributes.values()]
    return held + [a.as_tensor() for a in attributes if a.type == ir.AttributeType.TENSOR]
