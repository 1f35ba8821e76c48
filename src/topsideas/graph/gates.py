"""What every exported model must pass before anybody is given it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx

from topsideas.errors import EngineError, ModelError

_OPENS = "opens in"
_TAKEN = "ONNX Runtime's optimiser takes it"

# What the runtime says of an operator that it does not have.
_UNKNOWN = "is not a registered function/op"

# The runtime's optimiser copies weights; beyond this size only the plain session is opened.
_OPTIMISED_BYTES = 1 << 30


# Opened by a process of its own, since a defect of the optimiser can end the process.
_OPTIMISE = """
import sys, onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
options.intra_op_num_threads = 1
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
"""
_SECONDS = 300


def check_export(
    path: Path, source: Path | None = None, *, optimised: bool = False
) -> tuple[str, ...]:
    """Prove that a written model is valid and loads.

    The checker's full check infers all types and shapes strictly and compares them with those in
    the file; ONNX Runtime then opens a session, which also covers operators of its own domains.

    Args:
        path: The ``.onnx`` file; external data lies beside it.
        source: The model it was made from. Where that fails strict inference itself (stale
            shapes, operators whose own definition does not infer), the export need not pass it.
        optimised: Also try whether the runtime's optimiser takes it, in a process of its own.

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
    opened = _opens(path)
    return (
        (proved, opened, _optimises(path))
        if optimised and opened.startswith(_OPENS)
        else (proved, opened)
    )


def is_fine(line: str) -> bool:
    """Whether a line of :func:`check_export` says that all is well."""
    return line.startswith(("valid: ", _OPENS, _TAKEN))


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

    options = onnxruntime.SessionOptions()
    # Optimising is not under test here.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    name = f"ONNX Runtime {onnxruntime.__version__}"
    try:
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except NoKernel as error:
        # Valid, as the graph was resolved: the CPU has hardly any bf16 kernel, a target may.
        return f"read by {name}, whose CPU provider has no kernel for it: {_brief(error)}"
    except Exception as error:  # onnxruntime maps its status codes to many kinds
        if _UNKNOWN in str(error):  # a custom operator; the target will have it
            return f"not opened: {name} lacks an operator of yours: {_brief(error)}"
        raise EngineError(f"{path}: ONNX Runtime refuses it: {_brief(error)}") from error
    return f"{_OPENS} {name}"


def _optimises(path: Path) -> str:
    """What comes of the optimiser; its defects are none of the model's."""
    beside = path.with_name(f"{path.name}.data")
    size = sum(file.stat().st_size for file in (path, beside) if file.is_file())
    if size > _OPTIMISED_BYTES:
        return f"ONNX Runtime's optimiser was not tried: the model has {size / 1e9:.1f} GB"
    command = [sys.executable, "-c", _OPTIMISE, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"ONNX Runtime's optimiser was not tried: {_brief(error)}"
    if done.returncode == 0:
        return _TAKEN
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
    why = f"crashes on it (signal {-done.returncode})" if done.returncode < 0 else last[0][:300]
    return (
        f"ONNX Runtime's optimiser for CPUs fails on this valid model: {why}. Remedy there: "
        "graph_optimization_level ORT_ENABLE_EXTENDED or lower"
    )


def _brief(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]
