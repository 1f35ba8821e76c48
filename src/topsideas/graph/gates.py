"""What every exported model must pass before anybody is given it."""

from __future__ import annotations

from pathlib import Path

import onnx

from topsideas.errors import EngineError, ModelError

# The runtime's optimiser copies weights; beyond this size only the plain session is opened.
_OPTIMISED_BYTES = 1 << 30


def check_export(path: Path, source: Path | None = None) -> tuple[str, ...]:
    """Prove that a written model is valid and loads.

    The checker's full check infers all types and shapes strictly and compares them with those in
    the file; ONNX Runtime then opens a session, which also covers operators of its own domains.

    Args:
        path: The ``.onnx`` file; external data lies beside it.
        source: The model it was made from. Where that fails strict inference itself (stale
            shapes, operators whose own definition does not infer), the export need not pass it.

    Returns:
        What was proved, and what could not be, a line each.

    Raises:
        ModelError: The file is not valid ONNX, or a type in it contradicts inference.
        EngineError: The model is valid, but ONNX Runtime refuses it.
    """
    error, proved = (
        _objection(path, strict=True),
        "valid: full ONNX check, strict types and shapes",
    )
    if error is not None and source is not None and _objection(source, strict=True) is not None:
        proved = f"valid: basic ONNX check only, as {source.name} fails strict inference already"
        error = _objection(path, strict=False)
    if error is not None:
        raise ModelError(f"{path}: the export does not pass the ONNX checker: {_brief(error)}")
    return proved, _opens(path)


def _objection(path: Path, *, strict: bool) -> Exception | None:
    """What the ONNX checker says against a file, if anything."""
    try:
        onnx.checker.check_model(str(path), full_check=strict)
    except Exception as error:  # the checker and the inference raise kinds of their own
        return error
    return None


def _opens(path: Path) -> str:
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    levels = onnxruntime.GraphOptimizationLevel
    name = f"ONNX Runtime {onnxruntime.__version__}"
    try:
        _open(path, levels.ORT_DISABLE_ALL)
    except NoKernel as error:
        # Valid, as the graph was resolved: the CPU has hardly any bf16 kernel, a target may.
        return f"read by {name}, whose CPU provider has no kernel to open it: {_brief(error)}"
    except Exception as error:  # onnxruntime maps its status codes to many kinds
        raise EngineError(f"{path}: ONNX Runtime refuses it: {_brief(error)}") from error
    beside = path.with_name(f"{path.name}.data")
    size = sum(file.stat().st_size for file in (path, beside) if file.is_file())
    if size > _OPTIMISED_BYTES:
        return f"opens in {name} (its optimiser was not tried on {size / 1e9:.1f} GB)"
    try:
        _open(path, levels.ORT_ENABLE_ALL)
    except Exception as error:  # a defect of the optimiser: the plain session takes the model
        return f"opens in {name}, but not with its optimiser: {_brief(error)}"
    return f"opens in {name}, as it is and optimised"


def _open(path: Path, level: object) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
