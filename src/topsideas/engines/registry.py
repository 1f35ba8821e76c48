"""Which engines there are: one line each. Listing them imports none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from topsideas.errors import EngineError

if TYPE_CHECKING:
    from topsideas.engines.base import Engine
    from topsideas.engines.options import EngineOptions
    from topsideas.graph.loading import Model


@dataclass(frozen=True, slots=True)
class Entry:
    """One engine.

    Attributes:
        target: ``module:function`` that opens it: ``(Model, EngineOptions) -> Engine``.
        summary: What it is, for help texts.
        remedy: What to do when it cannot be imported.
    """

    target: str
    summary: str
    remedy: str


_ENGINES = {
    "emulator": Entry(
        "topsideas.engines.emulator.engine:open_emulator",
        "fp16 or bf16 rounding emulated on onnxruntime's fp32 kernels",
        "install onnxruntime 1.20 or newer",
    ),
}

ENGINES: Mapping[str, Entry] = MappingProxyType(_ENGINES)

AUTO = "auto"


def choose(name: str) -> tuple[str, str]:
    """The engine that ``name`` stands for, and a line that says so where it was chosen.

    Raises:
        EngineError: There is no such engine.
    """
    if name == AUTO:
        return "emulator", "engine: emulator (auto: no device engine is part of this version)"
    if name not in ENGINES:
        raise EngineError(f"no engine {name!r}; expected one of: {', '.join([AUTO, *ENGINES])}")
    return name, ""


def open_engine(name: str, model: Model, options: EngineOptions) -> Engine:
    """Open an engine for a model.

    Raises:
        EngineError: It cannot be imported or refuses the model or an option.
    """
    entry = ENGINES[name]
    module, function = entry.target.split(":")
    try:
        opener: Any = getattr(import_module(module), function)
    except ImportError as error:
        raise EngineError(
            f"engine {name!r} cannot start: {error}. Remedy: {entry.remedy}"
        ) from error
    engine: Engine = opener(model, options)
    return engine
