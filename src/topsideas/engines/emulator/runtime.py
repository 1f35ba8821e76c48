"""ONNX Runtime as the emulator uses it: fp32 kernels, one thread, nothing rewritten."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from topsideas.engines.emulator.strange import run_as_bits, strange_types
from topsideas.errors import EngineError
from topsideas.graph.mapped import give_back
from topsideas.graph.portable import placeholder

_PROVIDERS = ["CPUExecutionProvider"]

# Measured: a plan whose margin is 0.967 with one thread, fused or not, has 1.004 with two. More
# than there are processors is no harm, and the number must not depend on the machine.
_DEPLOYED_THREADS = 2

# Elements of the weight that is asked whether it was copied.
_PROBE = 1 << 12


def session(
    model: bytes | str,
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    fused: bool = False,
) -> ort.InferenceSession:
    """Open a session, which takes the memory of tensors from an arena that all share.

    Where they are large that is up to twice as fast: fresh pages cost more than most kernels.

    Args:
        model: A serialised ``ModelProto``, or the path of one.
        weights: Values for initializers that ``model`` declares as external data.
        fused: Let the runtime fold constants, fuse neighbours in fp32 and split sums over threads,
            as deployments do; otherwise the graph runs exactly as it is written, one kernel per
            op.

    Raises:
        EngineError: ONNX Runtime refuses the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_BASIC if fused else level.ORT_DISABLE_ALL
    # There may be hundreds of sessions: an arena each would keep every peak forever.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # Kernels that split a sum over threads change its last bits: that is to be avoided, or sought.
    options.intra_op_num_threads = _DEPLOYED_THREADS if fused else 1
    _register_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
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
    finally:
        for array in (weights or {}).values():
            give_back(array)


@cache
def copies_weights() -> bool:
    """Whether an open session has copied its weights, so that nobody else must hold them."""
    weight = np.zeros(_PROBE, np.float32)
    w = ir.Value(name="w", const_value=placeholder(ir.Tensor(weight), "w"))
    w.type, w.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([_PROBE])
    index = ir.val("i", ir.DataType.INT64, [])
    node = ir.node("Gather", [w, index])
    node.outputs[0].name = "y"
    node.outputs[0].type = w.type
    graph = ir.Graph([index], node.outputs, nodes=[node], initializers=[w], opset_imports={"": 13})
    runner = session(ir.to_proto(ir.Model(graph, ir_version=8)).SerializeToString(), {"w": weight})
    weight[:] = 1
    return bool(run(runner, {"i": np.array(7)}, "the self-test")[0] == 0)


@cache
def _register_arena() -> None:
    """Set up the shared arena, once for the process."""
    memory = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(memory, None)


def run(runner: ort.InferenceSession, feeds: Mapping[str, object], what: str) -> list[np.ndarray]:
    """Run a session; a failure is an EngineError that names ``what`` was run.

    Tensors of types that numpy lacks are handed out, and taken back, as their bits.
    """
    try:
        outputs: list[np.ndarray] = _run(runner, feeds)
    except Exception as error:  # ORT's own exceptions share no public base class
        raise EngineError(
            f"{what}: onnxruntime {ort.__version__} failed: {_first(error)}"
        ) from error
    return outputs


def _run(runner: ort.InferenceSession, feeds: Mapping[str, object]) -> list[np.ndarray]:
    try:
        outputs: list[np.ndarray] = runner.run(None, dict(feeds))
    except Exception:
        # Asking first would cost every run of every session; such types are rare.
        if not strange_types(runner):
            raise
        return run_as_bits(runner, feeds)
    return outputs


def default_threads() -> int:
    """The processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
