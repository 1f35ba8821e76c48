"""ONNX Runtime as the emulator uses it: fp32 kernels, one thread, nothing rewritten."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import onnxruntime as ort

from topsideas.errors import EngineError

_PROVIDERS = ["CPUExecutionProvider"]


def session(
    model: bytes | str, weights: Mapping[str, np.ndarray] | None = None, *, fused: bool = False
) -> ort.InferenceSession:
    """Open a session.

    Args:
        model: A serialised ``ModelProto``, or the path of one.
        weights: Values for initializers that ``model`` declares as external data.
        fused: Let the runtime fold constants and fuse neighbours in fp32, as deployments do;
            otherwise the graph runs exactly as it is written, one kernel per op.

    Raises:
        EngineError: ONNX Runtime refuses the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_BASIC if fused else level.ORT_DISABLE_ALL
    # Hundreds of one-node sessions: an arena each would keep every peak forever.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # Kernels that split a sum over threads change its last bits.
    options.intra_op_num_threads = 1
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
