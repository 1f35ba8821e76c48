"""What the SDK writes during a run, read back: op statistics and dumps of tensors."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from topsideas.engines.topsinference.hlir import HlirOp, numpy_type
from topsideas.errors import EngineError

# The fields of the specification's CALC records.
_FIELDS = ("ge_ratio", "le_ratio", "clip_ratio", "check_nan")


def read_statistics(folder: Path, pattern: str) -> dict[int, dict[str, Any]]:
    """By op id ``{"outputs": [fields…]}`` from the JSON files that a run wrote.

    A file holds one record or a list of records ``{"id": …, "outputs": [{…}]}``.

    Raises:
        EngineError: There is no such file, or one is not of this kind.
    """
    files = sorted(folder.glob(pattern))
    if not files:
        raise EngineError(
            f"the run left no op statistics {pattern} in {folder}; see statistics_files and "
            "statistics_options in the SDK profile"
        )
    return {op: fields for file in files for op, fields in _statistics_of(file).items()}


def _statistics_of(file: Path) -> dict[int, dict[str, Any]]:
    found = {}
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        for record in data if isinstance(data, list) else [data]:
            outputs = [{k: output.get(k) for k in _FIELDS} for output in record["outputs"]]
            found[int(record["id"])] = {"outputs": outputs}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        kind = type(error).__name__
        raise EngineError(f"{file}: no op statistics ({kind}: {error})") from error
    return found


def read_dump(
    folder: Path, pattern: str, ops: Sequence[HlirOp]
) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    """(op id, outputs in float32 or as they are) of every dumped op, in id order.

    Args:
        folder: Where the run wrote, folders inside it included.
        pattern: The regular expression of the SDK profile.
        ops: The compiled graph, which tells type and shape of raw files.

    Raises:
        EngineError: No file matches, or one cannot be read.
    """
    name, known = re.compile(pattern), {op.id: op for op in ops}
    found: dict[int, dict[int, Path]] = {}
    for path in folder.rglob("*"):
        match = name.fullmatch(path.name)
        if match and path.is_file():
            output = match.groupdict().get("output") or "0"
            found.setdefault(int(match["id"]), {})[int(output)] = path
    if not found:
        raise EngineError(
            f"the run dumped no tensors like {pattern!r} into {folder}; see dump_options and "
            "dump_pattern in the SDK profile"
        )
    for number, outputs in sorted(found.items()):
        arrays = (_read(path, known.get(number), at) for at, path in sorted(outputs.items()))
        yield number, tuple(_as_float32(a) for a in arrays)


def _read(path: Path, op: HlirOp | None, at: int) -> np.ndarray:
    try:
        if path.suffix == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        if op is None or at >= len(op.results):
            raise ValueError("the compiled graph does not tell its type")
        sizes, kind = op.results[at]
        dtype = numpy_type(kind)
        if dtype is None:
            raise ValueError(f"no numpy type for {kind}")
        array = np.fromfile(path, np.dtype(dtype))
        return array.reshape([-1 if s is None else s for s in sizes])
    except (OSError, ValueError) as error:
        raise EngineError(f"{path}: not a tensor dump ({error})") from error


def _as_float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def named_outputs(values: Sequence[Any], outputs: Sequence[Any]) -> Mapping[str, np.ndarray]:
    """The engine's outputs by name, with the model's types and, where sizes agree, its shapes.

    Args:
        values: The model's outputs.
        outputs: What the engine gave, in the same order.

    Raises:
        EngineError: There are more or fewer than the model has.
    """
    if len(values) != len(outputs):
        raise EngineError(f"TopsInference gave {len(outputs)} outputs; expected {len(values)}")
    return {str(v.name): _like(v, np.asarray(a)) for v, a in zip(values, outputs, strict=True)}


def _like(value: Any, array: np.ndarray) -> np.ndarray:
    wanted = value.dtype.numpy() if value.dtype is not None else array.dtype
    if array.dtype == np.float16 and wanted == np.float32:
        array = array.astype(np.float32)
    if value.shape is None:
        return array
    sizes = [d if isinstance(d, int) else -1 for d in value.shape]
    known = math.prod(size for size in sizes if size >= 0)
    if -1 not in sizes:
        fits = array.size == known
    else:  # a size that moves can only be told where it is the only one, and an axis was dropped
        fits = sizes.count(-1) == 1 and array.ndim != len(sizes) and array.size % (known or 1) == 0
    return array.reshape(sizes) if fits else array
