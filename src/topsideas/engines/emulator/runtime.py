"""ONNX Runtime as the emulator uses it: fp32 kernels, no rewriting, one shared thread pool."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import onnxruntime as ort

from topsideas.errors import EngineError

_PROVIDERS = ["CPUExecutionProvider"]


def session(
    model: bytes, threads: int, weights: Mapping[str, np.ndarray] | None = None
) -> ort.InferenceSession:
    """Open a session that runs the graph exactly as it is written.

    Args:
        model: A serialised ``ModelProto``.
        threads: Threads within one op; each session has a pool of its own.
        weights: Values for initializers that ``model`` declares as external data.

    Raises:
        EngineError: ONNX Runtime refuses the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Fusions would skip the roundings between ops; the definition is one kernel per op.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Hundreds of one-node sessions: an arena each would keep every peak forever.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.intra_op_num_threads = threads
    if weights:
        names = list(weights)
        values = [
            ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(weights[n])) for n in names
        ]
        options.add_external_initializers(names, values)
    try:
        return ort.InferenceSession(model, options, providers=_PROVIDERS)
    except Exception as error:  # ORT's own exceptions share no public base class
        raise EngineError(
            f"onnxruntime {ort.__version__} refuses the model: {_first(error)}"
        ) from error


def run(runner: ort.InferenceSession, feeds: Mapping[str, object], what: str) -> list[np.ndarray]:
    """Run a session; a failure is an EngineError that names ``what`` was run."""
    try:
        outputs: list[np.ndarray] = runner.run(None, dict(feeds))
    except Exception as error:  # ORT's own exceptions share no public base class
        raise EngineError(
            f"{what}: onnxruntime {ort.__version__} failed: {_first(error)}"
        ) from error
    return outputs


def default_threads() -> int:
    """The processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
