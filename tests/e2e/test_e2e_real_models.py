"""Trained models with real samples, where a folder of them is at hand.

Each folder holds ``model.onnx`` and ``samples/``. They are not part of the project.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import onnxruntime
import pytest

from topsideas.cli import main

MODELS = Path(
    os.environ.get("TOPSIDEAS_MODELS", Path(__file__).parents[2].parent / "shared" / "models")
)

# The largest answer that is acceptable at the default tolerance, from a slow reference search.
LARGEST = {
    "oww_hey_mycroft": 2,
    "oww_hey_mycroft_fn": 2,
    "oww_melspec": 13,
    "lprnet": 6,
    "silero_16k_op15": 3,
    "silero_op18_if": 3,
    "dtln_loop": 0,
}


@pytest.mark.parametrize("name", LARGEST)
def test_answer_is_proved_small_and_deployable(name: str, tmp_path: Path) -> None:
    model = MODELS / name
    if not model.is_dir():
        pytest.skip(f"no folder {name} among the models of {MODELS}; set TOPSIDEAS_MODELS")
    report = tmp_path / "report.json"
    words = ["onnx", "mix_precision", "--finalize", "--input_onnx", str(model / "model.onnx")]
    words += ["--sample_dir", str(model / "samples"), "--workspace", str(tmp_path / "ws")]
    assert main([*words, "--output_json", str(report)]) == 0
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["verdict"] == "pass"
    assert len(found["fp32_nodes"]) <= LARGEST[name]
    assert (found["search"]["one_minimal"], found["search"]["confirmed"]) == (True, True)
    assert len(found["search"]["witnesses"]) == len(found["fp32_nodes"])
    onnxruntime.InferenceSession(found["output_files"]["deploy_model"])


def test_rounding_alone_flags_no_overflow_and_a_power_spectrum_does(tmp_path: Path) -> None:
    flagged = {}
    for name in ("lprnet", "oww_melspec"):
        model, report = MODELS / name, tmp_path / f"{name}.json"
        if not model.is_dir():
            pytest.skip(f"no folder {name} among the models of {MODELS}; set TOPSIDEAS_MODELS")
        words = ["onnx", "mix_precision", "--manual", "--input_onnx", str(model / "model.onnx")]
        words += ["--sample_dir", str(model / "samples"), "--workspace", str(tmp_path / name)]
        assert main([*words, "--output_json", str(report)]) == 1
        statistics = json.loads(report.read_text(encoding="utf-8"))["op_statistic"]
        flagged[name] = {
            op["type"]
            for sample in statistics
            for op in sample.values()
            if any(output["fp16_clip_ratio"] for output in op["outputs"])
        }
    assert flagged["lprnet"] == set()
    assert "Pow" in flagged["oww_melspec"]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_every_model_converts_and_equals_the_emulator(
    precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With no op kept; dozens of models, so that they run on request only."""
    folders = sorted(MODELS.iterdir()) if MODELS.is_dir() else []
    if not folders:
        pytest.skip(f"no models in {MODELS}; set TOPSIDEAS_MODELS")
    if os.environ.get("TOPSIDEAS_FULL") != "1":
        pytest.skip("a second or two for each model: TOPSIDEAS_FULL=1")
    for folder in (f for f in folders if (f / "model.onnx").is_file()):
        words = ["onnx", "convert", "--input_onnx", str(folder / "model.onnx")]
        words += ["--precision", precision, "--sample_dir", str(folder / "samples")]
        assert main([*words, "--output", str(tmp_path / "mixed.onnx")]) == 0, folder.name
        told = capsys.readouterr().out
        assert "check: equal to the emulator in every bit on" in told, folder.name
