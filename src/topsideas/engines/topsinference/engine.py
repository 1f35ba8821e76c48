"""The ``topsinference`` engine: builds and runs plans on a GCU with the vendor's SDK."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np

from topsideas.engines.base import Arrays, Capabilities, Identity, OpRecord, Probe, Trace
from topsideas.engines.feeds import checked_feeds
from topsideas.engines.lazily import Lazily
from topsideas.engines.options import EngineOptions, refuse_emulated
from topsideas.engines.topsinference.builds import (
    DUMP,
    FINAL,
    PLAIN,
    STATISTICS,
    Build,
    Builder,
    Shapes,
)
from topsideas.engines.topsinference.hlir import as_ops, read_hlir
from topsideas.engines.topsinference.profile import SdkProfile, read_profile
from topsideas.engines.topsinference.results import named_outputs, read_dump, read_statistics
from topsideas.engines.topsinference.sdk import NAME, Sdk
from topsideas.engines.topsinference.strategies import LayerPrecision, choose_strategy
from topsideas.errors import EngineError
from topsideas.graph.loading import Model
from topsideas.graph.ops import Op
from topsideas.plan import PrecisionPlan
from topsideas.precision import FP16, Overflow


class TopsEngine:
    """Compiles and runs one model; use it from one process of its own.

    Args:
        model: The model.
        options: What is asked of the engine.
        profile: The SDK's ways.

    Raises:
        EngineError: The SDK cannot be imported, or has no way of keeping ops in fp32.
    """

    def __init__(self, model: Model, options: EngineOptions, profile: SdkProfile) -> None:
        self.model, self.profile = model, profile
        self._options = options
        self.folder = Path(tempfile.mkdtemp(prefix="topsideas-gcu-"))
        self._scope = ExitStack()
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        self.sdk = Sdk(profile, self.folder, options.device, options.cluster)
        self._scope.enter_context(self.sdk.device())
        weakref.finalize(self, self._scope.close)
        self.builder = Builder(self.sdk, model, options, self.folder)
        self.turn = RLock()
        nominal = self.builder.nominal()
        self.strategy = choose_strategy(self.sdk, lambda: self.builder.parse(nominal))
        self.own_ops = self._numbered(nominal)
        self.candidates = frozenset(op.id for op in self.own_ops or model.ops if op.candidate)
        if self.own_ops is not None:
            own = self.own_ops
            self.ops = lambda: own  # an engine with the ONNX numbering has no such method

    def _numbered(self, shapes: Shapes) -> tuple[Op, ...] | None:
        """The engine's ops; None where ids are those of the ONNX nodes."""
        if isinstance(self.strategy, LayerPrecision):
            return self.strategy.ops(self.builder.parse(shapes))
        if self.strategy.numbering == "onnx":
            return None
        with self.turn:
            build = self.builder.build(
                self.strategy, PrecisionPlan.of([]), frozenset(), shapes, PLAIN
            )
        if build.ir is None:
            raise EngineError(
                f"the build wrote no dump of its graph ({self.profile.ir_files}), which tells the "
                "ids of ops; see ir_files and environment in the SDK profile"
            )
        text = build.ir.read_text(encoding="utf-8", errors="replace")
        return as_ops(read_hlir(text, self.profile.ir_id))

    def identity(self) -> Identity:
        """The SDK's version on the card, with the strategy that keeps ops in fp32."""
        own = {"precision": "fp16", "overflow": "saturate", "strategy": self.strategy.name}
        own["numbering"] = self.strategy.numbering
        # A profile's file may change under the same name, and with it what a plan does.
        own["compiled_with"] = self._fingerprint()
        return Identity(NAME, self.sdk.version, self.sdk.device_name, "measured", own)

    def _fingerprint(self) -> str:
        """A digest of the profile and of everything that the compiler is told."""
        told = {k: v for k, v in self._options.merged().items() if k != "sdk_profile"}
        shapes = [dict(self._options.min_shapes), dict(self._options.max_shapes)]
        text = json.dumps([asdict(self.profile), told, shapes], sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def capabilities(self) -> Capabilities:
        """Traces need the SDK's dumps, which the profile must know."""
        return Capabilities(
            traces=bool(self.profile.dump_options and self.profile.dump_pattern),
            exact_trace=False,
            bodies=False,
            dear=True,
            counts=bool(self.profile.statistics_options and self.profile.statistics_files),
            rounds_as_defined=False,
            finalizes=True,
        )

    def compile(self, plan: PrecisionPlan) -> TopsExecutable:
        """An executable of ``plan``; each shape is built when it first runs."""
        return TopsExecutable(self, plan)

    def finalize(self, plan: PrecisionPlan) -> TopsExecutable:
        """The same without what makes builds comparable, and without statistics."""
        return TopsExecutable(self, plan, FINAL)

    def load(self, path: Path) -> LoadedExecutable:
        """Open what :meth:`TopsExecutable.save` wrote. Raises EngineError."""
        if not path.is_file():
            raise EngineError(f"{path}: no such executable")
        with self.turn:
            return LoadedExecutable(self, self.sdk.load(path))

    def run(self, built: Any, feeds: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Run the SDK's engine. Raises EngineError."""
        with self.turn:
            found = self.sdk.run(built, list(feeds.values()), moving=self.builder.moving)
        return dict(named_outputs(self.model.graph.outputs, found))


@dataclass(frozen=True)
class LoadedExecutable:
    """A saved executable, loaded."""

    engine: TopsEngine
    built: Any

    def run(self, feeds: Arrays) -> dict[str, Any]:
        """The outputs by name. Raises EngineError."""
        return self.engine.run(self.built, checked_feeds(self.engine.model, feeds))


@dataclass(frozen=True)
class TopsExecutable:
    """One plan; built once per shapes of inputs, or once where a range of shapes is given.

    Attributes:
        engine: Its engine.
        plan: The ops in fp32.
        variant: ``plain``, or ``final`` for deployment.
    """

    engine: TopsEngine
    plan: PrecisionPlan
    variant: str = PLAIN
    _built: dict[tuple[str, Shapes], Lazily[Build]] = field(default_factory=dict)
    _others: dict[str, TopsExecutable] = field(default_factory=dict)

    def prepare(self) -> None:
        """Build now if one build does for all samples. Raises EngineError."""
        static = all(isinstance(d, int) for v in self.engine.model.inputs() for d in v.shape or ())
        if static or self.engine.builder.moving:
            self.build(self.engine.builder.nominal(), self.variant)

    def build(
        self, shapes: Shapes, variant: str, thresholds: tuple[float, float] = (0.0, 0.0)
    ) -> Build:
        """The build for these shapes, made once. Raises EngineError."""
        shapes = self.engine.builder.nominal() if self.engine.builder.moving else shapes
        engine = self.engine

        def make() -> Build:
            return engine.builder.build(
                engine.strategy, self.plan, engine.candidates, shapes, variant, thresholds
            )

        with engine.turn:
            return self._built.setdefault((variant, shapes), Lazily(make))()

    def run(self, feeds: Arrays) -> dict[str, Any]:
        """The outputs by name. Raises EngineError."""
        checked = checked_feeds(self.engine.model, feeds)
        return self.engine.run(self.build(_shapes(checked), self.variant).engine, checked)

    def trace(self, feeds: Arrays) -> Trace:
        """A run of a build that dumps every op's outputs. Iterating raises EngineError."""
        return _DumpTrace(self, feeds)

    def statistics(
        self, feeds: Arrays, le: float, ge: float
    ) -> tuple[Mapping[int, Mapping[str, Any]], dict[str, Any]] | None:
        """What the SDK counted, and the outputs; None where the profile has no statistics.

        Raises EngineError.
        """
        profile = self.engine.profile
        if not (profile.statistics_options and profile.statistics_files):
            return None
        checked = checked_feeds(self.engine.model, feeds)
        build = self.build(_shapes(checked), STATISTICS, (le, ge))
        for old in build.folder.glob(profile.statistics_files):
            old.unlink()  # of another sample
        outputs = self.engine.run(build.engine, checked)
        return read_statistics(build.folder, profile.statistics_files), outputs

    def doubts(self, feeds: Arrays) -> list[str]:
        """A line if the outputs are those of the plain mixed build bit for bit.

        Then the SDK may ignore the way in which the plan was given; or the ops that are kept
        make no difference by themselves. Raises EngineError.
        """
        kept = self.plan.kept & self.engine.candidates
        if not kept or kept == self.engine.candidates:
            return []
        found, plain = self.run(feeds), self._plain().run(feeds)
        if any(found[n].tobytes() != plain[n].tobytes() for n in found):
            return []
        line = "the outputs are bit for bit those of the build with no op in fp32: either the "
        line += "ops make no difference by themselves, or the SDK ignores "
        return [line + self.engine.strategy.name]

    def _plain(self) -> TopsExecutable:
        """The plan that keeps nothing; built once for all samples."""
        if PLAIN not in self._others:
            nothing = PrecisionPlan.of([])
            self._others[PLAIN] = replace(self, plan=nothing, _built={}, _others={})
        return self._others[PLAIN]

    def save(self, path: Path) -> None:
        """Write the executable; where several shapes were built, that of the first."""
        build = self._some_build()
        with self.engine.turn:
            self.engine.sdk.save(build.engine, path)

    def dump(self, path: Path) -> None:
        """Write the SDK's dump of the compiled graph, or a line that says there is none."""
        build = self._some_build()
        if build.ir is not None:
            shutil.copy(build.ir, path)
            return
        pattern = self.engine.profile.ir_files
        path.write_text(f"the build wrote no {pattern}; see the SDK profile\n", encoding="utf-8")

    def _some_build(self) -> Build:
        done = [shapes for variant, shapes in self._built if variant == self.variant]
        return self.build(done[0] if done else self.engine.builder.nominal(), self.variant)


class _DumpTrace:
    """A traced run; it happens while it is iterated."""

    def __init__(self, executable: TopsExecutable, feeds: Arrays) -> None:
        self._executable, self._feeds = executable, feeds
        self.outputs: dict[str, Any] = {}

    def __iter__(self) -> Iterator[OpRecord]:
        executable, engine = self._executable, self._executable.engine
        if not engine.capabilities().traces:
            raise EngineError(
                "the SDK profile has no dump_options and dump_pattern, so that the outputs of "
                "single ops cannot be seen; 'topsideas gcu probe' shows what the SDK offers"
            )
        checked = checked_feeds(engine.model, self._feeds)
        build = executable.build(_shapes(checked), DUMP)
        for old in build.folder.rglob("*"):
            if old.is_file() and old != build.ir:
                old.unlink()
        self.outputs = engine.run(build.engine, checked)
        low = executable.plan.low(engine.candidates)
        graph = build.ir.read_text(encoding="utf-8", errors="replace") if build.ir else ""
        ops = read_hlir(graph, engine.profile.ir_id) if engine.own_ops and graph else []
        for number, outputs in read_dump(build.folder, engine.profile.dump_pattern, ops):
            yield OpRecord(number, outputs, stored_low=number in low)


def _shapes(feeds: Mapping[str, np.ndarray]) -> Shapes:
    return tuple(tuple(a.shape) for a in feeds.values())


def _check_options(options: EngineOptions) -> None:
    numerics = options.numerics
    if numerics.precision is not FP16:
        raise EngineError(
            f"TopsInference mixes fp32 with fp16 only; --precision {numerics.precision.name} can "
            "only be emulated"
        )
    refuse_emulated(options, "a GCU", Overflow.SATURATE)


def load_in_process(path: Path, options: EngineOptions, scope: ExitStack) -> Any:
    """The SDK's own engine, loaded into this process.

    Args:
        path: A saved executable.
        options: Which card and clusters to claim.
        scope: Keeps them claimed until it is closed.

    Raises:
        EngineError: The SDK cannot be imported, or refuses the file.
    """
    folder = Path(tempfile.gettempdir())
    sdk = Sdk(profile_of(options), folder, options.device, options.cluster)
    scope.enter_context(sdk.device())
    return sdk.load(path)


def profile_of(options: EngineOptions) -> SdkProfile:
    """The profile that the compile option ``sdk_profile`` names or holds. Raises EngineError."""
    return read_profile(options.compile_options.get("sdk_profile"))


def probe(options: EngineOptions) -> Probe:
    """Whether the SDK can be imported here, and which version it is."""
    try:
        folder = Path(tempfile.gettempdir())
        sdk = Sdk(profile_of(options), folder, options.device, options.cluster)
    except EngineError as error:
        return Probe(remedy=str(error))
    low = {"fp16": "", "bf16": "TopsInference mixes fp32 with fp16 only"}
    return Probe(sdk.version, sdk.device_name, "measured", low)


def open_topsinference(model: Model, options: EngineOptions) -> TopsEngine:
    """Open the GCU for a model.

    Its compile options go to the SDK, but for ``sdk_profile``: the path of a profile, or one.

    Raises:
        EngineError: The SDK is not installed, an option does not fit, or the profile leaves no
            way of keeping ops in fp32.
    """
    _check_options(options)
    return TopsEngine(model, options, profile_of(options))
