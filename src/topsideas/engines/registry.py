"""Which engines there are: one line each, and those of other packages. Listing imports none.

Another package adds an engine by an entry point of the group ``topsideas.engines`` whose value is
``module:function``, the function that opens it. Every engine's module also has ``probe``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from topsideas.errors import EngineError

if TYPE_CHECKING:
    from topsideas.engines.base import Engine, Probe
    from topsideas.engines.options import EngineOptions
    from topsideas.graph.loading import Model

GROUP = "topsideas.engines"
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Entry:
    """One engine.

    Attributes:
        target: ``module:function`` that opens it: ``(Model, EngineOptions) -> Engine``. The
            module's ``probe(EngineOptions) -> Probe`` tells what it is here.
        summary: What it is, for help texts.
        remedy: What to do when it cannot be imported.
        isolated: Whether it always runs in a child process.
        numbers_ops: Whether it may number ops itself, so that ids cannot be checked before it is
            open.
        overflow: What a value beyond the low format becomes on it, where it decides; empty
            where the user does.
    """

    target: str
    summary: str
    remedy: str
    isolated: bool = False
    numbers_ops: bool = False
    overflow: str = ""


_OWN = {
    "emulator": Entry(
        "topsideas.engines.emulator.engine:open_emulator",
        "fp16 or bf16 rounding emulated on onnxruntime's fp32 kernels",
        "install onnxruntime 1.20 or newer",
    ),
    "openvino": Entry(
        "topsideas.engines.openvino.engine:open_openvino",
        "real fp16 or bf16 on CPUs that have it, and on Intel GPUs",
        "pip install 'topsideas[openvino]'",
        overflow="inf",
    ),
    "onnxruntime": Entry(
        "topsideas.engines.onnxruntime.engine:open_onnxruntime",
        "a device's execution provider (CUDA, TensorRT, ...) on the mixed-precision model",
        "pip install onnxruntime-gpu, or the build of onnxruntime that has your provider",
        overflow="inf",
    ),
    "topsinference": Entry(
        "topsideas.engines.topsinference.engine:open_topsinference",
        "an Enflame GCU, through the vendor's TopsInference module",
        "install the TopsInference wheel of Enflame's SDK (TopsRider) into this Python",
        isolated=True,
        numbers_ops=True,
        overflow="saturate",
    ),
}


def _third_party() -> dict[str, Entry]:
    """Engines of installed packages; they cannot replace one of ours."""
    found = {}
    for point in entry_points(group=GROUP):
        package = point.dist.name if point.dist is not None else point.module
        entry = Entry(point.value, f"engine of the package {package}", f"reinstall {package}")
        found[point.name] = entry
    return found


ENGINES: Mapping[str, Entry] = MappingProxyType({**_third_party(), **_OWN})


def choose(name: str, target: str = "gcu") -> tuple[str, str]:
    """The engine that ``name`` stands for, and a line that says so where it was chosen.

    Args:
        name: An engine's name, or ``auto``.
        target: ``gcu``, for which ``auto`` is the vendor's engine where it can be imported, or
            ``onnx``, for which it is the emulator.

    Raises:
        EngineError: There is no such engine.
    """
    if name == AUTO:
        return _automatic(target)
    if name not in ENGINES:
        raise EngineError(f"no engine {name!r}; expected one of: {', '.join([AUTO, *ENGINES])}")
    return name, ""


def _automatic(target: str) -> tuple[str, str]:
    if target != "gcu":
        return "emulator", "engine: emulator (auto; --engine NAME measures on a device)"
    if find_spec("TopsInference") is not None:
        return "topsinference", "engine: topsinference (auto: TopsInference is installed)"
    return "emulator", "engine: emulator (auto: TopsInference is not installed here)"


def open_engine(name: str, model: Model, options: EngineOptions) -> Engine:
    """Open an engine for a model.

    Raises:
        EngineError: It cannot be imported or refuses the model or an option.
    """
    if options.isolation is not None or ENGINES[name].isolated:
        from topsideas.engines.isolated.engine import IsolatedEngine

        entry = ENGINES[name]
        return IsolatedEngine(name, model, options, entry.target, entry.remedy)
    return open_here(name, model, options)


def open_here(name: str, model: Model, options: EngineOptions) -> Engine:
    """Open an engine in this process; see :func:`open_engine`."""
    engine: Engine = _attribute(name, "")(model, options)
    return engine


def probe_engine(name: str, options: EngineOptions) -> Probe:
    """What an engine is on this machine. Raises EngineError where it cannot be imported."""
    found: Probe = _attribute(name, "probe")(options)
    return found


def _attribute(name: str, wanted: str) -> Any:
    """An engine's opener, or another function of its module."""
    entry = ENGINES[name]
    module, _, function = entry.target.partition(":")
    try:
        return getattr(import_module(module), wanted or function)
    except (ImportError, AttributeError) as error:
        raise EngineError(
            f"engine {name!r} cannot start: {error}. Remedy: {entry.remedy}"
        ) from error
