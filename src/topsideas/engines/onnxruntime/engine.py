"""The ``onnxruntime`` engine: typed mixed-precision models on an execution provider's kernels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copyfile
from statistics import median
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort

from topsideas.engines.base import Arrays, Capabilities, Identity, Probe
from topsideas.engines.feeds import checked_feeds, in_order
from topsideas.engines.foreign import mapped
from topsideas.engines.onnxruntime.placement import Placed, placed_nodes
from topsideas.engines.onnxruntime.providers import (
    CPU,
    NAME,
    WHO,
    Chosen,
    open_session,
)
from topsideas.engines.onnxruntime.selftest import chosen_provider, refusal, shortfall
from topsideas.engines.options import EngineOptions, refuse_emulated
from topsideas.engines.typed import TypedModels
from topsideas.engines.typed_run import Built, TypedExecutable
from topsideas.engines.workplace import Folder
from topsideas.errors import EngineError
from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan
from topsideas.precision import PRECISIONS, Numerics, Overflow


class OnnxRuntimeEngine:
    """Opens sessions of typed models on one provider.

    Args:
        model: The model.
        numerics: The low format.
        chosen: The provider.
    """

    def __init__(self, model: Model, numerics: Numerics, chosen: Chosen) -> None:
        self.model = model
        self.chosen = chosen
        self._numerics = numerics
        self._typed = TypedModels(model, numerics)

    def identity(self) -> Identity:
        """This ONNX Runtime on the provider, with its options."""
        own = {"precision": self._numerics.precision.name, "overflow": "inf"}
        device = f"{self.chosen.name} {self.chosen.options.get('device_id', '')}".strip()
        return Identity(NAME, ort.__version__, device, "measured", own | self.chosen.to_json())

    def capabilities(self) -> Capabilities:
        """Ops in bodies cannot be watched, and tensors that are watched are not fused away."""
        return Capabilities(
            exact_trace=False, bodies=False, readable=True, dear=True, rounds_as_defined=False
        )

    def compile(self, plan: PrecisionPlan) -> OnnxRuntimeExecutable:
        """An executable of ``plan``.

        Raises:
            EngineError: The provider refuses the model, or the plan has low ops and the provider
                computes those in fp32.
        """
        if plan.low(self.model.candidates):
            _refuse_pretence(self.chosen, self._numerics)
        return OnnxRuntimeExecutable(self, plan)

    def build(self, plan: PrecisionPlan, *, traced: bool) -> Built[Opened]:
        """Convert and open a session. Raises EngineError."""
        typed = self._typed.write(plan, traced=traced)
        return Built(typed, Opened(self.model, self.session(typed.path)))

    def session(self, path: Path, profile: Path | None = None) -> ort.InferenceSession:
        """A session of a model file; with a profile it tells where its nodes ran."""
        return open_session(self.chosen, str(path), profile)

    def load(self, path: Path) -> Opened:
        """Open what :meth:`OnnxRuntimeExecutable.save` wrote. Raises EngineError."""
        if not path.is_file():
            raise EngineError(f"{path}: no such executable")
        return Opened(self.model, self.session(path))


@dataclass(frozen=True)
class Opened:
    """A session that runs; one call at a time.

    Attributes:
        model: The user's model.
        session: The session.
    """

    model: Model
    session: ort.InferenceSession
    _turn: Lock = field(default_factory=Lock)

    def run(self, feeds: Arrays) -> dict[str, Any]:
        """The outputs by name. Raises EngineError."""
        return in_order(self.model, self.fetch(checked_feeds(self.model, feeds)))

    def fetch(self, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Every output by name. Raises EngineError."""
        with self._turn, mapped(WHO, "running"):
            if self._bindable(feeds):
                return self._bound(feeds)
            names = [o.name for o in self.session.get_outputs()]
            return dict(zip(names, self.session.run(names, dict(feeds)), strict=True))

    def latency(self, feeds: Arrays, repeats: int) -> float:
        """Median seconds of one run, with inputs and outputs on the device's side of the bus.

        Raises EngineError.
        """
        checked = checked_feeds(self.model, feeds)
        taken = []
        with self._turn, mapped(WHO, "measuring"):
            binding = self._binding(checked)
            for _ in range(repeats + 1):  # the first one warms up
                start = perf_counter()
                self.session.run_with_iobinding(binding)
                binding.synchronize_outputs()
                taken.append(perf_counter() - start)
        return median(taken[1:])

    def _bindable(self, feeds: Mapping[str, np.ndarray]) -> bool:
        """Whether all are plain tensors: sequences and texts cannot be bound."""
        tensors = all(o.type.startswith("tensor(") for o in self.session.get_outputs())
        return tensors and all(a.dtype.kind in "fiub" for a in feeds.values())

    def _binding(self, feeds: Mapping[str, np.ndarray]) -> Any:
        binding = self.session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        for output in self.session.get_outputs():
            binding.bind_output(output.name)
        return binding

    def _bound(self, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        binding = self._binding(feeds)
        self.session.run_with_iobinding(binding)
        names = [o.name for o in self.session.get_outputs()]
        # Copies: what the binding returns may be memory that the next run writes to.
        found = [np.copy(a) for a in binding.copy_outputs_to_cpu()]
        return dict(zip(names, found, strict=True))


class OnnxRuntimeExecutable(TypedExecutable[Opened]):
    """One plan, opened on a provider."""

    def __init__(self, engine: OnnxRuntimeEngine, plan: PrecisionPlan) -> None:
        super().__init__(engine, plan)
        self.engine = engine

    @property
    def notes(self) -> tuple[str, ...]:
        """What the converter had to say, and whether the provider's fp32 is less than that."""
        lacks = shortfall(self.engine.chosen)
        return (*super().notes, *([lacks] if lacks else []))

    def placed(self, feeds: Arrays) -> list[Placed]:
        """What ran where, by a profiled run. Raises EngineError."""
        folder = Folder()
        session = self.engine.session(self.built.typed.path, folder.path / "profile")
        Opened(self.engine.model, session).run(feeds)
        file = Path(session.end_profiling())
        events = json.loads(file.read_text(encoding="utf-8"))
        return placed_nodes(events, self.built.typed)

    def differing(self, feeds: Arrays) -> Mapping[int, str]:
        """Low ops that a run leaves to the CPU provider, which computes them in fp32."""
        if self.engine.chosen.name == CPU:
            return {}
        left = {op for node in self.placed(feeds) if node.provider == CPU for op in node.ops}
        return dict.fromkeys(sorted(left & self.built.typed.low), "fp32 on the CPU provider")

    def save(self, path: Path) -> None:
        """Write the typed model; weights above 1.5 GB lie beside it."""
        copyfile(self.built.typed.path, path)
        weights = Path(f"{self.built.typed.path}.data")
        if weights.is_file():
            copyfile(weights, path.parent / weights.name)

    def dump(self, path: Path) -> None:
        """Write a line per op: its kind and the precision that the typed model gives it."""
        low, name = self.built.typed.low, self.engine.identity().options["precision"]
        lines = [f"# {WHO} on {self.engine.chosen.name}", "# op kind precision"]
        lines += [
            f"{op.id} {op.type} {name if op.id in low else 'fp32' if op.candidate else '-'}"
            for op in self.engine.model.ops
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def probe(options: EngineOptions) -> Probe:
    """What ONNX Runtime's providers are on this machine."""
    try:
        chosen = chosen_provider(options)
    except EngineError as error:
        return Probe(ort.__version__, remedy=str(error))
    low = {precision: refusal(chosen, precision) for precision in PRECISIONS}
    return Probe(ort.__version__, chosen.name, "measured", low)


def open_onnxruntime(model: Model, options: EngineOptions) -> OnnxRuntimeEngine:
    """Open a provider for a model.

    Its compile options are ``provider``, ``provider_options`` and ``session_options``; without
    the first, the first provider whose low format is real is taken, and ``--device`` names the
    device.

    Raises:
        EngineError: The provider computes low ops in fp32, is not in this build, or an option does
            not fit.
    """
    refuse_emulated(options, NAME, Overflow.INF)
    chosen = chosen_provider(options)
    _refuse_pretence(chosen, options.numerics)
    return OnnxRuntimeEngine(model, options.numerics, chosen)


def _refuse_pretence(chosen: Chosen, numerics: Numerics) -> None:
    """Raise EngineError if the provider only pretends to compute in the low format."""
    why = refusal(chosen, numerics.precision.name)
    if why:
        raise EngineError(why)
