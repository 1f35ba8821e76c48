"""The parts of the benchmarks that compute: reading answers, judging them, rendering tables."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from benchmarks import large_model, results, summary
from benchmarks.emulate_file import emulate
from benchmarks.environments import ROOT
from benchmarks.job import Job, margin
from benchmarks.mapping import kept_ops
from benchmarks.peers import main
from benchmarks.problems import find_problems
from benchmarks.rows import shortened, status
from topsideas.graph.conversion import convert
from topsideas.graph.loading import load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics
from topsideas.testing.planted import Planted, parse, planted_models

PLANTED = [p for p in planted_models() if p.numerics == Numerics()]


@pytest.mark.parametrize(
    ("out", "ref", "expected"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.01], [1.0], 0.5),
        ([math.nan, math.inf], [math.nan, math.inf], 0.0),
        ([math.nan], [1.0], math.inf),
        ([1.0, 1.0], [1.0], math.inf),
        ([], [], 0.0),
        (np.array([1, 2]), np.array([1, 2]), 0.0),
        (np.array([1, 2]), np.array([1, 3]), math.inf),
    ],
)
def test_margin_is_the_share_of_the_tolerance(out: Any, ref: Any, expected: float) -> None:
    assert margin({"y": out}, {"y": np.asarray(ref)}, 1e-2) == pytest.approx(expected)


@pytest.mark.parametrize("planted", PLANTED, ids=lambda p: p.name)
def test_kept_ops_are_read_off_a_converted_model(planted: Planted) -> None:
    model = load_model(planted.model)
    for kept in (planted.answer, frozenset(), model.candidates):
        found = kept_ops(model, _converted(planted, kept))
        assert (found.ids, found.lost) == (kept & model.candidates, frozenset())


def test_kept_ops_look_through_renamed_values_and_say_what_is_gone() -> None:
    original = parse("""g (float[4] x) => (float[4] y) {
        a = Exp (x)
        b = Sqrt (a)
        y = Neg (b)
    }""")
    converted = parse("""g (float[4] x) => (float[4] y) {
        h = Cast <to = 10> (x)
        raw = Exp (h)
        a = Cast <to = 1> (raw)
        n = Neg (a)
        y = Identity (n)
    }""")
    model = load_model(original)
    found = kept_ops(model, load_model(converted).graph_model)
    assert (found.ids, found.lost) == (frozenset(), {1, 2})


@pytest.mark.parametrize("planted", PLANTED, ids=lambda p: p.name)
def test_a_file_is_emulated_as_it_is_written(planted: Planted) -> None:
    golden = _outputs(planted, planted.model.SerializeToString())
    for kept, passes in ((planted.answer, True), (frozenset(), not planted.answer)):
        emulated = ir.to_proto(emulate(_converted(planted, kept)))
        found = _outputs(planted, emulated.SerializeToString())
        worst = max(margin(f, g, 1e-2) for f, g in zip(found, golden, strict=True))
        assert (worst <= 1) is passes


def test_an_fp16_input_is_rounded_where_it_enters() -> None:
    model = load_model(parse("g (float16[1] x) => (float[1] y) { y = Cast <to = 1> (x) }"))
    emulated = ir.to_proto(emulate(model.graph_model)).SerializeToString()
    (found,) = ort.InferenceSession(emulated).run(None, {"x": np.float32([1.0001])})
    assert found == [1.0]


def test_emulation_leaves_no_cast_between_equal_types() -> None:
    """ONNX Runtime's optimiser breaks models in which such casts follow others."""
    source = load_model(
        parse(
            """g (float[4] x) => (float[4] y, float[4] z) {
                a = Exp (x)
                b = Neg (a)
                y = Mul (a, x)
                z = Add (b, a)
            }"""
        )
    )
    converted = convert(source, PrecisionPlan.of([2, 3]), Numerics()).model
    emulated = emulate(load_model(ir.to_proto(converted)).graph_model)
    casts = [node for node in emulated.graph if node.op_type == "Cast"]
    assert casts
    assert all(c.inputs[0].dtype != c.outputs[0].dtype for c in casts)
    ort.InferenceSession(ir.to_proto(emulated).SerializeToString())


def test_the_large_model_is_one_that_converts(tmp_path: Path) -> None:
    path = large_model.generate(tmp_path, weights=3, rows=64)
    conversion = convert(load_model(path), PrecisionPlan.of([1]), Numerics())
    assert [v.dtype for v in conversion.model.graph.initializers.values()] == [
        ir.DataType.FLOAT16,
        ir.DataType.FLOAT,
        ir.DataType.FLOAT16,
    ]


def test_status_says_what_became_of_a_worker() -> None:
    assert status(0, 5, "") == "answered"
    assert status(None, 5, "") == "timed out after 5 s"
    assert status(-9, 5, "") == "crashed: ended by signal 9"
    assert status(1, 5, "Traceback\n\na.b.Fail: no such op\n\n") == "crashed: Fail: no such op"
    assert status(3, 5, "") == "crashed: exit code 3"


def test_messages_lose_this_machines_folders_and_their_length() -> None:
    assert shortened(f"cannot read {ROOT}/benchmarks/x") == "cannot read benchmarks/x"
    assert shortened("o.c.Fail: [ONNXRuntimeError] : 1 : FAIL : no") == "Fail: no"
    assert shortened("a" * 300) == "a" * 159 + "…"


def test_a_row_measured_again_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert results.read(path) == []
    first = [_row("b", "topsideas", seconds=2.0), _row("a", "autocast", seconds=1.0)]
    results.write(path, results.merged(first))
    results.write(path, results.merged(results.read(path), [_row("b", "topsideas", seconds=9.0)]))
    assert [(row["model"], row["seconds"]) for row in results.read(path)] == [("a", 1), ("b", 9)]


def test_tables_show_answers_failures_and_ratios() -> None:
    rows = [
        _row("m", "topsideas", seconds=1.0, plan={"margin": 0.5, "passes": True, "note": ""}),
        _row("m", "onnxconverter", seconds=4.0, lost=2),
        _row("m", "autocast", status="crashed: no | <op>"),
    ]
    text = summary.tables(rows)
    assert "| m | topsideas | 3 of 9 | 7 | 1 | 10 | 80 | pass 0.5 |" in text
    assert "| m | onnxconverter | 3 + 2 not found of 9 |" in text
    assert "crashed: no \\| &lt;op>" in text
    assert "| m | 0.25 | – | – |" in text
    assert "| topsideas | 1 | 1 | 1 of 1 | not judged |" in text


def test_tables_go_between_the_marks() -> None:
    text = f"before\n{summary.BEGIN}\nold\n{summary.END}\nafter\n"
    assert summary.placed(text, "new") == text.replace("old", "new")
    assert summary.placed("", "new") == f"{summary.BEGIN}\nnew\n{summary.END}\n"


def test_without_a_folder_of_models_there_are_generated_ones(tmp_path: Path) -> None:
    found = find_problems(tmp_path / "none", tmp_path / "generated")
    assert {"overflow", "in_scan", "plate_reader"} <= {problem.name for problem in found}
    for problem in found:
        job = Job(str(problem.model), str(problem.samples), 1e-2, 1, 1.0, "")
        assert all(inputs and golden for inputs, golden in job.pairs())


def test_supervisor_stops_at_the_limit_and_measures(tmp_path: Path) -> None:
    slow = _supervised(tmp_path, "import time; time.sleep(60)", limit=0.3)
    assert slow["exit"] is None
    assert slow["seconds"] < 10
    big = _supervised(tmp_path, "b = bytearray(200 << 20); raise SystemExit(3)", limit=30)
    assert big["exit"] == 3
    assert 200 < big["peak_mb"] < 260


def test_unknown_names_are_refused_with_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--tools", "tensorrt"])
    assert "'tensorrt': expected some of topsideas, onnxconverter" in capsys.readouterr().err
    (tmp_path / "m" / "samples").mkdir(parents=True)
    (tmp_path / "m" / "m.onnx").touch()
    with pytest.raises(SystemExit, match="no model nothing; there are: m"):
        main(["--models", str(tmp_path), "--only", "nothing"])


def _converted(planted: Planted, kept: frozenset[int]) -> ir.Model:
    """The converted model as another program would read it."""
    model = load_model(planted.model)
    proto = ir.to_proto(convert(model, PrecisionPlan(kept), planted.numerics).model)
    return load_model(proto).graph_model


def _outputs(planted: Planted, model: bytes) -> list[dict[str, Any]]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = ort.InferenceSession(model, options)
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(None, s), strict=True)) for s in planted.samples]


def _row(model: str, tool: str, **more: Any) -> results.Row:
    row = {"model": model, "tool": tool, "tolerance": 0.01, "status": "answered", "size": 3}
    row |= {"candidates": 9, "evaluations": 7, "seconds": None, "peak_mb": 80, "limit": 60}
    row |= {"fp32_pass_seconds": 0.1, "threads": 2, "machine": "a machine", "date": "today"}
    return row | {"command": "python -m benchmarks.peers"} | more


def _supervised(folder: Path, code: str, limit: float) -> dict[str, Any]:
    bounds = ["--limit", str(limit), "--threads", "1", "--log", str(folder / "log")]
    command = [sys.executable, "-m", "benchmarks.supervise", *bounds, "--"]
    command += [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout)
    return found
