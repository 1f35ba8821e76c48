"""The ``openvino`` engine: typed mixed-precision models on OpenVINO's own kernels."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np
import openvino as ov

from topsideas.engines.base import Arrays, Capabilities, Identity, Probe
from topsideas.engines.feeds import checked_feeds, in_order
from topsideas.engines.foreign import mapped
from topsideas.engines.openvino.readback import differing_ops, kernels, listing
from topsideas.engines.openvino.runtime import (
    CAPABILITY,
    NAME,
    Target,
    as_json,
    compile_file,
    core,
    target_of,
    version,
)
from topsideas.engines.options import EngineOptions, refuse_emulated
from topsideas.engines.typed import TypedModels
from topsideas.engines.typed_run import Built, TypedExecutable
from topsideas.engines.workplace import Folder
from topsideas.errors import EngineError
from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics, Overflow

_XML, _BIN = "model.xml", "model.bin"


class OpenVinoEngine:
    """Compiles typed models for one device.

    Args:
        model: The model.
        numerics: The low format.
        target: The device, and how to compile for it.
    """

    def __init__(self, model: Model, numerics: Numerics, target: Target) -> None:
        self.model = model
        self.target = target
        self._numerics = numerics
        self._typed = TypedModels(model, numerics)
        self._refusal = target.refusal(numerics.precision.name)

    def identity(self) -> Identity:
        """This OpenVINO on the device, with its compile options."""
        own = {"precision": self._numerics.precision.name, "overflow": "inf"}
        own["config"] = as_json(self.target.config)
        return Identity(NAME, version(), self.target.full_name(), "measured", own)

    def capabilities(self) -> Capabilities:
        """Ops in bodies cannot be watched, and tensors that are watched are not fused away.

        Neighbouring elementwise ops become one kernel, which computes in fp32 between a load and
        a store.
        """
        return Capabilities(
            exact_trace=False, bodies=False, readable=True, dear=True, rounds_as_defined=False
        )

    def compile(self, plan: PrecisionPlan) -> OpenVinoExecutable:
        """An executable of ``plan``.

        Raises:
            EngineError: OpenVINO cannot compile it, or the plan has low ops and the device would
                compute them in fp32.
        """
        if plan.low(self.model.candidates) and self._refusal:
            raise EngineError(self._refusal)
        return self.compile_unchecked(plan)

    def compile_unchecked(self, plan: PrecisionPlan) -> OpenVinoExecutable:
        """An executable whose low ops may run in fp32: no evidence, but its listing says so."""
        return OpenVinoExecutable(self, plan)

    def build(self, plan: PrecisionPlan, *, traced: bool) -> Built[LoadedModel]:
        """Convert and compile. Raises EngineError."""
        typed = self._typed.write(plan, traced=traced)
        compiled = compile_file(str(typed.path), self.target)
        return Built(typed, LoadedModel(self.model, compiled))

    def load(self, path: Path) -> LoadedModel:
        """Open what :meth:`OpenVinoExecutable.save` wrote. Raises EngineError."""
        folder = Folder()
        if not path.is_file():
            raise EngineError(f"{path}: no such executable")
        try:
            with zipfile.ZipFile(path) as archive:
                for name in (_XML, _BIN):
                    (folder.path / name).write_bytes(archive.read(name))
        except (zipfile.BadZipFile, KeyError) as error:
            raise EngineError(
                f"{path}: no executable of openvino ({error}); expected a zip of {_XML} and {_BIN}"
            ) from error
        return LoadedModel(self.model, compile_file(str(folder.path / _XML), self.target), folder)


@dataclass(frozen=True)
class LoadedModel:
    """Something compiled that runs; one call at a time, which uses all threads.

    Attributes:
        model: The user's model.
        compiled: What OpenVINO compiled.
        folder: Its files, which may be mapped.
    """

    model: Model
    compiled: ov.CompiledModel
    folder: Folder | None = None
    _turn: Lock = field(default_factory=Lock)

    def run(self, feeds: Arrays) -> dict[str, Any]:
        """The outputs by name. Raises EngineError."""
        return in_order(self.model, self.fetch(checked_feeds(self.model, feeds)))

    def fetch(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Every output by each of its names. Raises EngineError."""
        # Inputs that nothing reads are not in a compiled model.
        known = {name for port in self.compiled.inputs for name in port.names}
        wanted = {name: array for name, array in feeds.items() if name in known}
        with self._turn, mapped(f"{NAME} {version()}", "running"):
            found = self.compiled(wanted)
        return {
            name: np.copy(found[port]) for port in self.compiled.outputs for name in port.names
        }

    def latency(self, feeds: Arrays, repeats: int) -> float:
        """Median seconds of one run. Raises EngineError."""
        checked = checked_feeds(self.model, feeds)
        taken = []
        for _ in range(repeats + 1):  # the first one warms up
            start = perf_counter()
            self.fetch(checked)
            taken.append(perf_counter() - start)
        return median(taken[1:])


class OpenVinoExecutable(TypedExecutable[LoadedModel]):
    """One plan, compiled."""

    def differing(self, feeds: Arrays) -> Mapping[int, str]:
        """Ops that run in another precision than the plan's, each with which; on any sample."""
        return differing_ops(self.built.runner.compiled, self.built.typed, self._engine.model)

    def kernels(self, feeds: Arrays) -> list[tuple[int, ...]]:
        """The ops of each kernel, whatever is fed. Raises EngineError."""
        found = kernels(self.built.runner.compiled, self.built.typed)
        return [kernel.ops for kernel in found if kernel.ops]

    def save(self, path: Path) -> None:
        """Write the model as OpenVINO IR, zipped: ``model.xml`` and ``model.bin``."""
        read = core().read_model(str(self.built.typed.path))
        folder = Folder()
        with mapped(NAME, "writing the IR"):
            ov.save_model(read, folder.path / _XML, compress_to_fp16=False)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in (_XML, _BIN):
                archive.write(folder.path / name, name)

    def dump(self, path: Path) -> None:
        """Write a line per compiled node: kind, precision, and the ops that it stands for."""
        text = listing(self.built.runner.compiled, self.built.typed)
        path.write_text(text, encoding="utf-8")


def probe(options: EngineOptions) -> Probe:
    """What OpenVINO is on this machine."""
    try:
        target = target_of(options)
        low = {precision: target.refusal(precision) for precision in CAPABILITY}
        return Probe(version(), target.full_name(), "measured", low)
    except EngineError as error:
        return Probe(version(), remedy=str(error))


def open_openvino(model: Model, options: EngineOptions) -> OpenVinoEngine:
    """Open OpenVINO for a model; its compile options go to ``compile_model``.

    Raises:
        EngineError: The device does not compute in the low format, or an option does not fit.
    """
    refuse_emulated(options, NAME, Overflow.INF)
    target = target_of(options)
    refusal = target.refusal(options.numerics.precision.name)
    if refusal:
        raise EngineError(refusal)
    return OpenVinoEngine(model, options.numerics, target)
