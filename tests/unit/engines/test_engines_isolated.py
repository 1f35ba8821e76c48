"""An engine in a child process: what goes wrong there is said, and the next plan runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.standin.misbehaving import TARGET
from topsideas.calibration.journal import MemoryStore
from topsideas.calibration.problem import make_problem, read_samples
from topsideas.calibration.progress import Silent
from topsideas.calibration.settings import Settings
from topsideas.engines.base import SecondOpinion
from topsideas.engines.isolated.engine import IsolatedEngine
from topsideas.engines.options import EngineOptions, Isolation
from topsideas.engines.registry import open_engine
from topsideas.errors import EngineError
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import BF16, FP16, Numerics
from topsideas.samples import samples_from_memory, signature_of
from topsideas.testing.planted import overflow, parse

PLANTED = overflow()
X = PLANTED.samples[0]
WRONG = PrecisionPlan.of([1])
RIGHT = PrecisionPlan.of([1, 2])


def _open(what: str, model: Model | None = None, **limits: Any) -> IsolatedEngine:
    options = EngineOptions(
        compile_options={"what": what, "kept": [1]},
        isolation=Isolation(**({"build_seconds": 60, "run_seconds": 60} | limits)),
    )
    return IsolatedEngine("misbehaving", model or load_model(PLANTED.model), options, TARGET)


@pytest.mark.parametrize(
    ("what", "limits", "text"),
    [
        ("crash in build", {}, r"killed by SIGABRT; its log ends: .*the compiler dies"),
        ("crash", {}, "ended while it was asked to run: killed by SIGABRT"),
        ("hang", {"build_seconds": 1, "run_seconds": 1}, "gave no answer within 2 s"),
        ("swell", {"memory": 700 << 20}, r"held \d+ MB when asked to run, and may hold 700 MB"),
        ("raise", {}, "LookupError: an exception that nobody mapped"),
    ],
)
def test_what_goes_wrong_is_an_engine_error_and_the_next_plan_runs(
    what: str, limits: dict[str, Any], text: str
) -> None:
    engine = _open(what, memory=limits.get("memory"))
    wrong, generous = engine.compile(WRONG), engine.limits
    if what == "hang":  # seconds, which are not for what a busy machine takes to start a process
        wrong.prepare()
        engine.limits = replace(generous, **limits)
    with pytest.raises(EngineError, match=text):
        wrong.run(X)
    engine.limits = generous
    assert np.isfinite(engine.compile(RIGHT).run(X)["y"]).all()
    if what != "raise":  # a plan that killed its process is not tried again
        deaths = engine.deaths
        with pytest.raises(EngineError, match=text):
            wrong.run(X)
        assert engine.deaths == deaths


def test_a_search_goes_on_after_a_crash() -> None:
    model = load_model(PLANTED.model)
    samples = samples_from_memory(list(PLANTED.samples), None, signature_of(model))
    problem = make_problem(
        model,
        _open("crash", model),
        FP16,
        samples,
        (),
        Settings(),
        MemoryStore(),
        read_samples(samples, None),
    )
    found = problem.search(Silent())
    assert found.plan.kept == PLANTED.answer
    assert found.after.passed
    assert found.one_minimal
    assert "SIGABRT" in found.witnesses[2].note
    assert found.witnesses[1].note == ""


def test_the_low_format_says_which_ops_are_candidates_in_the_child_too() -> None:
    """Einsum has an fp16 variant and no bf16 one."""
    text = 'g (float[1] x) => (float[1] y) { y = Einsum <equation = "i->i"> (x) }'
    model = load_model(parse(text), BF16)
    options = EngineOptions(numerics=Numerics(BF16), isolation=Isolation(60, 60))
    x = np.array([257], np.float32)  # not in bf16
    found = open_engine("emulator", model, options).compile(PrecisionPlan.of([])).run({"x": x})
    assert found["y"] == x


def test_the_second_execution_runs_in_the_child_too() -> None:
    """Bit for bit what it gives here; an answer is confirmed by it and not by the first again."""
    model = load_model(PLANTED.model)
    child = open_engine("emulator", model, EngineOptions(isolation=Isolation(60, 60)))
    here = open_engine("emulator", model, EngineOptions())
    for way in ("second_opinion", "fused"):
        found, expected = (
            getattr(engine.compile(WRONG), way)().run(X)["y"] for engine in (child, here)
        )
        np.testing.assert_array_equal(found, expected)
    assert isinstance(child.compile(WRONG), SecondOpinion)
    assert not isinstance(_open("none").compile(WRONG), SecondOpinion)


def test_an_engine_that_dies_when_it_starts_says_why() -> None:
    with pytest.raises(EngineError, match=r"cannot start: .*SIGABRT; its log ends: .*no licence"):
        _open("no start")


def test_the_log_is_kept_where_it_was_asked_for(tmp_path: Path) -> None:
    engine = _open("none", folder=str(tmp_path))
    engine.compile(RIGHT).run(X)
    assert "noise on standard output" in (tmp_path / "misbehaving.log").read_text()


def test_the_child_ends_with_its_engine() -> None:
    engine = _open("none")
    engine.compile(RIGHT).run(X)
    child = engine.child()._process.pid
    engine.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    # and one that is closed starts another when it is asked again
    assert np.isfinite(engine.compile(RIGHT).run(X)["y"]).all()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes by /proc")
def test_a_child_that_hangs_ends_when_its_parent_is_killed() -> None:
    """Its standard input is closed then, but a child that hangs does not read it."""
    script = """
from threading import Thread
from test_engines_isolated import WRONG, X, _open
engine = _open("hang")
wrong = engine.compile(WRONG)
wrong.prepare()
Thread(target=wrong.run, args=(X,), daemon=True).start()
print(engine.child()._process.pid, flush=True)
engine.compile(WRONG).run(X)
"""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[3])]
    with subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {paths}\n{script}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert _is_running(child)
        parent.kill()
    end = time.monotonic() + 60
    while _is_running(child) and time.monotonic() < end:
        time.sleep(0.1)
    assert not _is_running(child)


def _is_running(process: int) -> bool:
    """Whether a process has not ended; one that nobody waits for stays as a zombie."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1]
    except FileNotFoundError:
        return False
    return state.split()[0] != "Z"


def test_executables_that_nobody_needs_are_released() -> None:
    engine = _open("none")
    for _ in range(3):
        engine.compile(RIGHT).run(X)
    assert len(engine.unused) == 1
    engine.child()
    assert engine.unused == []


def test_a_limit_of_runs_holds_for_the_first_run_too() -> None:
    """Where no build has a limit, the first run on new shapes may take ten times as long."""
    engine = _open("nothing", build_seconds=None, run_seconds=2.0)
    executable = engine.compile(RIGHT)
    assert executable._run_seconds(X) == 20.0
    assert executable._run_seconds(X) == 2.0
    engine.limits = replace(engine.limits, build_seconds=5.0)
    assert executable._run_seconds({"x": X["x"][:1]}) == 7.0
    engine.close()
