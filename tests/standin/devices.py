"""Devices that are none: the emulator with other habits, standing in for real engines.

Each says that its builds are dear, counts them, and computes what a plan means in its own way, so
that plans that are minimal by the emulator's definition often miss on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from topsideas.engines.base import Arrays, Capabilities, Identity
from topsideas.engines.emulator.engine import EmulatorEngine, EmulatorExecutable
from topsideas.errors import EngineError
from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Accumulation, Numerics, Subnormals


class Device:
    """The emulator under another name.

    Args:
        model: The model.
        numerics: What it does to values.
        traces: Whether it shows tensors.

    Attributes:
        builds: Every plan that was built, in order.
    """

    name = "device"

    def __init__(
        self, model: Model, numerics: Numerics | None = None, *, traces: bool = True
    ) -> None:
        self.inner = EmulatorEngine(model, numerics or Numerics())
        self.model = model
        self.builds: list[frozenset[int]] = []
        self._traces = traces

    def identity(self) -> Identity:
        own = dict(self.inner.identity().options)
        return Identity(self.name, "1", "none at all", "emulated", own)

    def capabilities(self) -> Capabilities:
        return Capabilities(traces=self._traces, exact_trace=False, dear=True, readable=True)

    def compile(self, plan: PrecisionPlan) -> Any:
        self.builds.append(plan.kept)
        return _Executable(self, self.meant(plan), plan)

    def meant(self, plan: PrecisionPlan) -> PrecisionPlan:
        """The plan as the device understands it."""
        return plan

    def runner(self, executable: EmulatorExecutable) -> Any:
        """What runs a plan."""
        return executable.once()

    def load(self, path: Path) -> Any:
        return self.inner.load(path)

    @property
    def dear_builds(self) -> int:
        """Builds of plans other than the two controls, each plan once."""
        low, high = frozenset(), self.model.candidates
        return len({kept & high for kept in self.builds} - {low, high})


class _Executable:
    def __init__(self, device: Device, meant: PrecisionPlan, asked: PrecisionPlan) -> None:
        self._device = device
        self._asked, self._meant = asked, meant
        self._inner = device.inner.compile(meant)
        self._runner: Any = None

    def run(self, feeds: Arrays) -> dict[str, Any]:
        if self._runner is None:
            self._runner = self._device.runner(self._inner)
        found: dict[str, Any] = self._runner.run(feeds)
        return found

    def trace(self, feeds: Arrays) -> Any:
        if not self._device.capabilities().traces:
            raise EngineError("this device shows nothing")
        return self._inner.trace(feeds)

    def differing(self, feeds: Arrays) -> Mapping[int, str]:
        candidates = self._device.model.candidates
        wrong = (self._asked.kept ^ self._meant.kept) & candidates
        return {op: "fp32" if op in self._meant.kept else "fp16" for op in sorted(wrong)}

    def save(self, path: Path) -> None:
        self._inner.save(path)

    def dump(self, path: Path) -> None:
        self._inner.dump(path)


class Short(Device):
    """Says that its fp32 is less than that."""

    def compile(self, plan: PrecisionPlan) -> Any:
        made = super().compile(plan)
        made.notes = ("its fp32 is less than fp32",)
        return made


class Fusing(Device):
    """Low ops do not round what they hand to each other."""

    name = "fusing"

    def runner(self, executable: EmulatorExecutable) -> Any:
        return executable.fused()


class Summing(Device):
    """Means hold their sum in the low precision, so that it can overflow inside."""

    name = "summing"

    def __init__(self, model: Model, numerics: Numerics | None = None, **more: Any) -> None:
        given = numerics or Numerics()
        super().__init__(model, replace(given, accumulation=Accumulation.LOW), **more)


class Adding(Device):
    """Products round their sum after each term."""

    name = "adding"

    def __init__(self, model: Model, numerics: Numerics | None = None, **more: Any) -> None:
        given = numerics or Numerics()
        super().__init__(model, replace(given, accumulation=Accumulation.TERMWISE), **more)


class Flushing(Device):
    """Subnormals become zero."""

    name = "flushing"

    def __init__(self, model: Model, numerics: Numerics | None = None, **more: Any) -> None:
        given = numerics or Numerics()
        super().__init__(model, replace(given, subnormals=Subnormals.FLUSH), **more)


class Hiding(Device):
    """What is infinite or no number comes out finite, as behind a Clip of some engines."""

    name = "hiding"

    def runner(self, executable: EmulatorExecutable) -> Any:
        return _Hidden(executable.once())


class _Hidden:
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def run(self, feeds: Arrays) -> dict[str, Any]:
        return {
            name: np.nan_to_num(array, nan=-9e4, posinf=9e4, neginf=-9e4)
            for name, array in self._inner.run(feeds).items()
        }


class Folding(Device):
    """Runs some ops in another precision than the plan's, and says so when it is asked."""

    name = "folding"

    def __init__(self, model: Model, numerics: Numerics | None = None, **more: Any) -> None:
        self.always_low: frozenset[int] = more.pop("always_low", frozenset())
        self.always_fp32: frozenset[int] = more.pop("always_fp32", frozenset())
        super().__init__(model, numerics, **more)

    def meant(self, plan: PrecisionPlan) -> PrecisionPlan:
        if plan.kept >= self.model.candidates:
            return plan
        return PrecisionPlan((plan.kept - self.always_low) | self.always_fp32)


class Refusing(Device):
    """Cannot compile certain plans."""

    name = "refusing"
    refuses: Callable[[frozenset[int]], bool] = staticmethod(lambda kept: False)

    def runner(self, executable: EmulatorExecutable) -> Any:
        if self.refuses(self.builds[-1]):
            raise EngineError("the compiler gave up")
        return executable.once()


DEVICES = {d.name: d for d in (Device, Fusing, Summing, Flushing)}
