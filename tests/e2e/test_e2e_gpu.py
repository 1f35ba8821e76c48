"""Engines on GPUs: the shipped suite, a search and a verification by the command line.

Skipped with the probe's reason where there is no such device. On a machine with one,
``TOPSIDEAS_GPU=cuda,tensorrt pytest tests/e2e/test_e2e_gpu.py`` makes what it names obligatory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from e2e_bench import Bench, run_words

from topsideas.testing.diagnosis import opener_of, why_skipped
from topsideas.testing.engine_conformance import CHECKS, NotApplicable, Opener, bf16_rounds

_GPUS: dict[str, tuple[str, dict[str, Any]]] = {
    "cuda": ("onnxruntime", {"provider": "CUDAExecutionProvider"}),
    "tensorrt": ("onnxruntime", {"provider": "TensorrtExecutionProvider"}),
    "intel": ("openvino", {"device": "GPU"}),
}
_DEMANDED = os.environ.get("TOPSIDEAS_GPU", "").split(",")
each_gpu = pytest.mark.parametrize("gpu", _GPUS)


def _on(gpu: str, precision: str = "fp16") -> tuple[str, dict[str, Any]]:
    """The engine and its options; skips, or fails where it was asked for, if it is not here."""
    engine, options = _GPUS[gpu]
    if reason := why_skipped(engine, options, precision=precision):
        if gpu in _DEMANDED and precision == "fp16":
            pytest.fail(f"TOPSIDEAS_GPU names {gpu}: {reason}")
        pytest.skip(reason)
    return engine, options


@each_gpu
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_a_gpu_conforms(gpu: str, check: Callable[[Opener], None]) -> None:
    engine, options = _on(gpu, "bf16" if check is bf16_rounds else "fp16")
    try:
        check(opener_of(engine, options))
    except NotApplicable as reason:
        pytest.skip(str(reason))


@each_gpu
@pytest.mark.parametrize("propose", ["none", "emulator"])
def test_a_search_on_a_gpu_gives_a_plan_that_verifies_there(
    gpu: str, propose: str, squares: Bench
) -> None:
    engine, options = _on(gpu)
    chosen = ["--engine", engine, "--compile_options", json.dumps(options)]
    found = squares.run(*chosen, "--propose", propose, target="onnx").found
    assert found["verdict"] == "pass"
    assert found["engine"]["evidence"] == "measured"
    words = ["onnx", "verify", "--input_onnx", str(squares.model), "--plan", str(squares.json)]
    code, out, err = run_words([*words, "--sample_dir", str(squares.samples), *chosen])
    assert code == 0, err
    assert out.startswith("PASS")
