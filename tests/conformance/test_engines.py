"""Every engine in the registry against the shipped suite, and the suite against wrong engines.

A new engine is tested the moment it is listed; where it cannot start, its reason is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from topsideas.engines.base import Arrays
from topsideas.engines.emulator.engine import EmulatorEngine, EmulatorExecutable
from topsideas.engines.options import EngineOptions
from topsideas.engines.registry import ENGINES, open_engine
from topsideas.errors import EngineError
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Accumulation, Numerics
from topsideas.testing.engine_conformance import (
    CHECKS,
    Opener,
    arrays_are_left_alone,
    kept_ops_do_not,
    low_ops_round,
    outputs_are_named_and_typed,
    traces_show_every_op,
)
from topsideas.testing.planted import harmless
from topsideas.testing.search_conformance import ConformanceError


def _opener(name: str) -> Opener:
    def opener(model: Model, numerics: Numerics) -> Any:
        own = {} if numerics.accumulation is Accumulation.FP32 else {"accumulation": "low"}
        options = EngineOptions(numerics=numerics, compile_options=own)
        return open_engine(name, model, options)

    return opener


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("name", ENGINES)
def test_engine(name: str, check: Callable[[Opener], None]) -> None:
    opener = _opener(name)
    try:
        opener(load_model(harmless().model), Numerics())
    except EngineError as error:
        pytest.skip(str(error))
    check(opener)


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
