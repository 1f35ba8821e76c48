"""Every engine in the registry against the shipped suite, and the suite against wrong engines.

A new engine is tested the moment it is listed; where it cannot start, its reason is shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.standin.setup import open_standin, use_standin
from topsideas.engines.base import Arrays
from topsideas.engines.emulator.engine import EmulatorEngine, EmulatorExecutable
from topsideas.engines.options import EngineOptions, Isolation
from topsideas.engines.registry import ENGINES, open_engine
from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Accumulation, Numerics
from topsideas.testing.diagnosis import opener_of, why_skipped
from topsideas.testing.engine_conformance import (
    CHECKS,
    NotApplicable,
    Opener,
    arrays_are_left_alone,
    artefacts_are_written,
    bf16_rounds,
    failures_are_engine_errors,
    kept_ops_do_not,
    low_ops_round,
    outputs_are_named_and_typed,
    special_values_survive,
    traces_show_every_op,
)
from topsideas.testing.search_conformance import ConformanceError

each_check = pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)


def _examine(check: Callable[[Opener], None], opener: Opener) -> None:
    try:
        check(opener)
    except NotApplicable as reason:
        pytest.skip(str(reason))


@each_check
@pytest.mark.parametrize("name", ENGINES)
def test_engine(name: str, check: Callable[[Opener], None]) -> None:
    precision = "bf16" if check is bf16_rounds else "fp16"
    reason = why_skipped(name, {}, precision=precision)
    if reason:
        pytest.skip(reason)
    _examine(check, opener_of(name, {}))


# Each of these starts a few processes; all others start dozens.
_FEW = (low_ops_round, special_values_survive, failures_are_engine_errors, artefacts_are_written)
_ISOLATED = CHECKS if os.environ.get("TOPSIDEAS_FULL") else _FEW


@pytest.mark.parametrize("check", _ISOLATED, ids=lambda c: c.__name__)
def test_an_engine_in_a_child_process(check: Callable[[Opener], None]) -> None:
    """Nothing gets lost between the processes, not even the payload of a trace."""

    def opener(model: Model, numerics: Numerics) -> Any:
        own = {} if numerics.accumulation is Accumulation.FP32 else {"accumulation": "low"}
        limits = Isolation(build_seconds=120, run_seconds=60)
        options = EngineOptions(numerics=numerics, compile_options=own, isolation=limits)
        return open_engine("emulator", model, options)

    _examine(check, opener)


@each_check
def test_the_gcu_engine_on_the_stand_in(
    check: Callable[[Opener], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use_standin(monkeypatch)
    _examine(check, open_standin)


@dataclass(frozen=True)
class _Wrapped:
    """An engine that does something else than it should."""

    inner: EmulatorEngine

    def identity(self) -> Any:
        return self.inner.identity()

    def capabilities(self) -> Any:
        return self.inner.capabilities()

    def load(self, path: Path) -> Any:
        return self.inner.load(path)

    def compile(self, plan: PrecisionPlan) -> Any:
        return self.inner.compile(plan)


class _ComputesInFp32(_Wrapped):
    """What ONNX Runtime's CPU provider does with an fp16 model."""

    def compile(self, plan: PrecisionPlan) -> Any:
        return self.inner.compile(PrecisionPlan(self.inner._model.candidates))


class _IgnoresThePlan(_Wrapped):
    def compile(self, plan: PrecisionPlan) -> Any:
        return self.inner.compile(PrecisionPlan.of([]))


@dataclass(frozen=True)
class _Executable:
    inner: EmulatorExecutable

    def run(self, feeds: Arrays) -> dict[str, Any]:
        return self.inner.run(feeds)

    def trace(self, feeds: Arrays) -> Any:
        return self.inner.trace(feeds)


class _WritesToItsInputs(_Wrapped):
    @dataclass(frozen=True)
    class Own(_Executable):
        def run(self, feeds: Arrays) -> dict[str, Any]:
            outputs = self.inner.run(feeds)
            for array in feeds.values():
                array[...] = np.zeros_like(array)
            return outputs

    def compile(self, plan: PrecisionPlan) -> Any:
        return self.Own(self.inner.compile(plan))


class _LosesAnOutput(_Wrapped):
    @dataclass(frozen=True)
    class Own(_Executable):
        def run(self, feeds: Arrays) -> dict[str, Any]:
            return dict(list(self.inner.run(feeds).items())[:-1])

    def compile(self, plan: PrecisionPlan) -> Any:
        return self.Own(self.inner.compile(plan))


class _DiffersWhenTraced(_Wrapped):
    @dataclass(frozen=True)
    class Own(_Executable):
        def trace(self, feeds: Arrays) -> Any:
            kept = self.inner.engine._model.candidates
            return self.inner.engine.compile(PrecisionPlan(kept)).trace(feeds)

    def compile(self, plan: PrecisionPlan) -> Any:
        return self.Own(self.inner.compile(plan))


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        (_ComputesInFp32, low_ops_round),
        (_ComputesInFp32, bf16_rounds),
        (_IgnoresThePlan, bf16_rounds),
        (_IgnoresThePlan, kept_ops_do_not),
        (_WritesToItsInputs, arrays_are_left_alone),
        (_LosesAnOutput, outputs_are_named_and_typed),
        (_DiffersWhenTraced, traces_show_every_op),
    ],
)
def test_the_suite_finds_wrong_engines(
    wrong: type[_Wrapped], check: Callable[[Opener], None]
) -> None:
    with pytest.raises(ConformanceError):
        check(lambda model, numerics: wrong(EmulatorEngine(model, numerics)))
