"""``doctor``, ``onnx verify``, and engines chosen on the command line."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e_bench import SQUARES_ANSWER, Bench, plain_bench, run_words, squares_bench

from tests.standin.misbehaving import TARGET
from topsideas import __version__
from topsideas.engines import registry
from topsideas.report.diagnosis import show_engines


def test_doctor_examines_one_engine_in_full() -> None:
    code, out, err = run_words(["doctor", "--full", "emulator"])
    assert (code, err) == (0, "")
    assert "low_ops_round" in out
    assert "pass, 16 of 16 checks apply" in out


def test_doctor_says_why_an_engine_is_not_examined() -> None:
    options = '{"provider": "CPUExecutionProvider"}'
    words = ["doctor", "--full", "onnxruntime", "--compile_options", options]
    code, out, _ = run_words(words)
    assert code == 0
    assert "300*300/300 gives 300 and not infinity" in out
    assert "not run" in out


def test_doctor_survives_an_engine_that_dies(capsys: pytest.CaptureFixture[str]) -> None:
    probe = {"version": "", "device": "", "evidence": "", "low": {}, "remedy": ""}
    check = {"name": "the suite", "result": "fail", "why": "it died", "what": ""}
    show_engines([{"name": "bad", "probe": probe, "checks": [check]}])
    assert "FAIL: 1 of 1 checks" in capsys.readouterr().out


@pytest.fixture
def found(tmp_path: Path) -> tuple[Bench, Path]:
    """A bench and the report of a search on it."""
    bench = squares_bench(tmp_path)
    assert bench.run(target="onnx").code == 0
    return bench, bench.json


def _verify(bench: Bench, plan: Path, *more: str) -> tuple[int, str, str, Any]:
    target = bench.folder / "verified.json"
    words = ["onnx", "verify", "--input_onnx", str(bench.model), "--plan", str(plan)]
    words += ["--sample_dir", str(bench.samples), "--output_json", str(target)]
    code, out, err = run_words([*words, *more])
    return code, out, err, json.loads(target.read_text()) if target.exists() else None


def test_a_plan_is_verified_again(found: tuple[Bench, Path]) -> None:
    bench, report = found
    code, out, _, verified = _verify(bench, report)
    assert code == 0
    assert out.startswith("PASS  2 ops in fp32")
    assert verified["fp32_nodes"] == SQUARES_ANSWER
    assert verified["found_on"]["name"] == "emulator"
    assert [s["passed"] for s in verified["samples"]] == [True, True]


def test_a_plan_of_another_version_is_said_to_be(found: tuple[Bench, Path]) -> None:
    bench, report = found
    data = json.loads(report.read_text())
    data["engine"]["version"] = "onnxruntime 0.0"
    data["fp32_nodes"] = []
    report.write_text(json.dumps(data))
    code, out, _, verified = _verify(bench, report)
    assert code == 1
    assert "FAIL  0 ops in fp32" in out
    assert any("another engine (version onnxruntime 0.0)" in n for n in verified["notes"])


def test_a_plan_of_another_model_is_refused_unless_asked_for(found: tuple[Bench, Path]) -> None:
    bench, report = found
    data = json.loads(report.read_text())
    data["model"]["sha256"] = "0" * 64
    report.write_text(json.dumps(data))
    code, _, err, verified = _verify(bench, report)
    assert (code, verified) == (2, None)
    assert "found for another model" in err
    assert "--other_model" in err
    code, _, _, verified = _verify(bench, report, "--other_model")
    assert code == 0
    assert any("found for another model" in note for note in verified["notes"])


def test_verifying_uses_the_reports_rule(found: tuple[Bench, Path]) -> None:
    bench, report = found
    assert _verify(bench, report, "--rtol", "1e-5", "--atol", "1e-7")[3]["verdict"] == "fail"
    data = json.loads(report.read_text())
    data["options"] |= {"rtol": 1e-5, "atol": 0}
    strict = bench.file("strict.json", json.dumps(data))
    assert _verify(bench, strict)[3]["verdict"] == "fail"
    plain = bench.file("plan.txt", "square\nroot\n")
    assert _verify(bench, plain, "--isolate")[0] == 0


def test_golden_files_of_another_model_are_refused(found: tuple[Bench, Path]) -> None:
    bench, report = found
    x = {"x": np.ones((2, 4), np.float32)}
    bench.sample(0, x, {"y": np.full((2, 4), 9, np.float32)})
    code, _, err, verified = _verify(bench, report)
    assert (code, verified) == (1, None)
    assert "even with every op in fp32" in err


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (("--engine", "onnxruntime"), 3, "no evidence"),
        (("--propose", "emulator", "--engine", "emulator"), 2, "expected another --engine"),
        (("--engine", "topsinference"), 3, "Remedy: install the TopsInference wheel"),
        (("--run_timeout", "0"), 2, "expected a number of seconds above 0"),
        (("--max_builds", "0"), 2, "expected a whole number of at least 1"),
    ],
)
def test_what_cannot_be_is_refused(
    flags: tuple[str, ...], code: int, text: str, squares: Bench
) -> None:
    import onnxruntime

    if "onnxruntime" in flags and len(onnxruntime.get_available_providers()) > 2:
        pytest.skip("a provider other than the CPU's is here")
    outcome = squares.run(*flags)
    assert (outcome.code, outcome.report) == (code, None)
    assert text in outcome.err


def test_any_engine_may_be_isolated(squares: Bench) -> None:
    found = squares.run("--isolate", "--run_timeout", "60", target="onnx").found
    assert found["fp32_nodes"] == SQUARES_ANSWER
    assert found["search"]["one_minimal"]


def test_an_engine_runs_in_another_python(squares: Bench, tmp_path: Path) -> None:
    """As where the vendor's SDK is made for one: what runs there is not what runs here."""
    other = tmp_path / "python"
    other.write_text(f'#!/bin/sh\necho "$$" >> "$0.log"\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    found = squares.run("--engine_python", str(other), target="onnx").found
    assert found["fp32_nodes"] == SQUARES_ANSWER
    assert found["options"]["engine_python"] == str(other)
    words = ["onnx", "verify", "--input_onnx", str(squares.model), "--plan", str(squares.json)]
    words += ["--sample_dir", str(squares.samples), "--engine_python", str(other)]
    assert run_words(words)[0] == 0
    assert len((tmp_path / "python.log").read_text().split()) == 2


def test_another_python_that_does_not_fit_is_said(squares: Bench, tmp_path: Path) -> None:
    outcome = squares.run("--engine_python", "/no/such/python", target="onnx")
    assert (outcome.code, outcome.report) == (3, None)
    assert "cannot start: /no/such/python: No such file or directory" in outcome.err
    other = tmp_path / "python"
    code = "import runpy, topsideas; topsideas.__version__ = '0.0.1'; "
    code += "runpy.run_module('topsideas.engines.isolated.child', run_name='__main__')"
    other.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}"\n')
    other.chmod(0o755)
    outcome = squares.run("--engine_python", str(other), target="onnx")
    assert (outcome.code, outcome.report) == (3, None)
    assert f"has topsideas 0.0.1, not {__version__}" in outcome.err


def test_other_packages_add_engines(monkeypatch: pytest.MonkeyPatch, squares: Bench) -> None:
    point = EntryPoint("mine", TARGET, registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    added = registry._third_party()
    assert added["mine"].target == TARGET
    monkeypatch.setattr(registry, "ENGINES", {**registry.ENGINES, **added})
    for name in ("flags", "mix_precision", "options"):
        monkeypatch.setattr(f"topsideas.cli.{name}.ENGINES", registry.ENGINES)
    found = squares.run("--engine", "mine", target="onnx").found
    assert found["engine"]["name"] == "misbehaving"
    assert found["fp32_nodes"] == SQUARES_ANSWER


def test_ops_that_are_low_already_are_noted(tmp_path: Path) -> None:
    """The CPU provider gives 300 for 300 * 300 / 300 in fp16, and no emulation is between."""
    text = """(float[1] x) => (float[1] y) <float c = {300}> {
        h = Cast <to = 10> (x)
        k = Cast <to = 10> (c)
        a = Mul (h, k)
        b = Div (a, k)
        w = Cast <to = 1> (b)
        y = Neg (w)
    }"""
    bench = plain_bench(tmp_path, text, {"x": np.array([300], np.float32)})
    notes = bench.run(target="onnx").found["notes"]
    assert any("ops 2, 3 are fp16 or bf16 in your model already" in note for note in notes)
