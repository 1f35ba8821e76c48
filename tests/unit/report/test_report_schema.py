"""The shipped schema takes what a report is and refuses what it is not."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest

from topsideas.report.document import SCHEMA_VERSION
from topsideas.report.schema import report_schema

COMPARISON = {
    "result": "fail",
    "margin": None,
    "element_count": 4,
    "exceed_tol_count": 4,
    "nan_count": 1,
    "inf_count": 0,
    "cos_sim_value": None,
    "norm_rel": 1.0,
    "max_abs_err": None,
    "max_rel_err": 0.5,
}
CALC = {
    f"{run}_{field}": value
    for run in ("fp16", "fp32")
    for field, value in {
        "ge_ratio": 0.5,
        "le_ratio": None,
        "clip_ratio": 1,
        "check_nan": False,
    }.items()
}
RAW = {
    "fp16_element_count": 4,
    "fp16_nan_count": 0,
    "fp16_inf_count": 0,
    "fp32_element_count": 4,
    "fp32_nan_count": 0,
    "fp32_inf_count": 0,
    "numpy_allclose": "pass",
    "exceed_tol_count": 0,
    "cos_sim_value": -1,
    "norm_rel": None,
}
OP = {"id": 2, "type": "Mul", "name": "", "path": "main/Mul_2"}
KEPT = OP | {"asked": True}
VERDICT = {"passed": False, "margin": 3.5, "sample": 0, "output": "y", "note": ""}


def manual() -> dict[str, Any]:
    """A report of manual mode in which every kind of statistic occurs."""
    pairs = dict.fromkeys(("fp16_golden", "fp32_golden", "fp16_fp32"), COMPARISON)
    report = {
        "schema_version": SCHEMA_VERSION,
        "topsideas_version": "1.2.3",
        "mode": "manual",
        "verdict": "fail",
        "margin": None,
        "decided_by": {"sample": 0, "output": "y", "note": "not finite"},
        "fp32_nodes": [2],
        "fp32_ops": [KEPT],
        "engine": {"name": "e", "version": "1", "device": "CPU", "evidence": "emulated"},
        "model": {
            "path": None,
            "sha256": "0" * 64,
            "opset": 17,
            "ops": 3,
            "candidates": 3,
            "functions_inlined": False,
            "inputs": ["x"],
            "outputs": ["y"],
        },
        "options": {
            "manual": True,
            "finalize": False,
            "engine": "auto",
            "propose": "auto",
            "max_builds": 4,
            "precision": "fp16",
            "overflow": "saturate",
            "compile_options": {"level": 2},
            "resource_mode": None,
            "mode": "CALC",
            "rtol": 0.01,
            "atol": 0.0,
            "ntol": 0.0,
            "cos_sim": None,
            "margin": 1.0,
            "le_value_thres": 0.0,
            "ge_value_thres": 65504.0,
            "val_func": None,
            "val_scope": "sample",
            "holdout": 0,
            "objective": "ops",
            "pareto": False,
            "memory_limit": None,
            "max_evaluations": None,
            "time_limit": None,
            "fp32_nodes": ["2"],
            "command": [],
        },
        "notes": [],
        "next_command": "",
        "next_reason": "",
        "output_files": {
            f"{prefix}_{kind}": "file"
            for prefix in ("fp16", "fp32")
            for kind in ("executable", "hlir")
        },
        "model_outputs": [{"y": pairs}],
        "op_statistic": [
            {
                "2": {**OP, "outputs": [CALC], "fp16_input_clip_ratio": 0.25},
                "10": {**OP, "id": 10, "outputs": [RAW]},
            }
        ],
        "samples": [0],
    }
    return copy.deepcopy(report)


def auto() -> dict[str, Any]:
    """A report of auto mode."""
    report = manual()
    report["mode"] = "auto"
    needed = {"overflows": True, "felt_margin": None, "witness": VERDICT}
    report["fp32_ops"] = [KEPT | needed | {"cost": 8.0, "saves": False}]
    report["cost"] = {
        "answer": 8.0,
        "all_low": 0.0,
        "all_fp32": 24.0,
        "base": 100.0,
        "unit": "bytes",
        "measured": False,
    }
    report["search"] = {
        "evaluations": 5,
        "seconds": 0.1,
        "one_minimal": True,
        "stopped": "",
        "before": VERDICT,
        "after": VERDICT,
        "holdout": None,
        "refuted": 0,
        "confirmed": True,
        "pareto_evaluations": 0,
        "pareto_stopped": "",
        "proposal": None,
        "overflowing": [2],
        "witnesses": [OP | VERDICT],
        "trace": [
            {
                "phase": "all low",
                "size": 0,
                "passed": False,
                "margin": None,
                "seconds": 0.0,
                "recalled": False,
            }
        ],
    }
    return copy.deepcopy(report)


def errors(report: dict[str, Any]) -> list[str]:
    validator = jsonschema.Draft202012Validator(report_schema())
    return [error.json_path for error in validator.iter_errors(report)]


def test_the_schema_is_one_of_draft_2020_12() -> None:
    schema = report_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema_version"] == {"const": SCHEMA_VERSION}


@pytest.mark.parametrize("make", [manual, auto])
def test_a_report_is_taken(make: Any) -> None:
    assert errors(make()) == []


@pytest.mark.parametrize("key", sorted(auto()))
def test_no_key_may_be_missing(key: str) -> None:
    report = auto()
    del report[key]
    assert errors(report) == ["$"]


def test_a_search_belongs_to_auto_mode_only() -> None:
    found = {key: auto()[key] for key in ("cost", "search")}
    assert errors(manual() | found) == ["$"]
    assert errors(manual() | {"mode": "auto"}) == ["$"]


def test_a_refusal_has_no_search_no_files_and_fails() -> None:
    refused = manual() | {"mode": "auto", "output_files": {}, "op_statistic": []}
    assert errors(refused) == []
    assert errors(refused | {"verdict": "pass"}) == ["$"]
    # By hand it is a run that a full disk left without files.
    assert errors(refused | {"mode": "manual"}) == []
    assert errors(refused | {"next_command": "again"}) == ["$"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["schema_version"], 2),
        (["mode"], "automatic"),
        (["verdict"], "passed"),
        (["verdict"], True),
        (["margin"], "inf"),
        (["margin"], -1),
        (["decided_by", "sample"], -1),
        (["decided_by", "note"], None),
        (["fp32_nodes"], ["2"]),
        (["fp32_nodes"], [2, 2]),
        (["fp32_nodes"], [2.5]),
        (["fp32_ops", 0, "overflows"], "yes"),
        (["fp32_ops", 0, "witness"], {}),
        (["engine", "evidence"], "guessed"),
        (["engine", "overflow"], "wrap"),
        (["model", "sha256"], "abc"),
        (["model", "opset"], 0),
        (["options", "precision"], "fp8"),
        (["options", "rtol"], -1),
        (["options", "cos_sim"], 0),
        (["options", "margin"], 1.5),
        (["options", "compile_options"], []),
        (["notes"], [1]),
        (["output_files", "fp16_executable"], None),
        (["output_files", "other"], "file"),
        (["model_outputs", 0, "y", "fp16_golden"], None),
        (["model_outputs", 0, "y", "fp16_golden", "result"], "ok"),
        (["model_outputs", 0, "y", "fp16_golden", "cos_sim_value"], 1.5),
        (["model_outputs", 0, "y", "fp16_golden", "nan_count"], 0.5),
        (["model_outputs", 0, "y", "other"], COMPARISON),
        (["op_statistic", 0, "mul"], {**OP, "outputs": []}),
        (["op_statistic", 0, "02"], {**OP, "outputs": []}),
        (["op_statistic", 0, "2", "outputs", 0, "fp16_ge_ratio"], 1.5),
        (["op_statistic", 0, "2", "outputs", 0, "fp32_check_nan"], 1),
        (["op_statistic", 0, "2", "outputs", 0, "cos_sim_value"], 1),
        (["op_statistic", 0, "10", "outputs", 0, "numpy_allclose"], True),
        (["op_statistic", 0, "10", "outputs", 0, "norm_rel"], "nan"),
        (["op_statistic", 0, "2", "fp16_input_clip_ratio"], 2),
        (["samples"], [0, 0]),
        (["search", "stopped"], "bored"),
        (["search", "one_minimal"], None),
        (["search", "before"], None),
        (["search", "witnesses", 0, "passed"], True),
        (["search", "trace", 0, "size"], -1),
        (["search", "other"], 1),
        (["other"], 1),
    ],
)
def test_a_wrong_value_or_an_unknown_key_is_refused(path: list[Any], value: object) -> None:
    report = auto()
    *parents, last = path
    place = report
    for key in parents:
        place = place[key]
    place[last] = value
    assert errors(report)


@pytest.mark.parametrize("run", ["fp16", "fp32"])
def test_an_op_that_ran_in_one_run_has_only_that_ones_fields(run: str) -> None:
    report = manual()
    outputs = report["op_statistic"][0]["2"]["outputs"]
    outputs[0] = {key: value for key, value in CALC.items() if key.startswith(run)}
    assert errors(report) == []
    del outputs[0][f"{run}_check_nan"]
    assert len(errors(report)) == 1
