"""A generated model above 2 GB converted by the command line, with the peak memory it took.

Run ``python -m benchmarks.large_model``; it needs twice the model's size of disk for a while, and
removes what it wrote. The model is a chain of matrix products with one weight each, in one file of
external data.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

# A weight has 8192 by 16384 elements: 512 MB.
_ROWS = 8192
_STEP = 64


def generate(folder: Path, weights: int, rows: int = _ROWS) -> Path:
    """Write a model with ``weights`` weights of ``rows`` by twice as many elements."""
    rng, columns = np.random.default_rng(0), 2 * rows
    block = (rng.standard_normal((_STEP, columns)) / 100).astype(np.float32)
    initializers, nodes, value = [], [], "x"
    with (folder / "large.bin").open("wb") as data:
        for index in range(weights):
            shape = [rows, columns] if index % 2 == 0 else [columns, rows]
            initializers.append(_external(f"w{index}", shape, data.tell()))
            for step in range(rows // _STEP):
                data.write((block * np.float32(1 + step / 100)).tobytes())
            nodes.append(helper.make_node("MatMul", [value, f"w{index}"], [f"h{index}"]))
            value = f"h{index}"
    width = columns if weights % 2 else rows
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", rows])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", width])],
        initializers,
    )
    path = folder / "large.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def _external(name: str, shape: list[int], offset: int) -> TensorProto:
    tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": "large.bin", "offset": str(offset), "length": str(4 * math.prod(shape))}
    for key, text in entries.items():
        tensor.external_data.append(onnx.StringStringEntryProto(key=key, value=text))
    return tensor


def measure(words: list[str]) -> dict[str, Any]:
    """Run a command in a child process: its exit code, seconds, and peak resident bytes."""
    started = time.perf_counter()
    child = os.posix_spawn(words[0], words, os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - started
    code = os.waitstatus_to_exitcode(status)
    return {"code": code, "seconds": round(seconds, 1), "peak_bytes": usage.ru_maxrss * 1024}


def main() -> int:
    """Generate, convert, print the figures as JSON; 1 if the peak is over the size plus 2 GB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=int, default=9, help="weights of 512 MB (default: 9)")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        model = generate(Path(place), args.weights)
        output = Path(place) / "mixed.onnx"
        kept = str(args.weights // 2)
        command = [sys.executable, "-m", "topsideas", "onnx", "convert", "--fp32_nodes", kept]
        figures = measure([*command, "--input_onnx", str(model), "--output", str(output)])
        size = args.weights * 4 * _ROWS * 2 * _ROWS
        written = sum(file.stat().st_size for file in Path(place).glob("mixed.onnx*"))
    figures |= {"model_bytes": size, "written_bytes": written}
    figures["over_size_bytes"] = figures["peak_bytes"] - size
    print(json.dumps(figures))
    return int(figures["code"] != 0 or figures["over_size_bytes"] > 2e9)


if __name__ == "__main__":
    sys.exit(main())
