"""Puts the stand-in SDK where the engine looks for it, and says what its profile is."""

from __future__ import annotations

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from topsideas.engines.options import EngineOptions
from topsideas.engines.registry import open_here
from topsideas.graph.loading import Model
from topsideas.precision import Numerics

FOLDER = Path(__file__).parent

PROFILE: dict[str, Any] = {
    "fp32_key": "fp32_op_ids",
    "ir_id": "op_id",
    "compare_options": {"op_compare": True},
    "statistics_options": {"op_statistic": {"dir": "{folder}", "le": "{le}", "ge": "{ge}"}},
    "statistics_files": "op_statistic_*.json",
    "dump_options": {"op_dump": "{folder}"},
    "dump_pattern": r"op_(?P<id>\d+)_out_(?P<output>\d+)\.npy",
}
"""What a user would write down about the stand-in, which no public document tells."""


def use_standin(monkeypatch: pytest.MonkeyPatch, **config: Any) -> None:
    """Make ``TopsInference`` importable here and in child processes.

    Args:
        monkeypatch: Undoes it.
        config: How the stand-in behaves; see its docstring.
    """
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("STANDIN", json.dumps(config))
    # The engine sets this one itself, before it imports the SDK; here, so that it is undone.
    monkeypatch.setenv("COMPILE_OPTIONS_MLIR_DBG", "")
    spec = spec_from_file_location("TopsInference", FOLDER / "TopsInference.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "TopsInference", module)
    spec.loader.exec_module(module)


def open_standin(model: Model, numerics: Numerics, profile: Any = None, **options: Any) -> Any:
    """The engine on the stand-in, in this process: tests need no child for each model."""
    own = {"sdk_profile": PROFILE if profile is None else profile}
    asked = EngineOptions(numerics=numerics, compile_options=own, **options)
    return open_here("topsinference", model, asked)
