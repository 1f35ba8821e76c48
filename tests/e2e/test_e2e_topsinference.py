"""The worked example of the specification, step by step, through the GCU's engine.

The SDK is the stand-in of ``tests/standin``; nothing here ran on a GCU.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from e2e_bench import (
    PLATE_READER,
    SQUARES_ANSWER,
    Bench,
    Outcome,
    outputs_of,
    read_report,
    results,
    run_words,
)

from tests.standin.setup import PROFILE, use_standin
from topsideas.gcu.mix_precision.auto_mix_precision import AutoMixPrecision
from topsideas.testing.planted import parse

MODEL = PLATE_READER / "lprnet-pt-op13-fp32-N.onnx"
SAMPLES = PLATE_READER / "lprnet-samples"


class _Gcu:
    """A workspace and a profile on the stand-in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.report = folder, folder / "report.json"
        (folder / "profile.json").write_text(json.dumps(PROFILE), encoding="utf-8")

    def run(self, *more: str) -> Outcome:
        options = json.dumps({"sdk_profile": str(self.folder / "profile.json")})
        words = ["gcu", "mix_precision", "--input_onnx", str(MODEL), "--sample_dir", str(SAMPLES)]
        words += ["--workspace", str(self.folder / "ws"), "--output_json", str(self.report)]
        code, out, err = run_words([*words, "--compile_options", options, *more])
        return Outcome(code, out, err, read_report(self.report))


@pytest.fixture
def gcu(tmp_path: Path) -> _Gcu:
    return _Gcu(tmp_path)


def _overflowing(report: dict[str, Any]) -> list[int]:
    ratios = outputs_of(report, "fp16_clip_ratio")
    return [op for op, values in ratios.items() if any(values)]


def test_by_hand_in_four_steps(gcu: _Gcu, monkeypatch: pytest.MonkeyPatch) -> None:
    use_standin(monkeypatch, style="strings", options="json")
    first = gcu.run("--manual", "--mode", "CALC")
    assert first.code == 1
    assert "engine: topsinference (auto: TopsInference is installed)" in first.found["notes"]
    assert set(results(first.found, "fp16_golden")) == {"fail"}
    assert set(results(first.found, "fp32_golden")) == {"pass"}
    assert _overflowing(first.found) == [62]  # 63 reads what 62 saturated
    assert first.found["op_statistic"][0]["0"]["type"] == "conv_bias"

    second = gcu.run("--manual", "--mode", "CALC", "--fp32_nodes", "62")
    assert second.code == 1
    # 62 is computed in fp32 now; what its reader makes of it is read in fp16.
    assert any("bit for bit" in note for note in second.found["notes"])

    raw = gcu.run("--manual", "--mode", "RAW", "--fp32_nodes", "62", "63")
    assert (raw.code, set(results(raw.found, "fp16_golden"))) == (0, {"pass"})
    assert outputs_of(raw.found, "numpy_allclose")[63] == ["pass"] * 8

    last = gcu.run("--manual", "--fp32_nodes", "62", "63", "--finalize")
    assert last.code == 0
    assert last.found["op_statistic"] == []
    files = last.found["output_files"]
    assert files["deploy_model"] == files["fp16_executable"]
    assert Path(files["deploy_model"]).read_bytes().startswith(b"STANDIN")
    assert "dtu_hlir.conv_bias" in Path(files["fp16_hlir"]).read_text()
    assert last.found["next_command"] == ""


def test_auto_mode_proposes_and_verifies(gcu: _Gcu, monkeypatch: pytest.MonkeyPatch) -> None:
    use_standin(monkeypatch, style="lists", options="dict", offset=100)
    found = gcu.run().found
    assert found["fp32_nodes"] == [162, 163]
    assert found["engine"]["name"] == "topsinference"
    assert found["engine"]["version"] == "0.0standin"
    assert [op["type"] for op in found["fp32_ops"]] == ["mul", "reduce_mean"]
    assert found["search"]["one_minimal"]
    proposal = found["search"]["proposal"]
    assert proposal["proposer"]["name"] == "emulator"
    assert proposal["builds"] <= 4
    assert proposal["rounds"][0]["ops"] == [162, 163]


@pytest.mark.parametrize(
    ("config", "flags", "text"),
    [
        ({"crash": "build"}, (), "killed by SIGABRT; its log ends: stand-in: the build dies"),
        (
            {"hang": "run"},
            ("--run_timeout", "1", "--build_timeout", "8"),
            "gave no answer within",
        ),
    ],
    ids=["crash", "hang"],
)
def test_a_crash_and_a_hang_are_verdicts(
    config: dict[str, Any],
    flags: tuple[str, ...],
    text: str,
    squares: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_standin(monkeypatch, when_kept=SQUARES_ANSWER[1:], **config)
    options = json.dumps({"sdk_profile": PROFILE})
    found = squares.run("--propose", "none", "--compile_options", options, *flags).found
    assert (found["verdict"], found["fp32_nodes"]) == ("pass", SQUARES_ANSWER)
    assert text in str(found["search"]["witnesses"][0]["note"])


def test_without_a_way_to_keep_ops_nothing_is_pretended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_standin(monkeypatch)
    words = ["gcu", "mix_precision", "--input_onnx", str(MODEL), "--sample_dir", str(SAMPLES)]
    code, _, err = run_words([*words, "--workspace", str(tmp_path / "ws")])
    assert code == 3
    assert "leaves no way of keeping ops in fp32" in err


def test_the_python_api_returns_the_vendors_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    use_standin(monkeypatch)
    model = parse("""g (float[2,4] x) => (float[2,4] y) <float c = {300}> {
        [scale] a = Mul (x, c)
        [square] s = Mul (a, a)
        [root] r = Sqrt (s)
        [unscale] y = Div (r, c)
    }""")
    x = np.linspace(1, 2, 8, dtype=np.float32).reshape(2, 4)
    tool = AutoMixPrecision(model, ["x"], [[2, 4]], compile_options={"sdk_profile": PROFILE})
    ids = tool.run([x], [x])
    assert ids == [1, 2]
    engine, outputs = tool.finalize(ids), []
    assert type(engine).__module__ == "TopsInference"
    engine.run([x], outputs, 0)
    np.testing.assert_allclose(outputs[0], x, rtol=1e-2)


def test_probe_writes_down_what_the_sdk_offers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "offers.json"
    code, _, err = run_words(["gcu", "probe", "--output_json", str(target)])
    assert code == 3
    assert "cannot import TopsInference" in err
    assert not target.exists()
    use_standin(monkeypatch, style="lists", layers=True)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "standin"))
    code, out, err = run_words(["gcu", "probe", "--output_json", str(target)])
    assert code == 0, err
    found = json.loads(target.read_text())
    assert found["version"] == "0.0standin"
    assert found["styles"]["arguments"] == "lists"
    assert "get_layer" in found["names"]["network"]
    assert "KFP16_MIX" in found["names"]["module"]
    assert "dtu_hlir.conv_bias" in found["dump"]
    assert "run: works" in out


def test_onnx_fp16_is_for_those_who_allow_it(gcu: _Gcu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Public calls only: the typed model itself, and ids of ONNX nodes."""
    use_standin(monkeypatch)
    profile = json.dumps({"sdk_profile": {"allow_onnx_fp16": True}})
    found = gcu.run("--manual", "--fp32_nodes", "62", "63", "--compile_options", profile)
    assert found.code == 0, found.err
    assert found.found["engine"]["strategy"] == "onnx_fp16"
    assert found.found["fp32_ops"][0]["type"] == "Mul"
    assert any("no op statistics" in note for note in found.found["notes"])
    assert onnx.load(str(MODEL)).graph.node[62].op_type == "Mul"
