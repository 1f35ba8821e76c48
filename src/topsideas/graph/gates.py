"""What every exported model must pass before anybody is given it."""

from __future__ import annotations

import logging
from pathlib import Path

import onnx

from topsideas.errors import EngineError, ModelError

_log = logging.getLogger(__name__)


def check_export(path: Path, source: Path | None = None) -> None:
    """Prove that a written model is valid and loads.

    The checker's full check infers all types and shapes strictly and compares them with those in
    the file; ONNX Runtime then opens a session, which also covers operators of its own domains.

    Args:
        path: The ``.onnx`` file; external data lies beside it.
        source: The model it was made from. Where that fails strict inference itself (stale
            shapes, operators whose own definition does not infer), the export need not pass it.

    Raises:
        ModelError: The file is not valid ONNX, or a type in it contradicts inference.
        EngineError: The model is valid, but ONNX Runtime refuses it.
    """
    error = _objection(path, strict=True)
    if error is not None and source is not None and _objection(source, strict=True) is not None:
        _log.warning("%s fails strict inference already: only the basic check is made", source)
        error = _objection(path, strict=False)
    if error is not None:
        raise ModelError(f"{path}: the export does not pass the ONNX checker: {_brief(error)}")
    _check_loads(path)


def _objection(path: Path, *, strict: bool) -> Exception | None:
    """What the ONNX checker says against a file, if anything."""
    try:
        onnx.checker.check_model(str(path), full_check=strict)
    except Exception as error:  # the checker and the inference raise kinds of their own
        return error
    return None


def _check_loads(path: Path) -> None:
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    options = onnxruntime.SessionOptions()
    # Optimising is not under test, and costs most of the time.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except NoKernel as error:
        # Valid, as the graph was resolved: the CPU has hardly any bf16 kernel, a target may.
        _log.warning("%s: ONNX Runtime's CPU provider has no kernel: %s", path, _brief(error))
    except Exception as error:  # onnxruntime maps its status codes to many kinds
        raise EngineError(f"{path}: ONNX Runtime refuses it: {_brief(error)}") from error


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
