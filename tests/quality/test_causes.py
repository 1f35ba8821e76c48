"""Planted models, each with one cause: the rules name it, and where it is born and shows."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from planted_problem import problem_of

from topsideas.calibration.explain import evidence_of, repairs_of
from topsideas.calibration.problem import Problem
from topsideas.calibration.progress import Silent
from topsideas.calibration.settings import Settings
from topsideas.engines.base import Engine
from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics, Overflow, Subnormals
from topsideas.stats.criteria import Tolerance
from topsideas.testing.planted import (
    Planted,
    accumulation,
    constant,
    counts,
    epsilon,
    in_branch,
    in_loop,
    many_readers,
    mask,
    overflow,
    parse,
    ramp,
)

Json = dict[str, Any]


def cancellation() -> Planted:
    """The difference of two sums that are nearly equal."""
    text = """g (float[64] x) => (float[64] y)
    <float c = {1000.0}> {
        a = Tanh (x)
        b = Add (a, c)
        d = Sub (b, c)
        y = Exp (d)
    }"""
    return Planted("cancellation", parse(text), ({"x": ramp(-1, 1, 64)},), frozenset({1, 2}))


def steep() -> Planted:
    """An exponential of large numbers, whose relative error is their absolute error."""
    text = """g (float[64] x) => (float[64] y)
    <float c = {30.0}, float d = {1e-12}> {
        a = Mul (x, c)
        e = Exp (a)
        y = Mul (e, d)
    }"""
    inputs = {"x": ramp(0.301, 0.333, 64)}
    return Planted("steep", parse(text), (inputs,), frozenset({0, 1}))


def wear() -> Planted:
    """Six roundings, none of them large, of which one too many is left."""
    text = """g (float[256] x) => (float[256] y)
    <float c = {1.1}, float d = {0.9090909}> {
        a = Mul (x, c)
        b = Mul (a, d)
        e = Mul (b, c)
        y = Mul (e, d)
    }"""
    return Planted("wear", parse(text), ({"x": ramp(1, 2, 256)},), frozenset())


def ratio() -> Planted:
    """0 divided by 0, which a guard that becomes zero no longer prevents."""
    text = """g (float[4] x) => (float[4] y)
    <float eps = {1e-12}> {
        a = Relu (x)
        m = Max (a, eps)
        y = Div (a, m)
    }"""
    return Planted("ratio", parse(text), ({"x": ramp(-3, 3, 4)},), frozenset({1, 2}))


def evidence(planted: Planted, kept: frozenset[int] | None = None, **options: Any) -> Json:
    """The evidence for an answer, found by a search if none is given."""
    problem = problem_of(planted, **options)
    if kept is None:
        found = problem.search(Silent())
        plan, worst = found.plan, found.before
        assert plan.kept == planted.answer
    else:
        found, plan = None, PrecisionPlan(kept)
        worst = problem.verdict(PrecisionPlan(frozenset()))
    gathered = evidence_of(problem, plan, worst, found, planted.numerics, Silent())
    assert gathered is not None
    json.dumps(gathered, allow_nan=False)
    return gathered


def causes(planted: Planted, **options: Any) -> dict[int, Json]:
    return {row["id"]: row for row in evidence(planted, **options)["causes"]}


@pytest.mark.parametrize(
    ("planted", "kinds"),
    [
        (overflow(), {1: "output_overflow", 2: "input_overflow"}),
        (many_readers(), dict.fromkeys((1, 2, 3), "input_overflow") | {0: "output_overflow"}),
        (in_loop(), {2: "output_overflow", 3: "input_overflow"}),
        (constant(), {2: "constant_overflow"}),
        (in_branch(), {2: "constant_overflow"}),
        (mask(), {0: "mask_sentinel"}),
        (accumulation(), {1: "accumulation_overflow"}),
        (epsilon(), {1: "epsilon_underflow", 2: "epsilon_underflow"}),
        (ratio(), {1: "epsilon_underflow", 2: "epsilon_underflow"}),
        (counts(), dict.fromkeys((1, 2, 3), "integers")),
    ],
    ids=lambda value: value.name if isinstance(value, Planted) else "",
)
def test_the_cause_is_what_was_planted(planted: Planted, kinds: dict[int, str]) -> None:
    assert {op: row["cause"] for op, row in causes(planted).items()} == kinds


def test_cancellation_is_told_from_rounding_by_how_an_error_grows() -> None:
    found = causes(cancellation(), kept=frozenset({1, 2}))
    assert found[1]["cause"] == found[2]["cause"] == "cancellation"
    assert found[1]["figures"]["at"] == 2
    assert found[1]["figures"]["factor"] > 100


def test_a_steep_op_amplifies() -> None:
    found = causes(steep(), kept=frozenset({0, 1}))
    assert found[0]["cause"] == "amplified_rounding"
    assert found[0]["figures"]["at"] == 1


def test_what_stays_in_range_and_grows_nowhere_is_accumulated_rounding() -> None:
    settings = Settings(Tolerance(4e-4, 0.0))
    found = causes(wear(), kept=frozenset({0, 1, 2}), settings=settings)
    assert {row["cause"] for row in found.values()} == {"rounding"}
    assert all(0 < row["figures"]["born"] < 2**-10 for row in found.values())


def test_where_it_is_born_and_where_it_shows() -> None:
    found = causes(overflow())
    assert found[1]["born"] == found[2]["born"] == {"op": 1, "value": ""}
    assert found[1]["shows"]["how"] == found[2]["shows"]["how"] == "inf"
    assert [found[op]["shows"]["op"] for op in (1, 2)] == [1, 2]
    found = causes(epsilon())
    assert found[1]["born"] == {"op": None, "value": "eps"}
    assert found[1]["shows"] == {"op": 2, "how": "inf", "error": 0.0}
    assert found[2]["born"] == {"op": 1, "value": ""}


def test_an_accumulation_that_the_target_holds_in_fp32_is_not_blamed() -> None:
    wide = replace(accumulation(), numerics=Numerics())
    (found,) = causes(wide, kept=frozenset({1})).values()
    assert found["cause"] == "rounding"


def test_errors_along_the_network_are_those_of_all_low_and_of_the_plan() -> None:
    planted = cancellation()
    found = evidence(planted, kept=frozenset({1, 2}))
    errors = {row["id"]: (row["all_low"]["error"], row["plan"]["error"]) for row in found["ops"]}
    assert errors[0][0] == errors[0][1] < 2**-10
    assert errors[2][0] > 100 * errors[2][1]
    assert found["all_low_margins"][0]["y"] > 1


def test_every_sample_may_decide_and_ranges_are_over_all() -> None:
    planted = overflow()
    small = {"x": ramp(-1, 10, 4)}
    planted = replace(planted, samples=(small, *planted.samples, small))
    found = evidence(planted)
    assert (found["sample"], found["samples"]) == (1, [0, 1, 2])
    ranges = {row["id"]: row["range"] for row in found["ops"]}
    assert ranges[1]["most"] == 1e5
    assert ranges[1]["over"] == pytest.approx(2 / 12)


class Folder:
    """A place for models."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, name: str) -> Path:
        path = self._root / name
        path.parent.mkdir(exist_ok=True)
        return path


def _passes(planted: Planted, repair: Json, settings: Settings) -> bool:
    """Whether the model that was written passes with the plan that is named beside it."""
    original = problem_of(planted, settings=settings)
    golden = [dict(original.references.golden(i)) for i in original.references.ids]
    written = replace(planted, model=onnx.load(repair["model"]))
    problem = problem_of(written, settings=settings, golden=golden)
    return problem.verdict(PrecisionPlan(frozenset(repair["fp32_nodes"]))).passed


def _repairs(planted: Planted, problem: Problem | None = None) -> list[Json]:
    problem = problem or problem_of(planted)
    found = problem.search(Silent())
    gathered = evidence_of(problem, found.plan, found.before, found, planted.numerics, Silent())
    assert gathered is not None

    def opener(model: Model, numerics: Numerics) -> Engine:
        return EmulatorEngine(model, numerics)

    with tempfile.TemporaryDirectory() as folder:
        place = Folder(Path(folder))
        args = (problem, found.plan, gathered, opener, planted.numerics, place, Silent())
        sought = repairs_of(*args)
        assert sought is not None
        assert repairs_of(*args) == sought
        for repair in sought["found"]:
            assert repair["verdict"]["passed"]
            assert repair["model"] is None or _passes(planted, repair, problem.settings)
    return list(sought["found"])


def layer_norm() -> Planted:
    """A LayerNormalization in its parts, of large values."""
    text = """g (float[2,64] x) => (float[2,64] y)
    <float two = {2.0}, float eps = {1e-5}, float[64] scale, float[64] bias> {
        m = ReduceMean <axes = [-1]> (x)
        d = Sub (x, m)
        s = Pow (d, two)
        v = ReduceMean <axes = [-1]> (s)
        e = Add (v, eps)
        r = Sqrt (e)
        n = Div (d, r)
        w = Mul (n, scale)
        y = Add (w, bias)
    }"""
    scale, bias = (", ".join([v] * 64) for v in ("1.0", "0.5"))
    text = text.replace("scale,", f"scale = {{{scale}}},").replace("bias>", f"bias = {{{bias}}}>")
    sample = {"x": ramp(-2000, 2000, 2, 64)}
    return Planted("layer_norm", parse(text), (sample,), frozenset())


@pytest.mark.parametrize(
    ("planted", "kind", "frees"),
    [
        (overflow(), "rescale", [1, 2]),
        (mask(), "clamp_constant", [0]),
        (constant(), "split_constant", [2]),
        (ratio(), "raise_epsilon", [1, 2]),
        (overflow(), "bf16", [1, 2]),
    ],
    ids=lambda value: value.name if isinstance(value, Planted) else str(value),
)
def test_a_repair_that_passes_is_suggested(planted: Planted, kind: str, frees: list[int]) -> None:
    (found,) = (repair for repair in _repairs(planted) if repair["kind"] == kind)
    assert found["frees"] == frees
    assert found["size"] == 0
    assert found["cost"] < 0
    assert found["verdict"]["margin"] < 1


def test_a_layer_normalisation_in_parts_is_fused_or_rescaled() -> None:
    kinds = {repair["kind"]: repair for repair in _repairs(layer_norm())}
    assert {"fuse_layernorm", "rescale"} <= kinds.keys()
    assert kinds["fuse_layernorm"]["size"] == 0


def test_repairs_of_different_ops_are_judged_together() -> None:
    """Two overflows far apart: each is scaled away by itself, then both."""
    text = """g (float[2,4] x) => (float[2,4] y)
    <float c = {300.0}, float d = {0.5}> {
        a = Mul(x, c)
        s = Mul(a, a)
        r = Sqrt(s)
        m = Div(r, c)
        h = Mul(m, d)
        b = Mul(h, c)
        t = Mul(b, b)
        q = Sqrt(t)
        y = Div(q, c)
    }"""
    two = Planted("two overflows", parse(text), ({"x": ramp(1, 2, 2, 4)},), frozenset())
    found = {tuple(r["frees"]): r for r in _repairs(two) if r["kind"] != "bf16"}
    assert found[1, 2, 6, 7]["kind"] == "together"
    assert found[1, 2, 6, 7]["size"] == 0
    assert found[1, 2]["size"] == found[6, 7]["size"] == 2


@pytest.mark.parametrize("planted", [counts(), epsilon()], ids=lambda planted: planted.name)
def test_what_does_not_pass_is_not_suggested(planted: Planted) -> None:
    """Raising the epsilon of an output that shows its logarithm changes the answer."""
    assert {repair["kind"] for repair in _repairs(planted)} <= {"bf16"}


def test_a_repair_must_hold_on_every_sample() -> None:
    """With a second sample the clamped constant is no mask but a number that counts."""
    planted = constant()
    assert not [r for r in _repairs(planted) if r["kind"] == "clamp_constant"]


def test_a_saturating_target_is_not_told_to_clamp_outputs() -> None:
    planted = replace(overflow(), numerics=Numerics(overflow=Overflow.SATURATE))
    assert not [r for r in _repairs(planted) if r["kind"] == "clamp_output"]


def test_the_evidence_is_remembered() -> None:
    """The second time nothing runs."""
    planted = overflow()
    problem = problem_of(planted)
    found = problem.search(Silent())
    args = (problem, found.plan, found.before, found, planted.numerics, Silent())
    first = evidence_of(*args)
    np.testing.assert_equal(evidence_of(*args), first)


def test_a_target_that_flushes_subnormals_needs_a_normal_epsilon() -> None:
    planted = replace(ratio(), numerics=Numerics(subnormals=Subnormals.FLUSH))
    (found,) = (r for r in _repairs(planted) if r["kind"] == "raise_epsilon")
    assert found["changes"] == ["'eps': 1e-12 becomes 6.104e-05"]


def test_a_repair_must_hold_on_samples_that_were_held_out() -> None:
    """The held sample overflows by more than the factor that serves the others."""
    planted = overflow()
    (found,) = (r for r in _repairs(planted) if r["kind"] == "rescale")
    assert found["changes"][0] == "weight of op 1 times 2^-2"
    large = {"x": ramp(-1, 1e4, 4)}
    problem = problem_of(replace(planted, samples=(*planted.samples, large)), held=1)
    kinds = [repair["kind"] for repair in _repairs(planted, problem=problem)]
    assert "rescale" not in kinds
    assert "bf16" in kinds
