"""Auto mode through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from e2e_bench import (
    BODIES,
    BODIES_SAMPLE,
    CANCELLING,
    GENTLE,
    KINDS,
    SQUARES,
    SQUARES_ANSWER,
    WEAR,
    Bench,
    Outcome,
    outputs_of,
    plain_bench,
    results,
    rows,
    squares_bench,
)

TIGHT = ("--rtol", "1e-3", "--atol", "0")


def wear(folder: Path, *words: str) -> Outcome:
    bench = plain_bench(folder, WEAR, rows(), rows(seed=1))
    return bench.run(*(() if "--rtol" in words else TIGHT), *words)


def validator(bench: Bench, body: str) -> str:
    """A file with a ``check`` function; returns what ``--val_func`` takes."""
    path = bench.file("rule.py", f"import numpy as np\n\ndef check(reference, outputs):\n{body}")
    return f"{path}:check"


# --- the answer ---------------------------------------------------------------------------------


def test_the_overflowing_ops_are_found_and_each_has_a_witness(squares: Bench) -> None:
    outcome = squares.run()
    search = outcome.found["search"]
    assert outcome.code == 0
    assert outcome.found["fp32_nodes"] == SQUARES_ANSWER
    assert (search["one_minimal"], search["stopped"], search["refuted"]) == (True, "", 0)
    assert [(w["id"], w["name"]) for w in search["witnesses"]] == [(1, "square"), (2, "root")]
    assert all(w["margin"] > 1 and not w["passed"] for w in search["witnesses"])
    assert results(outcome.found, "fp16_golden") == ["pass", "pass"]


def test_nothing_stays_in_fp32_where_fp16_passes_and_one_evaluation_shows_it(
    tmp_path: Path,
) -> None:
    outcome = plain_bench(tmp_path, GENTLE).run()
    assert (outcome.code, outcome.found["fp32_nodes"]) == (0, [])
    assert outcome.found["search"]["evaluations"] == 1
    assert [q["phase"] for q in outcome.found["search"]["trace"]] == ["all low"]
    assert outcome.out.startswith("PASS  all candidate ops in low precision, margin ")


def test_a_second_identical_run_evaluates_nothing_and_gives_the_same_answer(
    squares: Bench,
) -> None:
    first, second = squares.run(), squares.run()
    assert first.found["search"]["evaluations"] > 1
    assert second.found["search"]["evaluations"] == 0
    varying = ("seconds", "evaluations", "trace")
    for report in (first.found, second.found):
        for key in varying:
            del report["search"][key]
    assert first.found == second.found
    assert "0 evaluations" in second.out


def test_other_tolerances_in_the_same_workspace_are_judged_anew(squares: Bench) -> None:
    squares.run()
    loose = squares.run("--rtol", "0.9", "--atol", "0.9")
    assert loose.found["search"]["evaluations"] == 1
    assert loose.found["fp32_nodes"] == []


def test_other_samples_in_the_same_workspace_are_judged_anew(squares: Bench) -> None:
    squares.run()
    quiet = {"x": np.full((1, 4), 0.1, np.float32)}
    for number in range(2):
        squares.sample(number, quiet, {"y": quiet["x"]})
    outcome = squares.run()
    assert (outcome.found["fp32_nodes"], outcome.found["search"]["evaluations"]) == ([], 1)


# --- golden outputs -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [(), ("--manual",)])
def test_golden_outputs_that_fp32_misses_are_refused_or_reported(
    squares: Bench, mode: tuple[str, ...]
) -> None:
    inputs = rows(seed=1)
    squares.sample(1, inputs, {"y": inputs["x"] + 1})
    outcome = squares.run(*mode)
    assert outcome.code == 1
    if mode:
        assert results(outcome.found, "fp32_golden") == ["pass", "fail"]
        return
    note = outcome.found["decided_by"]["note"]
    assert outcome.err == f"topsideas: error: {note}\n"
    assert note.startswith("even with every op in fp32, sample 1 misses its golden outputs in ")
    assert "in output 'y', margin 36.82 (expected at most 1). No choice of fp32 ops can" in note
    assert "check that the golden files come from this model and these inputs" in note
    assert results(outcome.found, "fp32_golden") == ["pass", "fail"]
    assert outcome.found["next_command"] == outcome.out == ""


def test_golden_outputs_that_are_missing_are_computed_and_that_is_said(tmp_path: Path) -> None:
    bench = squares_bench(tmp_path)
    (bench.samples / "sample1_outputs.npz").unlink()
    outcome = bench.run()
    note = "golden outputs of sample 1 are missing: computed in fp32 on the CPU"
    assert outcome.found["fp32_nodes"] == SQUARES_ANSWER
    assert note in outcome.found["notes"]
    assert f"note: {note}" in outcome.out
    assert outcome.found["model_outputs"][1]["y"]["fp32_golden"]["max_abs_err"] == 0


def test_sample_numbers_may_have_gaps(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for number in (7, 3, 20):
        bench.sample(number, rows(seed=number))
    assert bench.run().found["samples"] == [3, 7, 20]


# --- ops that must stay -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["0"], [0, 1, 2]),
        (["unscale"], [1, 2, 3]),
        (["1"], [1, 2]),
        (["scale", "3"], [0, 1, 2, 3]),
        (["@ids.txt"], [0, 1, 2, 3]),
        (["@list.json"], [0, 1, 2]),
        (["@old.json", "0"], [0, 1, 2, 3]),
    ],
)
def test_ops_that_must_stay_are_part_of_the_answer(
    squares: Bench,
    monkeypatch: pytest.MonkeyPatch,
    given: list[str],
    expected: list[int],
) -> None:
    squares.file("ids.txt", "\ufeffscale\r\n\n  3  \n")
    squares.file("list.json", '["scale"]')
    squares.file("old.json", json.dumps({"fp32_nodes": [3], "verdict": "pass"}))
    monkeypatch.chdir(squares.folder)
    outcome = squares.run("--fp32_nodes", *given)
    assert (outcome.code, outcome.found["fp32_nodes"]) == (0, expected)
    kept = {op["id"]: op["witness"] for op in outcome.found["fp32_ops"]}
    asked = set(expected) - set(SQUARES_ANSWER) | ({1} if given == ["1"] else set())
    assert {op for op, witness in kept.items() if witness is None} == asked
    assert outcome.out.count("asked for") == len(asked)


def test_a_report_of_an_earlier_run_is_taken_as_ops_that_must_stay(squares: Bench) -> None:
    first = squares.run()
    kept = squares.file("found.json", json.dumps(first.found))
    outcome = squares.run("--fp32_nodes", f"@{kept}", "--manual")
    assert (outcome.code, outcome.found["fp32_nodes"]) == (0, SQUARES_ANSWER)


def test_a_plan_of_another_model_or_engine_is_verified_anew_and_that_is_said(
    squares: Bench, tmp_path: Path
) -> None:
    old = squares.file("old.json", json.dumps(squares.run().found))
    same = squares.run("--manual", "--fp32_nodes", f"@{old}")
    other = squares_bench(tmp_path / "other", model=SQUARES.replace("300", "310"))
    words = ("--manual", "--fp32_nodes", f"@{old}", "--overflow", "inf")
    moved = other.run(*words)
    foreign = [n for n in moved.found["notes"] if n.startswith(f"{old}: ")]
    digest = same.found["model"]["sha256"]
    text = "{}: the plan was found for another {} ({}); it is verified anew here"
    assert not any("another" in note for note in same.found["notes"])
    assert foreign == [
        text.format(old, "model", f"sha256 {digest}"),
        text.format(old, "engine", "overflow saturate"),
    ]
    assert (moved.code, moved.found["fp32_nodes"]) == (0, SQUARES_ANSWER)


# --- rules --------------------------------------------------------------------------------------


def test_a_smaller_margin_keeps_more_ops_and_is_held(tmp_path: Path) -> None:
    loose = ("--rtol", "4e-3", "--atol", "0")
    sizes = []
    for margin in (1.0, 0.5, 0.3, 0.2):
        report = wear(tmp_path / str(margin), *loose, "--margin", str(margin)).found
        assert report["margin"] <= margin
        assert report["search"]["one_minimal"]
        assert all(w["margin"] > margin for w in report["search"]["witnesses"])
        sizes.append(len(report["fp32_nodes"]))
    assert sizes == [0, 1, 2, 3]


def test_the_console_names_the_margin_that_was_asked_for(tmp_path: Path) -> None:
    outcome = wear(tmp_path, "--margin", "0.5")
    assert "(at most 0.5)" in outcome.out.splitlines()[0]


def test_cosine_similarity_judges_instead_of_the_tolerance(squares: Bench) -> None:
    strict, loose = squares.run("--cos_sim", "0.9999"), squares.run("--cos_sim", "0.5")
    assert strict.found["fp32_nodes"] == SQUARES_ANSWER
    assert strict.found["options"]["cos_sim"] == 0.9999
    assert loose.found["fp32_nodes"] == []
    assert loose.found["model_outputs"][0]["y"]["fp16_golden"]["cos_sim_value"] > 0.5


def test_ntol_lets_a_share_of_the_elements_miss(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    inputs = {"x": np.array([[0.1, 0.2, 0.3, 2.0]], np.float32)}
    bench.sample(0, inputs, {"y": inputs["x"]})
    assert bench.run().found["fp32_nodes"] == SQUARES_ANSWER
    lenient = bench.run("--ntol", "0.25")
    assert (lenient.code, lenient.found["fp32_nodes"]) == (0, [])
    assert lenient.found["model_outputs"][0]["y"]["fp16_golden"]["exceed_tol_count"] == 1
    assert bench.run("--ntol", "0.2").found["fp32_nodes"] == SQUARES_ANSWER


def test_a_validator_replaces_the_tolerance_and_is_called_per_sample(squares: Bench) -> None:
    rule = validator(
        squares,
        "    assert len(reference) == len(outputs) == 1 and outputs[0].shape == (2, 4)\n"
        "    return bool(np.abs(outputs[0] - reference[0]).max() < 0.01)\n",
    )
    outcome = squares.run("--val_func", rule)
    assert (outcome.code, outcome.found["fp32_nodes"]) == (0, SQUARES_ANSWER)
    assert outcome.found["margin"] is None
    assert outcome.found["search"]["witnesses"][0]["margin"] is None
    assert "without it sample 0 fails: the rule says no" in outcome.out


def test_a_validator_of_the_data_set_is_called_with_all_samples(squares: Bench) -> None:
    rule = validator(
        squares,
        "    assert len(reference) == len(outputs) == 2 and len(outputs[0]) == 1\n"
        "    return all(np.allclose(o[0], r[0], 0.01) for o, r in zip(outputs, reference))\n",
    )
    outcome = squares.run("--val_func", rule, "--val_scope", "dataset")
    assert (outcome.code, outcome.found["fp32_nodes"]) == (0, SQUARES_ANSWER)
    assert outcome.found["search"]["witnesses"][0]["sample"] is None
    assert "without it the data set fails: the rule says no" in outcome.out


def test_a_validator_that_refuses_fp32_is_named(squares: Bench) -> None:
    outcome = squares.run("--val_func", validator(squares, "    return False\n"))
    assert (outcome.code, outcome.found["verdict"]) == (1, "fail")
    assert "even with every op in fp32, sample 0 is refused by check." in outcome.err


def test_a_validator_may_work_in_place_and_is_judged_again_once_its_file_changes(
    squares: Bench,
) -> None:
    spoil = "    outputs[0][:] = reference[0][:] = 0\n    return True\n"
    lenient = squares.run("--val_func", validator(squares, spoil))
    assert lenient.found["fp32_nodes"] == []
    strict = "    return np.allclose(outputs[0], reference[0], 0.01)\n"
    assert squares.run("--val_func", validator(squares, strict)).found["fp32_nodes"] == [1, 2]


def test_a_validator_may_import_its_neighbours_and_hold_dataclasses(squares: Bench) -> None:
    squares.file("helper.py", "LIMIT = 0.01\n")
    path = squares.file(
        "own.py",
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "from typing import ClassVar\nimport numpy as np\nfrom helper import LIMIT\n"
        "@dataclass\nclass Rule:\n    limit: ClassVar[float] = LIMIT\n"
        "def check(r, o):\n    return np.allclose(o[0], r[0], Rule.limit)\n",
    )
    assert squares.run("--val_func", f"{path}:check").found["fp32_nodes"] == SQUARES_ANSWER
    assert not (squares.folder / "__pycache__").exists()


# --- samples held out, budgets ------------------------------------------------------------------


def test_samples_held_out_check_the_answer_only(squares: Bench) -> None:
    outcome = squares.run("--holdout", "1")
    assert outcome.code == 0
    assert outcome.found["samples"] == [0]
    assert outcome.found["search"]["holdout"]["passed"]
    assert outcome.found["search"]["holdout"]["sample"] == 1


def test_an_answer_that_fails_on_samples_held_out_fails(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    quiet, loud = {"x": np.full((1, 4), 0.1, np.float32)}, rows()
    bench.sample(0, quiet, {"y": quiet["x"]})
    bench.sample(1, loud, {"y": loud["x"]})
    outcome = bench.run("--holdout", "1")
    assert (outcome.code, outcome.found["verdict"]) == (1, "fail")
    assert outcome.found["search"]["after"]["passed"]
    assert not outcome.found["search"]["holdout"]["passed"]
    assert outcome.found["margin"] == outcome.found["search"]["holdout"]["margin"] > 1


def test_a_budget_of_evaluations_returns_the_best_valid_plan_and_says_so(tmp_path: Path) -> None:
    bench = plain_bench(tmp_path, WEAR, rows())
    whole = bench.run(*TIGHT)
    for budget in range(1, whole.found["search"]["evaluations"]):
        outcome = bench.run(*TIGHT, "--max_evaluations", str(budget), "--clean")
        search = outcome.found["search"]
        assert outcome.code == 0
        assert search["evaluations"] == budget
        assert search["stopped"] == f"budget: {budget} evaluations used"
        assert (search["one_minimal"], search["after"]["passed"]) == (False, True)
        assert len(outcome.found["fp32_nodes"]) >= len(whole.found["fp32_nodes"])
        assert f"not minimal ({search['stopped']})" in outcome.out
        assert results(outcome.found, "fp16_golden") == ["pass"]


def test_a_time_limit_returns_the_best_valid_plan_and_says_so(tmp_path: Path) -> None:
    outcome = wear(tmp_path, "--time_limit", "1e-9")
    search = outcome.found["search"]
    assert outcome.code == 0
    assert search["stopped"] == "budget: 1e-09 s used"
    assert (search["one_minimal"], search["after"]["passed"]) == (False, True)
    assert outcome.found["fp32_nodes"] == list(range(6))


def test_a_search_that_was_cut_short_is_continued_by_the_next_run(squares: Bench) -> None:
    whole = squares.run("--workspace", squares.folder / "another")
    first = squares.run("--max_evaluations", "2")
    second = squares.run()
    judged = [run.found["search"]["evaluations"] for run in (first, second)]
    assert (judged[0], sum(judged)) == (2, whole.found["search"]["evaluations"])
    assert second.found["fp32_nodes"] == SQUARES_ANSWER


@pytest.mark.parametrize("threads", ["1", "2", "64"])
def test_the_answer_is_the_same_for_any_number_of_threads(tmp_path: Path, threads: str) -> None:
    outcome = squares_bench(tmp_path, 5).run("--threads", threads)
    assert outcome.found["fp32_nodes"] == SQUARES_ANSWER
    assert outcome.found["search"]["before"]["sample"] is not None


# --- numerics -----------------------------------------------------------------------------------


def test_bf16_holds_what_overflows_fp16_and_is_coarser(tmp_path: Path) -> None:
    squares = squares_bench(tmp_path / "squares").run("--precision", "bf16")
    assert squares.found["engine"]["precision"] == "bf16"
    assert squares.found["search"]["overflowing"] == []
    assert not any(any(v) for v in outputs_of(squares.found, "fp16_clip_ratio").values())
    sizes = {
        precision: len(wear(tmp_path / precision, "--precision", precision).found["fp32_nodes"])
        for precision in ("fp16", "bf16")
    }
    assert sizes["bf16"] > sizes["fp16"]


def test_gcu_saturates_and_onnx_gives_infinity_unless_told_otherwise(tmp_path: Path) -> None:
    answers = {}
    for target in ("gcu", "onnx"):
        for overflow in ((), ("--overflow", "inf"), ("--overflow", "saturate")):
            bench = plain_bench(tmp_path / f"{target}{overflow}", CANCELLING)
            report = bench.run(*overflow, target=target).found
            key = report["engine"]["overflow"], *report["fp32_nodes"]
            answers[(target, *overflow[1:])] = key
    assert answers == {
        ("gcu",): ("saturate",),
        ("gcu", "inf"): ("inf", 0, 1),
        ("gcu", "saturate"): ("saturate",),
        ("onnx",): ("inf", 0, 1),
        ("onnx", "inf"): ("inf", 0, 1),
        ("onnx", "saturate"): ("saturate",),
    }


def test_compile_options_reach_the_emulator_and_a_file_of_them_does_too(tmp_path: Path) -> None:
    bench = plain_bench(tmp_path, GENTLE)
    options = {"subnormals": "flush", "accumulation": "low", "resource_mode": "1c4s"}
    path = bench.file("options.json", json.dumps(options))
    report = bench.run("--compile_options", f"@{path}", "--resource_mode", "1c12s").found
    assert report["options"]["compile_options"] == options | {"resource_mode": "1c12s"}
    assert report["engine"]["subnormals"] == "flush"
    assert report["engine"]["accumulation"] == "low"
    assert "the emulator has no device: --resource_mode recorded only" in report["notes"]


def test_device_flags_are_recorded_and_the_emulator_says_that_it_has_none(
    squares: Bench,
) -> None:
    report = squares.run("--device", "3", "--cluster", "0", "2").found
    assert (report["options"]["device"], report["options"]["cluster"]) == (3, [0, 2])
    assert "the emulator has no device: --device, --cluster recorded only" in report["notes"]
    assert "evidence is emulated; nothing was measured on a device" in report["notes"]


# --- kinds of models ----------------------------------------------------------------------------


def test_ops_in_bodies_are_found_by_their_own_ids(tmp_path: Path) -> None:
    outcome = plain_bench(tmp_path, BODIES, BODIES_SAMPLE).run()
    assert outcome.code == 0
    assert [op["path"] for op in outcome.found["fp32_ops"]] == [
        "main/if_0/then_branch/Mul_1",
        "main/if_0/then_branch/Sqrt_2",
    ]
    assert [op["name"] for op in outcome.found["fp32_ops"]] == ["inner_square", "inner_root"]


def test_local_functions_are_inlined_and_the_inlined_model_is_saved(tmp_path: Path) -> None:
    import onnx
    from e2e_bench import parse

    model = parse(
        "(float[N,4] x) => (float[N,4] y) <float c = {300}> {"
        " a = Mul(x, c)  r = local.magnitude(a)  y = Div(r, c) }",
        functions='<domain: "local", opset_import: ["": 17]> magnitude (a) => (r)'
        " { s = Mul(a, a)  r = Sqrt(s) }",
    )
    outcome = plain_bench(tmp_path, model).run("--finalize")
    assert outcome.found["fp32_nodes"] == [1, 2]
    assert outcome.found["model"]["functions_inlined"]
    assert "local functions were inlined; ids index the inlined model" in outcome.found["notes"]
    inlined = onnx.load(outcome.found["output_files"]["inlined_model"])
    assert [node.op_type for node in inlined.graph.node] == ["Mul", "Mul", "Sqrt", "Div"]
    assert not inlined.functions


def test_samples_may_differ_in_their_dynamic_sizes(tmp_path: Path) -> None:
    bench = plain_bench(tmp_path, SQUARES, *(rows(n, seed=n) for n in (1, 5, 3)))
    bounds = ("--min_shapes", "x:[1,4]", "--max_shapes", "x:[5,4]")
    outcome = bench.run(*bounds)
    counts = [s["y"]["fp16_golden"]["element_count"] for s in outcome.found["model_outputs"]]
    assert (outcome.found["fp32_nodes"], counts) == (SQUARES_ANSWER, [4, 20, 12])


def test_integer_and_boolean_outputs_must_be_equal(tmp_path: Path) -> None:
    # 2048 + 1 rounds to 2048 in fp16, so that the largest is another and 2049 is not above 2048.
    near = {"x": np.array([[2048, 2049, 1, 1]], np.float32)}
    outcome = plain_bench(tmp_path, KINDS, near).run()
    assert outcome.code == 0
    assert "pick" in [op["name"] for op in outcome.found["fp32_ops"]]
    (sample,) = outcome.found["model_outputs"]
    assert list(sample) == ["y", "best", "big"]
    assert all(pairs["fp16_golden"]["max_abs_err"] == 0 for pairs in list(sample.values())[1:])
    assert outcome.found["search"]["before"]["output"] == "best"
    assert outcome.found["search"]["before"]["note"] == "not finite"


def test_strings_go_in_and_the_ops_that_read_them_are_pinned(tmp_path: Path) -> None:
    from e2e_bench import parse

    model = parse(
        '(string[N] name, float[N] x) => (float[N] y) <string who = {"anna"}> {'
        " e = Equal(name, who)  f = Cast <to = 1> (e)  y = Mul(f, x) }",
        opset=19,
    )
    sample = {"name": np.array(["anna", "bob"]), "x": np.array([1.5, 2.5], np.float32)}
    bench = Bench(tmp_path, model)
    bench.sample(0, sample, {"y": np.array([1.5, 0], np.float32)})
    outcome = bench.run()
    assert (outcome.code, outcome.found["fp32_nodes"]) == (0, [])
    assert outcome.found["model"]["candidates"] < outcome.found["model"]["ops"] == 3


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        ("(float x) => (float y) { y = Mul(x, x) }", {"x": np.float32(300)}),
        ("(float[N] x) => (float[N] y) { y = Mul(x, x) }", {"x": np.zeros(0, np.float32)}),
        ("(float[2] x) => (float[2] x) { }", {"x": np.ones(2, np.float32)}),
        ("() => (float[2] y) <float[2] c = {1, 2}> { y = Mul(c, c) }", {}),
        (
            "(float[N,4] x) => (seq(float[?,?]) y) { y = SplitToSequence <axis = 1> (x) }",
            rows(),
        ),
    ],
    ids=["scalar", "empty tensor", "no nodes", "no inputs", "sequence"],
)
@pytest.mark.parametrize("mode", [(), ("--manual",), ("--manual", "--mode", "RAW")])
def test_unusual_tensors_are_judged_in_every_mode(
    tmp_path: Path, model: str, inputs: dict[str, np.ndarray], mode: tuple[str, ...]
) -> None:
    outcome = plain_bench(tmp_path, model, inputs).run(*mode)
    too_large = "x" in inputs and inputs["x"].ndim == 0
    assert outcome.code == (1 if too_large and mode else 0)
    assert outcome.found["fp32_nodes"] == ([0] if too_large and not mode else [])


def test_a_plan_under_which_the_engine_fails_is_a_failed_plan(tmp_path: Path) -> None:
    model = (
        "(float[N] x, float[M] t) => (float[N] y) {"
        " [twice] a = Add(x, x)  [index] i = Cast <to = 7> (a)  [look] y = Gather(t, i) }"
    )
    # 2·2049.4 rounds up to 4100 in fp16, one beyond the table.
    sample = {"x": np.array([2049.4], np.float32), "t": np.arange(4100, dtype=np.float32)}
    outcome = plain_bench(tmp_path, model, sample).run()
    assert (outcome.code, outcome.found["fp32_nodes"]) == (0, [0, 1])
    assert "indices element out of data bounds" in outcome.found["search"]["before"]["note"]
    assert "Name:'look'" in outcome.found["search"]["witnesses"][0]["note"]


def test_operators_of_onnxruntime_run_and_are_pinned_where_no_schema_is_known(
    tmp_path: Path,
) -> None:
    model = (
        "(float[N,4] x) => (float[N,4] y) <float c = {300}> {"
        " a = Mul(x, c)  s = Mul(a, a)  r = Sqrt(s)  d = Div(r, c)  y = com.microsoft.Gelu(d) }"
    )
    outcome = plain_bench(tmp_path, model).run("--finalize")
    assert (outcome.code, outcome.found["fp32_nodes"]) == (0, SQUARES_ANSWER)
