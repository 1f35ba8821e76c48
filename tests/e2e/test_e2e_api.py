"""The Python interface of the specification."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from e2e_bench import (
    CANCELLING,
    GENTLE,
    SQUARES,
    SQUARES_ANSWER,
    WEAR,
    parse,
    plain_bench,
    rows,
    squares_bench,
)

from topsideas.errors import (
    BaselineError,
    EngineError,
    ModelError,
    PlanError,
    SampleError,
    TopsideasError,
    UsageError,
    ValidatorError,
    WorkspaceError,
)
from topsideas.gcu.mix_precision.auto_mix_precision import AutoMixPrecision
from topsideas.gcu.mix_precision.py_engine import PyEngine

TWO = """(float[N,4] x, float[N,4] bias) => (float[N,4] y, int64[N] best) <float c = {300}> {
    a = Mul(x, c)
    s = Mul(a, a)
    r = Sqrt(s)
    d = Div(r, c)
    y = Add(d, bias)
    best = ArgMax <axis = 1, keepdims = 0> (bias)
}"""

X = [rows(seed=n)["x"] for n in range(3)]


def tool(model: str = SQUARES, **options: Any) -> AutoMixPrecision:
    return AutoMixPrecision(parse(model), ["x"], [[-1, 4]], **options)


def close(reference: list[np.ndarray], outputs: list[np.ndarray]) -> bool:
    return bool(np.allclose(outputs[0], reference[0], rtol=0.01))


# --- run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [lambda a: a, lambda a: [a], lambda a: (a,), lambda a: {"x": a}],
    ids=["bare array", "list", "tuple", "dict"],
)
@pytest.mark.parametrize("golden", [True, False])
def test_samples_of_one_input_are_taken_in_every_form(
    form: Callable[[np.ndarray], Any], golden: bool
) -> None:
    entries = [form(x) for x in X]
    by_name = [
        {"y": x} if isinstance(entry, dict) else entry for x, entry in zip(X, entries, strict=True)
    ]
    assert tool().run(entries, by_name if golden else None) == SQUARES_ANSWER


def test_arrays_are_in_the_order_of_the_names_that_were_given() -> None:
    bias = np.tile(np.arange(4, dtype=np.float32), (2, 1))
    best = np.array([3, 3])
    both = AutoMixPrecision(parse(TWO), ["bias", "x"], [[2, 4], [2, 4]])
    goldens = [[x + bias, best] for x in X]
    assert both.run([[bias, x] for x in X], goldens) == SQUARES_ANSWER
    assert both.run([{"x": x, "bias": bias} for x in X], goldens) == SQUARES_ANSWER
    with pytest.raises(BaselineError, match="sample 0 misses its golden outputs"):
        both.run([[x, bias * 2] for x in X], goldens)


def test_golden_outputs_may_be_given_for_some_samples_only() -> None:
    assert tool().run(X, [X[0], None, [X[2]]]) == SQUARES_ANSWER


def test_the_result_holds_the_evidence() -> None:
    automatic = tool()
    assert automatic.result is None
    assert automatic.run(X, X) == SQUARES_ANSWER
    result = automatic.result
    assert result is not None
    assert result.one_minimal
    assert set(result.witnesses) == result.overflowing == set(SQUARES_ANSWER)
    assert [automatic.model.ops[i].name for i in result.plan.ids] == ["square", "root"]


def test_the_answer_is_a_list_of_plain_integers() -> None:
    assert [type(i) for i in tool().run(X, X)] == [int, int]
    assert tool(GENTLE).run(X, None) == []


def test_the_model_that_was_passed_is_left_as_it_was() -> None:
    model = parse(SQUARES)
    before = model.SerializeToString(deterministic=True)
    automatic = AutoMixPrecision(model, ["x"], [[-1, 4]])
    automatic.finalize(automatic.run(X, X))
    assert model.SerializeToString(deterministic=True) == before


def test_a_path_is_taken_for_a_model_too(tmp_path: Path) -> None:
    bench = squares_bench(tmp_path)
    automatic = AutoMixPrecision(bench.model, ["x"], [[-1, 4]])
    assert automatic.run(X, X) == SQUARES_ANSWER


@pytest.mark.parametrize(
    ("block", "expected"),
    [([], [1, 2]), ([0], [0, 1, 2]), ([3, 1, 3], [1, 2, 3]), (["scale"], [0, 1, 2])],
)
def test_blocked_ops_are_part_of_the_answer(block: list[Any], expected: list[int]) -> None:
    assert tool().run(X, X, block) == expected


def test_tolerances_margin_and_cosine_are_those_of_the_command_line() -> None:
    wear = tool(WEAR)
    sizes = [len(wear.run(X, None, None, 4e-3, 0, margin=m)) for m in (1.0, 0.5, 0.2)]
    assert sizes == [0, 1, 3]
    assert tool().run(X, X, cos_sim=0.5) == []
    assert tool().run(X, X, rtol=0.9, atol=0.9) == []
    assert tool().run(X, X, ntol=0.99) == []


def test_a_budget_returns_the_best_valid_plan_and_says_so() -> None:
    automatic = tool()
    assert automatic.run(X, X, max_evaluations=2) == [0, 1, 2, 3]
    assert automatic.result is not None
    assert automatic.result.stopped == "budget: 2 evaluations used"
    assert not automatic.result.one_minimal


def test_device_arguments_and_numerics_are_accepted() -> None:
    assert tool().run(X, X, card_id=1, cluster_id=[0, 1], resource_mode="1c4s") == SQUARES_ANSWER
    assert tool(CANCELLING).run(X, None) == []
    assert tool(CANCELLING, overflow="inf").run(X, None) == [0, 1]
    assert tool(precision="bf16", threads=1).run(X, X, rtol=0.1) == []
    assert tool(engine="emulator", compile_options={"subnormals": "flush"}).run(X, X) == [1, 2]


def test_samples_must_lie_in_the_range_of_shapes() -> None:
    ranged = AutoMixPrecision(parse(SQUARES), ["x"], [[-1, 4]], [[1, 4]], [[2, 4]])
    assert ranged.run(X, X) == SQUARES_ANSWER
    large = rows(3)["x"]
    with pytest.raises(SampleError, match=r"sample 0: 'x' has shape \[3,4\], expected 1 to 2"):
        ranged.run([large], [large])


# --- val_func -----------------------------------------------------------------------------------


def test_a_validator_is_called_per_sample_with_lists_in_output_order() -> None:
    seen = []

    def check(reference: list[np.ndarray], outputs: list[np.ndarray]) -> bool:
        seen.append((len(reference), [o.dtype.kind for o in outputs]))
        return close(reference, outputs)

    bias = np.zeros((2, 4), np.float32)
    both = AutoMixPrecision(parse(TWO), ["x", "bias"], [[-1, 4], [-1, 4]])
    assert both.run([[x, bias] for x in X], None, val_func=check) == SQUARES_ANSWER
    assert set(map(str, seen)) == {str((2, ["f", "i"]))}


def test_a_validator_of_the_data_set_is_called_once_per_plan_with_all_samples() -> None:
    sizes = []

    def check(references: list[list[np.ndarray]], outputs: list[list[np.ndarray]]) -> np.bool_:
        sizes.append((len(references), len(outputs), len(outputs[0])))
        right = [close(r, o) for r, o in zip(references, outputs, strict=True)]
        return np.mean(right) >= 0.6

    assert tool().run(X, X, val_func=check, val_scope="dataset") == SQUARES_ANSWER
    assert set(sizes) == {(3, 3, 1)}


def test_an_error_of_the_validator_names_the_sample() -> None:
    def check(reference: list[np.ndarray], outputs: list[np.ndarray]) -> bool:
        if reference[0][0, 0] == X[2][0, 0]:
            raise KeyError("plate")
        return True

    with pytest.raises(ValidatorError, match="check raised KeyError on sample 2: 'plate'"):
        tool().run(X, X, val_func=check)
    with pytest.raises(ValidatorError, match="raised ZeroDivisionError on the data set"):
        tool().run(X, X, val_func=lambda r, o: bool(1 / 0), val_scope="dataset")


@pytest.mark.parametrize("answer", [None, 1, 0.5, "yes", np.array([True, True])])
def test_a_validator_must_return_a_boolean(answer: object) -> None:
    with pytest.raises(ValidatorError, match=r"returned .* on sample 0; expected True"):
        tool().run(X, X, val_func=lambda reference, outputs: answer)  # type: ignore[arg-type,return-value]


def test_an_interruption_inside_the_validator_returns_the_best_plan() -> None:
    calls = []

    def check(reference: list[np.ndarray], outputs: list[np.ndarray]) -> bool:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return close(reference, outputs)

    automatic = tool(threads=1)
    plan = automatic.run(X, X, val_func=check)
    assert automatic.result is not None
    assert automatic.result.stopped == "interrupted"
    assert automatic.result.after.passed
    assert set(SQUARES_ANSWER) <= set(plan)


# --- workspace ----------------------------------------------------------------------------------


def test_a_workspace_remembers_verdicts_between_tools(tmp_path: Path) -> None:
    first, second = tool(workspace=tmp_path / "ws"), tool(workspace=tmp_path / "ws")
    assert first.run(X, X) == second.run(X, X) == SQUARES_ANSWER
    assert first.result is not None
    assert second.result is not None
    assert (first.result.evaluations > 1, second.result.evaluations) == (True, 0)
    with pytest.raises(WorkspaceError, match="belongs to another model or other options"):
        tool(GENTLE, workspace=tmp_path / "ws").run(X, None)


def test_verdicts_of_one_function_are_not_taken_for_those_of_another(tmp_path: Path) -> None:
    automatic = tool(workspace=tmp_path / "ws")
    assert automatic.run(X, X, val_func=lambda reference, outputs: True) == []
    assert automatic.run(X, X, val_func=close) == SQUARES_ANSWER
    assert automatic.run(X, X) == SQUARES_ANSWER


def test_the_command_line_and_the_tool_share_a_workspace(tmp_path: Path) -> None:
    bench = squares_bench(tmp_path)
    inputs = [rows(seed=n)["x"] for n in range(2)]
    bench.run("--engine", "auto")
    automatic = AutoMixPrecision(bench.model, ["x"], [[-1, 4]], workspace=bench.workspace)
    assert automatic.run(inputs, inputs) == SQUARES_ANSWER
    assert automatic.result is not None
    assert automatic.result.evaluations == 0


# --- finalize -----------------------------------------------------------------------------------


def test_the_engine_runs_in_every_way_and_gives_the_same(tmp_path: Path) -> None:
    engine = tool().finalize(SQUARES_ANSWER)
    expected = engine.run([X[0]])
    filled: list[np.ndarray] = []
    stacked: list[np.ndarray] = []
    ways = [
        engine.run(X[0]),
        engine.run({"x": X[0]}),
        engine.run([{"x": X[0]}]),
        engine.run(X[0][np.newaxis]),
        engine.run([X[0]], filled),
        engine.runV2([X[0]]).get(),
        engine.run_with_batch(2, [X[0]], stacked).get(),
    ]
    for way in [*ways, filled, stacked]:
        assert len(way) == 1
        np.testing.assert_array_equal(way[0], expected[0])
    np.testing.assert_allclose(expected[0], X[0], rtol=1e-2)
    assert (engine.input_names, engine.output_names) == (["x"], ["y"])


def test_the_engine_computes_what_the_plan_says_bit_for_bit() -> None:
    kept, low = tool().finalize([0, 1, 2, 3]), tool().finalize([])
    reference = ort.InferenceSession(parse(SQUARES).SerializeToString()).run(None, {"x": X[0]})
    np.testing.assert_array_equal(kept.run(X[0])[0], reference[0])
    (rounded,) = low.run(X[0])
    np.testing.assert_array_equal(rounded, rounded.astype(np.float16).astype(np.float32))


def test_a_model_of_a_fixed_batch_runs_many_samples_in_steps() -> None:
    fixed = AutoMixPrecision(parse(SQUARES.replace("N,4", "2,4")), ["x"], [[2, 4]])
    engine = fixed.finalize(SQUARES_ANSWER)
    many = np.concatenate(X)
    (found,) = engine.run_with_batch(6, [many]).get()
    np.testing.assert_array_equal(found, np.concatenate([engine.run(x)[0] for x in X]))
    with pytest.raises(UsageError, match="sample_nums=5: expected the length of axis 0"):
        engine.run_with_batch(5, [many])
    with pytest.raises(UsageError, match="a multiple of the model's batch size 2"):
        engine.run_with_batch(3, [many[:3]])


def test_a_saved_engine_loads_and_gives_equal_bits(tmp_path: Path) -> None:
    engine = tool().finalize(SQUARES_ANSWER)
    engine.save_executable(tmp_path / "engine.onnx")
    loaded = PyEngine.load(tmp_path / "engine.onnx")
    other = tool().finalize([])
    other.load_tops_executable(str(tmp_path / "engine.onnx"))
    for again in (loaded, other):
        np.testing.assert_array_equal(again.run(X[0])[0], engine.run(X[0])[0])
    with pytest.raises(EngineError, match="an engine that was loaded has nothing to save"):
        loaded.save_executable(tmp_path / "again.onnx")


def test_the_engine_writes_the_model_to_deploy(tmp_path: Path) -> None:
    engine = tool().finalize(SQUARES_ANSWER)
    assert engine.save_deploy_model(tmp_path / "deploy.onnx")[0].startswith("deploy model: ")
    session = ort.InferenceSession(tmp_path / "deploy.onnx")
    np.testing.assert_allclose(session.run(None, {"x": X[0]})[0], X[0], rtol=1e-2)
    onnx.checker.check_model(onnx.load(tmp_path / "deploy.onnx"), full_check=True)


# --- mistakes -----------------------------------------------------------------------------------


def saved(folder: Path, content: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(content)
    return path


MISTAKES: list[tuple[str, Callable[[Path], object], type[TopsideasError], str]] = [
    (
        "a list of arrays",
        lambda _: tool().run(X[0], X[0]),
        SampleError,
        "expected a list with one entry",
    ),
    ("no samples", lambda _: tool().run([], []), SampleError, "expected at least one sample"),
    ("fewer goldens", lambda _: tool().run(X, X[:1]), SampleError, "expected 3 entries"),
    (
        "float64",
        lambda _: tool().run([X[0].astype(float)], None),
        SampleError,
        "expected float32, found float64",
    ),
    (
        "a list of numbers",
        lambda _: tool().run([[[1.0] * 4]], None),
        SampleError,
        "expected a numpy array",
    ),
    (
        "two arrays",
        lambda _: tool().run([[X[0], X[0]]], None),
        SampleError,
        "expected 1 arrays, found 2",
    ),
    (
        "other name",
        lambda _: tool().run([{"X": X[0]}], None),
        SampleError,
        r"'x' is missing; 'X' is not in the model",
    ),
    (
        "other shape",
        lambda _: tool().run([X[0][:, :3]], None),
        SampleError,
        r"expected shape \[N,4\], found \[2,3\]",
    ),
    (
        "nan golden",
        lambda _: tool().run(X[:1], [X[0] * np.nan]),
        SampleError,
        "holds NaN in 8 of 8 elements",
    ),
    (
        "names",
        lambda _: AutoMixPrecision(parse(SQUARES), ["y"], [[1]]),
        UsageError,
        r"expected the model's inputs in any order: \['x'\]",
    ),
    (
        "one name",
        lambda _: AutoMixPrecision(parse(SQUARES), "x", [[2, 4]]),
        UsageError,
        "input_names is 'x'",
    ),
    (
        "shapes",
        lambda _: AutoMixPrecision(parse(SQUARES), ["x"], []),
        UsageError,
        "input_shapes has 0 shapes",
    ),
    (
        "shape",
        lambda _: AutoMixPrecision(parse(SQUARES), ["x"], [[2, 5]]),
        UsageError,
        r"\[N,4\] in the model, found \[2,5\]",
    ),
    (
        "min only",
        lambda _: AutoMixPrecision(parse(SQUARES), ["x"], [[-1, 4]], [[1, 4]]),
        UsageError,
        "expected both or neither",
    ),
    (
        "min above max",
        lambda _: AutoMixPrecision(parse(SQUARES), ["x"], [[-1, 4]], [[3, 4]], [[2, 4]]),
        UsageError,
        "min <= max",
    ),
    (
        "precision",
        lambda _: tool(precision="fp8"),
        UsageError,
        r"precision='fp8'; expected one of \['bf16', 'fp16'\]",
    ),
    (
        "overflow",
        lambda _: tool(overflow="wrap"),
        UsageError,
        r"overflow='wrap'; expected one of \['inf', 'saturate'\]",
    ),
    (
        "engine",
        lambda _: tool(engine="abacus"),
        EngineError,
        "no engine 'abacus'; expected one of: auto, emulator",
    ),
    (
        "option",
        lambda _: tool(compile_options={"speed": 1}).run(X, X),
        EngineError,
        "compile option 'speed' is unknown",
    ),
    (
        "block",
        lambda _: tool().run(X, X, [4]),
        PlanError,
        "op id 4 is not in the model; expected 0 to 3",
    ),
    ("finalize", lambda _: tool().finalize([-1]), PlanError, "op id -1 is not in the model"),
    ("rtol", lambda _: tool().run(X, X, rtol=-1), UsageError, "rtol=-1: expected a finite number"),
    (
        "cosine",
        lambda _: tool().run(X, X, cos_sim=1.1),
        UsageError,
        "cos_sim=1.1: expected a number above 0",
    ),
    (
        "margin",
        lambda _: tool().run(X, X, margin=0),
        UsageError,
        "margin=0: expected a number above 0",
    ),
    (
        "margin of a function",
        lambda _: tool().run(X, X, val_func=close, margin=0.5),
        UsageError,
        "margin needs a tolerance",
    ),
    (
        "scope",
        lambda _: tool().run(X, X, val_func=close, val_scope="all"),
        UsageError,
        "val_scope='all': expected",
    ),
    (
        "function",
        lambda _: tool().run(X, X, val_func=3),
        UsageError,
        "val_func=3: expected a function",
    ),  # type: ignore[arg-type]
    (
        "no model",
        lambda p: AutoMixPrecision(p / "m.onnx", ["x"], [[1]]),
        ModelError,
        "no such model file",
    ),
    ("no executable", lambda p: PyEngine.load(p / "e"), EngineError, "no such executable"),
    (
        "a plain model",
        lambda p: PyEngine.load(saved(p, parse(SQUARES).SerializeToString())),
        EngineError,
        "an ONNX model but no executable",
    ),
    (
        "no model at all",
        lambda p: PyEngine.load(saved(p, b"text")),
        EngineError,
        "refuses the model",
    ),
    (
        "engine inputs",
        lambda _: tool().finalize([]).run([X[0], X[0]]),
        UsageError,
        r"expected arrays for the inputs \['x'\]",
    ),
    ("engine dtype", lambda _: tool().finalize([]).run(X[0].astype(float)), EngineError, "failed"),
]


@pytest.mark.parametrize(
    ("mistake", "error", "text"),
    [row[1:] for row in MISTAKES],
    ids=[row[0] for row in MISTAKES],
)
def test_a_mistake_is_named_with_what_was_expected(
    tmp_path: Path, mistake: Callable[[Path], object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        mistake(tmp_path)


def test_a_model_whose_weights_are_elsewhere_is_refused_from_memory(tmp_path: Path) -> None:
    bench = plain_bench(tmp_path, SQUARES)
    model = onnx.load(bench.model)
    big = onnx.numpy_helper.from_array(np.ones(4096, np.float32), "w")
    model.graph.initializer.append(big)
    onnx.save(model, bench.model, save_as_external_data=True, location="w", size_threshold=0)
    loaded = onnx.load(bench.model, load_external_data=False)
    with pytest.raises(ModelError, match="cannot be found from memory; load it with"):
        AutoMixPrecision(loaded, ["x"], [[-1, 4]])
    assert AutoMixPrecision(bench.model, ["x"], [[-1, 4]]).run(X, X) == SQUARES_ANSWER
