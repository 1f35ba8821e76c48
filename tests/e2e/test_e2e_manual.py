"""Manual mode, the listing of ops and finalize, through the command line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from e2e_bench import (
    BODIES,
    BODIES_SAMPLE,
    CANCELLING,
    KINDS,
    SQUARES,
    Bench,
    ops,
    outputs_of,
    parse,
    plain_bench,
    results,
    rows,
    run_words,
    squares_bench,
)

from topsideas.engines.emulator.engine import EmulatorExecutable

RAW = ("--manual", "--mode", "RAW")


# --- statistics ---------------------------------------------------------------------------------


def test_calc_shows_where_values_are_clipped_and_where_they_are_clipped_on_reading(
    squares: Bench,
) -> None:
    first = squares.run("--manual").found
    assert {op for op, r in outputs_of(first, "fp16_clip_ratio").items() if any(r)} == {1}
    second = squares.run("--manual", "--fp32_nodes", "1").found
    assert not any(any(r) for r in outputs_of(second, "fp16_clip_ratio").values())
    read = {op: [s.get("fp16_input_clip_ratio") for s in on] for op, on in ops(second).items()}
    assert read[1] == [None, None]
    assert [bool(any(read[op])) for op in (0, 2, 3)] == [False, True, False]


def test_calc_ratios_are_the_shares_that_numpy_counts(tmp_path: Path) -> None:
    inputs = {"x": np.array([[0, 1e-9, 2e-8, 1]], np.float32)}
    report = plain_bench(tmp_path, SQUARES, inputs).run("--manual").found
    (output,) = ops(report)[0][0]["outputs"]
    # 300·x: zero, 3e-7 and 6e-6 lie at or below the smallest normal fp16, 300 does not.
    assert output["fp16_le_ratio"] == output["fp32_le_ratio"] == 0.75
    assert output["fp16_ge_ratio"] == output["fp16_clip_ratio"] == 0
    assert not output["fp16_check_nan"]


def test_calc_counts_against_the_thresholds_that_are_asked_for(tmp_path: Path) -> None:
    inputs = {"x": np.array([[0.001, 0.01, 0.1, 1]], np.float32)}
    words = ("--manual", "--le_value_thres", "0.5", "--ge_value_thres", "3")
    report = plain_bench(tmp_path, SQUARES, inputs).run(*words).found
    (output,) = ops(report)[0][0]["outputs"]
    assert (output["fp32_le_ratio"], output["fp32_ge_ratio"]) == (0.25, 0.75)


def test_calc_says_nan(tmp_path: Path) -> None:
    outcome = plain_bench(tmp_path, CANCELLING).run("--manual", target="onnx")
    assert outputs_of(outcome.found, "fp16_check_nan") == {0: [False], 1: [True]}
    assert outputs_of(outcome.found, "fp32_check_nan") == {0: [False], 1: [False]}
    (shown,) = [line for line in outcome.out.splitlines() if "Div" in line]
    assert shown.split()[:3] == ["1", "Div", "ratio"]
    assert "NaN" in shown


def test_raw_compares_elements_and_undefined_figures_are_null(tmp_path: Path) -> None:
    outcome = plain_bench(tmp_path, CANCELLING, rows(1)).run(*RAW, target="onnx")
    (blow,), (ratio,) = (ops(outcome.found)[op][0]["outputs"] for op in (0, 1))
    assert (blow["fp16_inf_count"], blow["fp32_inf_count"]) == (4, 0)
    assert (blow["numpy_allclose"], blow["exceed_tol_count"]) == ("fail", 4)
    assert blow["cos_sim_value"] is blow["norm_rel"] is None
    assert (ratio["fp16_nan_count"], ratio["fp16_element_count"]) == (4, 4)
    assert ratio["cos_sim_value"] is ratio["norm_rel"] is None
    comparison = outcome.found["model_outputs"][0]["y"]["fp16_golden"]
    assert (comparison["nan_count"], comparison["margin"]) == (4, None)
    assert comparison["max_abs_err"] is comparison["max_rel_err"] is None
    assert outcome.found["decided_by"]["note"] == "not finite"
    assert outcome.out.startswith("FAIL  all candidate ops in low precision, not finite, worst ")


def test_raw_of_a_zero_vector_has_no_cosine_and_no_norm_ratio(tmp_path: Path) -> None:
    zeros = {"x": np.zeros((1, 4), np.float32)}
    model = "(float[N,4] x) => (float[N,4] y) { y = Neg(x) }"
    report = plain_bench(tmp_path, model, zeros).run(*RAW).found
    (output,) = ops(report)[0][0]["outputs"]
    assert (output["numpy_allclose"], output["exceed_tol_count"]) == ("pass", 0)
    assert output["cos_sim_value"] is output["norm_rel"] is None


def test_raw_uses_the_tolerance_the_share_and_the_cosine_that_are_asked_for(
    squares: Bench,
) -> None:
    def failing(*words: str) -> set[int]:
        found = outputs_of(squares.run(*RAW, *words).found, "numpy_allclose")
        return {op for op, values in found.items() if "fail" in values}

    assert failing() == {1, 2, 3}
    assert failing("--ntol", "0.99") == set()
    assert failing("--cos_sim", "0.5") == set()
    assert failing("--rtol", "0.9") == set()
    assert failing("--rtol", "0", "--atol", "0") == {0, 1, 2, 3}


def test_the_fp32_counts_are_known_to_the_next_step(
    squares: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[frozenset[int]] = []
    trace = EmulatorExecutable.trace

    def counting(self: EmulatorExecutable, feeds: dict[str, np.ndarray]) -> object:
        traced.append(self.low)
        return trace(self, feeds)

    monkeypatch.setattr(EmulatorExecutable, "trace", counting)
    squares.run("--manual")
    assert [len(low) for low in traced].count(0) == 2
    traced.clear()
    squares.run("--manual", "--fp32_nodes", "1")
    assert traced == [frozenset({0, 2, 3})] * 2


@pytest.mark.parametrize("mode", ["CALC", "RAW"])
def test_ops_in_bodies_have_statistics_and_a_branch_not_taken_has_none(
    tmp_path: Path, mode: str
) -> None:
    report = plain_bench(tmp_path, BODIES, BODIES_SAMPLE).run("--manual", "--mode", mode).found
    names = {op["name"] for op in report["op_statistic"][0].values()}
    assert {"inner_square", "inner_root", "step", "add", "copy"} <= names
    assert "negate" not in names
    if mode == "RAW":
        counted = {o["name"]: o["outputs"] for o in report["op_statistic"][0].values()}
        assert counted["step"][0]["fp16_element_count"] == 12


def test_a_validator_decides_in_manual_mode_too(squares: Bench) -> None:
    rule = squares.file("rule.py", "def lenient(reference, outputs):\n    return True\n")
    outcome = squares.run("--manual", "--val_func", f"{rule}:lenient")
    assert (outcome.code, outcome.found["verdict"], outcome.found["margin"]) == (0, "pass", None)
    assert results(outcome.found, "fp16_golden") == ["fail", "fail"]


def test_a_margin_below_one_is_asked_of_manual_mode_too(squares: Bench) -> None:
    words = ("--manual", "--fp32_nodes", "1", "2")
    margin = squares.run(*words).found["margin"]
    assert 0.01 < margin < 0.1
    strict = squares.run(*words, "--margin", "0.01")
    assert (strict.code, strict.found["verdict"]) == (1, "fail")
    assert "(at most 0.01)" in strict.out


@pytest.mark.parametrize("kept", [["1", "2"], ["square", "root"], ["square", "2"]])
def test_ops_are_kept_by_id_or_name(squares: Bench, kept: list[str]) -> None:
    outcome = squares.run("--manual", "--fp32_nodes", *kept)
    assert (outcome.code, outcome.found["fp32_nodes"]) == (0, [1, 2])


def test_the_next_command_drops_clean_and_replaces_what_it_decides(squares: Bench) -> None:
    outcome = squares.run("--clean", "--manual", "--fp32_nodes", "1", "--mode=CALC", "-v")
    line = outcome.found["next_command"]
    assert line.endswith(" -v --manual --fp32_nodes 1 2 --mode CALC")
    assert line.count("--manual") == line.count("--fp32_nodes") == line.count("--mode") == 1
    assert "--clean" not in line


# --- filters ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--op_id_filter", "1", "3"], {1, 3}),
        (["--op_id_bypass", "1", "3"], {0, 2}),
        (["--op_type_filter", "Mul"], {0, 1}),
        (["--op_type_bypass", "Mul", "Sqrt"], {3}),
        (["--op_id_filter"], set()),
        (["--op_id_bypass"], {0, 1, 2, 3}),
    ],
)
@pytest.mark.parametrize("mode", ["CALC", "RAW"])
def test_filters_choose_whose_statistics_are_shown(
    squares: Bench, words: list[str], shown: set[int], mode: str
) -> None:
    report = squares.run("--manual", "--mode", mode, *words).found
    assert set(ops(report)) == shown
    assert results(report, "fp16_golden") == ["fail", "fail"]


def test_two_filters_at_once_are_refused(squares: Bench) -> None:
    outcome = squares.run("--manual", "--op_id_filter", "1", "--op_type_bypass", "Mul")
    assert outcome.code == 2
    assert "argument --op_type_bypass: not allowed with argument --op_id_filter" in outcome.err


# --- console ------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("--manual",), ("--manual", "--mode", "RAW")])
def test_quiet_prints_one_line(squares: Bench, words: tuple[str, ...]) -> None:
    outcome = squares.run("--quiet", *words)
    assert len(outcome.out.splitlines()) == 1
    assert outcome.out.startswith("FAIL" if words else "PASS")
    assert outcome.err == ""


def test_verbose_shows_every_op_and_the_default_only_those_that_matter(squares: Bench) -> None:
    def shown(*words: str) -> set[str]:
        table = squares.run("--manual", *words).out.split("ops that overflow")[1]
        cells = [line.split() for line in table.splitlines()]
        return {cell[2] for cell in cells if cell and cell[0].isdigit()}

    assert shown("-v") == {"scale", "square", "root", "unscale"}
    assert shown() == {"square"}


def test_there_is_no_progress_bar_where_there_is_no_terminal(squares: Bench) -> None:
    outcome = squares.run()
    assert outcome.err == ""
    assert "\x1b" not in outcome.out
    assert "\r" not in outcome.out


def test_long_lines_are_not_folded_in_a_pipe(tmp_path: Path) -> None:
    name = "encoder/" * 40 + "square"
    model = parse(SQUARES)
    model.graph.node[1].name = name
    bench = plain_bench(tmp_path, model)
    assert f"  {name}  " in bench.run("--manual").out
    assert f"  {name}  " in run_words(bench.words("--list_ops"))[1]


def test_markup_and_control_characters_in_names_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    model = parse(SQUARES)
    hostile = "[/red]\x1b[31m[bold]\r\n\u202e:smile:"
    for node in model.graph.node:
        node.name = f"{hostile}{node.output[0]}"
    bench = plain_bench(tmp_path, model)
    shown = r"[/red]\x1b[31m[bold]\x0d\x0a\x202e:smile:"
    for words in ((), ("--manual", "-v"), (*RAW, "-v")):
        out = bench.run(*words).out
        assert f"{shown}s" in out
        assert not {"\x1b", "\r", "\u202e"} & set(out)
    assert bench.run().found["fp32_ops"][0]["name"] == f"{hostile}s"
    listed = run_words(bench.words("--list_ops"))[1]
    assert listed.count(shown) == 4
    assert not {"\x1b", "\r", "\u202e"} & set(listed)


def test_names_in_errors_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    bench = plain_bench(tmp_path, SQUARES)
    outcome = bench.run("--input_onnx", tmp_path / "\x1b[31mred\r.onnx")
    assert outcome.code == 2
    assert r"\x1b[31mred\x0d.onnx: no such model file" in outcome.err
    assert "\x1b" not in outcome.err


# --- list_ops -----------------------------------------------------------------------------------


def listing(bench: Bench) -> tuple[list[list[str]], str]:
    """Runs ``--list_ops`` with the model only; returns the cells of each op and the last line."""
    code, out, err = run_words(
        ["gcu", "mix_precision", "--list_ops", "--input_onnx", str(bench.model)]
    )
    assert (code, err) == (0, "")
    heading, *lines, last = out.splitlines()
    assert heading.split() == ["id", "path", "name", "type", "output", "shapes", "precision"]
    starts = [heading.index(w) for w in ("path", "name", "type", "output", "precision")]
    starts = [0, *starts, None]
    cut = [slice(a, b) for a, b in pairwise(starts)]
    return [[line[c].strip() for c in cut] for line in lines], last


def test_list_ops_needs_no_samples_and_no_workspace_and_writes_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    before = bench.written()
    cells, last = listing(bench)
    assert cells == [
        ["0", "main/Mul_0", "scale", "Mul", "[N,4]", "candidate"],
        ["1", "main/Mul_1", "square", "Mul", "[N,4]", "candidate"],
        ["2", "main/Sqrt_2", "root", "Sqrt", "[N,4]", "candidate"],
        ["3", "main/Div_3", "unscale", "Div", "[N,4]", "candidate"],
    ]
    assert last == "4 ops, 4 candidates"
    assert bench.written() == before
    assert not bench.workspace.exists()


def test_list_ops_numbers_bodies_after_the_main_graph_and_says_why_ops_are_pinned(
    tmp_path: Path,
) -> None:
    cells, last = listing(Bench(tmp_path, BODIES))
    paths = {cell[2]: (int(cell[0]), cell[1], cell[5]) for cell in cells}
    control = "pinned: control flow: its body's ops are candidates, the container computes nothing"
    assert [int(cell[0]) for cell in cells] == list(range(len(cells)))
    assert paths["choice"] == (0, "main/If_0", control)
    assert paths["loop"] == (3, "main/Loop_3", control)
    assert paths["count"][2] == "pinned: a constant: its readers round it"
    assert paths["big"] == (5, "main/if_0/then_branch/Mul_0", "candidate")
    assert paths["negate"] == (9, "main/if_0/else_branch/Neg_0", "candidate")
    assert paths["step"][1:] == ("main/loop_3/body/Mul_2", "candidate")
    assert paths["add"][1:] == ("main/scan_4/body/Add_0", "candidate")
    assert last.startswith(f"{len(cells)} ops, ")


def test_list_ops_shows_inlined_functions_and_pinned_domains(tmp_path: Path) -> None:
    model = parse(
        "(float[N,4] x) => (float[N,4] y, int64[2] n)"
        " { a = local.twice(x)  y = acme.Magic(a)  n = Shape(a) }",
        functions='<domain: "local", opset_import: ["": 17]> twice (a) => (b) { b = Add(a, a) }',
    )
    model.opset_import.append(onnx.helper.make_opsetid("acme", 3))
    cells, last = listing(Bench(tmp_path, model))
    assert [cell[3] for cell in cells] == ["Add", "acme:Magic", "Shape"]
    assert cells[1][5] == "pinned: no schema known for domain 'acme' at version 3"
    assert cells[2][5] == "pinned: reads only the shape, not the values"
    assert last == "3 ops, 1 candidates"


# --- finalize -----------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [(), ("--manual", "--fp32_nodes", "1", "2")])
def test_finalize_writes_a_typed_fp16_model_that_runs(
    squares: Bench, words: tuple[str, ...]
) -> None:
    outcome = squares.run(*words, "--finalize")
    deployed = onnx.load(outcome.found["output_files"]["deploy_model"])
    onnx.checker.check_model(deployed, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(deployed, strict_mode=True)
    types = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    assert outcome.code == 0
    assert outcome.found["op_statistic"] == []
    assert (types["a"], types["s"]) == (onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT)
    assert {i.type.tensor_type.elem_type for i in deployed.graph.input} == {onnx.TensorProto.FLOAT}
    session = ort.InferenceSession(deployed.SerializeToString())
    (found,) = session.run(None, rows())
    np.testing.assert_allclose(found, rows()["x"], rtol=1e-2, atol=1e-2)
    assert any(note.startswith("deploy model: ") for note in outcome.found["notes"])


def test_finalize_keeps_the_types_of_all_outputs(tmp_path: Path) -> None:
    outcome = plain_bench(tmp_path, KINDS).run("--finalize")
    session = ort.InferenceSession(outcome.found["output_files"]["deploy_model"])
    kinds = {o.name: o.type for o in session.get_outputs()}
    assert kinds == {"y": "tensor(float)", "best": "tensor(int64)", "big": "tensor(bool)"}


def test_finalize_in_bf16_writes_bf16(tmp_path: Path) -> None:
    outcome = squares_bench(tmp_path).run(
        "--finalize", "--precision", "bf16", "--manual", "--rtol", "0.1"
    )
    deployed = onnx.load(outcome.found["output_files"]["deploy_model"])
    weights = {w.name: w.data_type for w in deployed.graph.initializer}
    assert outcome.code == 0
    assert set(weights.values()) == {onnx.TensorProto.BFLOAT16}


def test_finalize_of_a_plan_that_fails_writes_it_and_says_fail(squares: Bench) -> None:
    outcome = squares.run("--manual", "--finalize", "--fp32_nodes", "1")
    assert (outcome.code, outcome.found["verdict"]) == (1, "fail")
    assert Path(outcome.found["output_files"]["deploy_model"]).is_file()
    note = "the deploy model does not reach the accuracy that was asked for"
    assert note in outcome.found["notes"]


def test_the_executables_are_models_that_emulate_the_plan(squares: Bench) -> None:
    files = squares.run("--manual", "--fp32_nodes", "1", "2").found["output_files"]
    assert {Path(path).parent for path in files.values()} == {
        squares.workspace,
        squares.workspace / "irdump",
    }
    low, fp32 = (
        ort.InferenceSession(files[f"{prefix}_executable"]).run(None, rows())[0]
        for prefix in ("fp16", "fp32")
    )
    assert np.array_equal(low, low.astype(np.float16).astype(np.float32))
    assert not np.array_equal(fp32, fp32.astype(np.float16).astype(np.float32))
    assert "Cast" in Path(files["fp16_hlir"]).read_text("utf-8")
    assert "Cast" not in Path(files["fp32_hlir"]).read_text("utf-8")


def test_weights_in_external_data_work_in_every_mode(tmp_path: Path) -> None:
    weight = np.linspace(100, 300, 4, dtype=np.float32)
    model = parse("(float[N,4] x) => (float[N,4] y) { a = Mul(x, w)  s = Mul(a, a)  y = Sqrt(s) }")
    tensor = onnx.TensorProto(name="w", dims=[4], data_type=onnx.TensorProto.FLOAT)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    model.graph.initializer.append(tensor)
    bench = plain_bench(tmp_path, model)
    bench.file("weights.bin", weight.tobytes())
    for words in ((), ("--manual",), RAW, ("--finalize",)):
        outcome = bench.run(*words)
        assert (outcome.code, outcome.found["fp32_nodes"]) == (
            (1, []) if "--manual" in words else (0, [1, 2])
        )
    session = ort.InferenceSession(outcome.found["output_files"]["deploy_model"])
    (found,) = session.run(None, rows())
    np.testing.assert_allclose(found, rows()["x"] * weight, rtol=1e-2)
    bench.file("weights.bin", (weight + 1).tobytes())
    assert "the workspace belongs to another model" in bench.run().err
