"""The worked example of the specification, followed literally on the model that is shipped."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from e2e_bench import PLATE_READER, Outcome, ops, outputs_of, read_report, results, run_words

MODEL = PLATE_READER / "lprnet-pt-op13-fp32-N.onnx"
SAMPLES = PLATE_READER / "lprnet-samples"
ALL_PASS, ALL_SAMPLES = ["pass"] * 8, list(range(8))


def run(folder: Path, *words: str, target: str = "gcu") -> Outcome:
    report = folder / "report.json"
    given = ["--input_onnx", MODEL, "--sample_dir", SAMPLES, "--workspace", folder / "workspace"]
    line = [target, "mix_precision", *map(str, given), "--output_json", str(report), *words]
    code, out, err = run_words(line)
    return Outcome(code, out, err, read_report(report))


def follow(outcome: Outcome) -> Outcome:
    """Run the command that a run suggests, as it stands in the report and on the console."""
    line = outcome.found["next_command"]
    assert f"next, {outcome.found['next_reason']}:\n  {line}\n" in outcome.out
    program, *words = shlex.split(line)
    assert program == "topsideas"
    report = Path(words[words.index("--output_json") + 1])
    code, out, err = run_words(words)
    return Outcome(code, out, err, read_report(report))


def clipped(outcome: Outcome) -> set[int]:
    ratios = outputs_of(outcome.found, "fp16_clip_ratio")
    return {op for op, values in ratios.items() if any(values)}


def clipped_on_read(outcome: Outcome) -> set[int]:
    found = ops(outcome.found)
    return {op for op, on in found.items() if any(s.get("fp16_input_clip_ratio") for s in on)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plates")


@pytest.fixture(scope="module")
def step1(folder: Path) -> Outcome:
    return run(folder, "--manual", "--mode", "CALC")


@pytest.fixture(scope="module")
def step2(step1: Outcome) -> Outcome:
    return follow(step1)


@pytest.fixture(scope="module")
def step3(step2: Outcome) -> Outcome:
    return follow(step2)


@pytest.fixture(scope="module")
def step4(step3: Outcome) -> Outcome:
    return follow(step3)


@pytest.fixture(scope="module")
def auto(folder: Path) -> Outcome:
    return run(folder)


def test_step_1_the_network_fails_in_fp16_and_passes_in_fp32(step1: Outcome) -> None:
    assert step1.code == 1
    assert step1.found["verdict"] == "fail"
    assert results(step1.found, "fp16_golden") == ["fail"] * 8
    assert results(step1.found, "fp32_golden") == ALL_PASS
    assert step1.out.startswith("FAIL  all candidate ops in low precision, margin ")
    assert step1.out.splitlines()[0].endswith(", worst in sample 1")


def test_step_1_only_op_62_overflows_and_nothing_is_nan(step1: Outcome) -> None:
    report = step1.found
    assert clipped(step1) == {62}
    assert clipped_on_read(step1) == set()
    for prefix in ("fp16", "fp32"):
        assert not any(any(v) for v in outputs_of(report, f"{prefix}_check_nan").values())
    assert "ops that overflow, hold NaN or fail: 1, 1 shown" in step1.out
    assert "62  Mul   Mul_62  overflow " in step1.out


def test_step_1_covers_every_op_and_sample(step1: Outcome) -> None:
    report = step1.found
    assert report["samples"] == ALL_SAMPLES
    assert sorted(ops(report)) == list(range(74))
    assert len(report["op_statistic"]) == len(report["model_outputs"]) == 8


def test_step_2_with_62_in_fp32_the_network_still_fails_and_now_63_overflows(
    step2: Outcome,
) -> None:
    assert step2.code == 1
    assert step2.found["fp32_nodes"] == [62]
    assert results(step2.found, "fp16_golden") == ["fail"] * 8
    assert clipped(step2) == set()
    assert clipped_on_read(step2) == {63}
    assert "63  ReduceMean  ReduceMean_63  overflow on read (" in step2.out
    assert "62  Mul   Mul_62  asked for" in step2.out


def test_step_3_with_62_and_63_in_fp32_the_network_passes(step3: Outcome) -> None:
    assert step3.code == 0
    assert step3.found["fp32_nodes"] == [62, 63]
    assert step3.found["verdict"] == "pass"
    assert results(step3.found, "fp16_golden") == ALL_PASS
    assert clipped(step3) == clipped_on_read(step3) == set()
    assert step3.out.startswith("PASS  2 ops in fp32, margin 0.")
    assert "under this plan none of 74 ops overflows, holds NaN or fails" in step3.out


def test_step_4_finalize_writes_the_model_to_deploy_without_statistics(step4: Outcome) -> None:
    assert step4.code == 0
    assert step4.found["op_statistic"] == []
    assert step4.found["next_command"] == ""
    assert results(step4.found, "fp16_golden") == ALL_PASS
    assert f"deploy_model: {step4.found['output_files']['deploy_model']}\n" in step4.out
    assert "next, " not in step4.out


def test_the_model_to_deploy_is_half_as_large_and_keeps_its_interface(step4: Outcome) -> None:
    path = Path(step4.found["output_files"]["deploy_model"])
    source, deployed = onnx.load(MODEL), onnx.load(path)
    onnx.checker.check_model(deployed, full_check=True)
    assert path.stat().st_size < 0.6 * MODEL.stat().st_size
    assert [i.type for i in deployed.graph.input] == [i.type for i in source.graph.input]
    assert [o.type for o in deployed.graph.output] == [o.type for o in source.graph.output]
    types = {w.data_type for w in deployed.graph.initializer if len(w.dims) > 1}
    assert types == {onnx.TensorProto.FLOAT16}


def test_the_model_to_deploy_reads_the_plates_in_onnxruntime(step4: Outcome) -> None:
    session = ort.InferenceSession(step4.found["output_files"]["deploy_model"])
    for number in ALL_SAMPLES:
        with np.load(SAMPLES / f"sample{number}_inputs.npz") as inputs:
            (found,) = session.run(None, dict(inputs))
        with np.load(SAMPLES / f"sample{number}_outputs.npz") as golden:
            np.testing.assert_allclose(found, golden["output"], rtol=2e-2, atol=2e-2)


def test_auto_finds_62_and_63_and_proves_each_of_them_needed(auto: Outcome) -> None:
    search = auto.found["search"]
    assert auto.code == 0
    assert auto.found["fp32_nodes"] == [62, 63]
    assert [op["name"] for op in auto.found["fp32_ops"]] == ["Mul_62", "ReduceMean_63"]
    assert search["one_minimal"]
    assert search["overflowing"] == [62, 63]
    assert [w["id"] for w in search["witnesses"]] == [62, 63]
    assert all(w["margin"] > 1 for w in search["witnesses"])
    assert search["before"]["margin"] > 100
    assert search["after"]["margin"] == auto.found["margin"] < 1
    assert search["evaluations"] <= 6


def test_auto_says_on_the_console_what_the_report_holds(auto: Outcome) -> None:
    lines = auto.out.splitlines()
    assert lines[0].startswith("PASS  2 ops in fp32, margin 0.")
    assert any(
        line.startswith("62  Mul         Mul_62         output overflow; without it sample ")
        for line in lines
    )
    evaluations = auto.found["search"]["evaluations"]
    before = auto.found["search"]["before"]["margin"]
    assert f"search: all ops low: {before:.4g}, {evaluations} evaluations, " in auto.out
    assert "1-minimal: each op was shown to be needed" in auto.out
    assert auto.found["next_command"].endswith("--manual --fp32_nodes 62 63 --finalize")


def test_auto_again_answers_from_the_workspace(folder: Path, auto: Outcome) -> None:
    again = run(folder)
    assert again.code == 0
    assert again.found["search"]["evaluations"] == 0
    assert all(question["recalled"] for question in again.found["search"]["trace"])
    for key in ("fp32_nodes", "margin", "verdict", "model_outputs", "op_statistic"):
        assert again.found[key] == auto.found[key]
    assert again.found["search"]["witnesses"] == auto.found["search"]["witnesses"]


def test_with_infinities_the_plates_still_read_right(tmp_path: Path) -> None:
    """What the demo's page claims: the branch vanishes, and greedy decoding does not notice."""
    validator = f"{PLATE_READER / 'decode.py'}:plates_match"
    outcome = run(tmp_path, "--val_func", validator, target="onnx")
    assert (outcome.code, outcome.found["fp32_nodes"]) == (0, [])
    assert outcome.found["search"]["evaluations"] == 1
    assert outcome.found["margin"] is None
    assert results(outcome.found, "fp16_golden") == ["fail"] * 8
