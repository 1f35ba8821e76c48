"""Builds of one model: what the parser and the compiler are given, and what a build leaves."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from topsideas.engines.options import EngineOptions
from topsideas.engines.topsinference.profile import filled
from topsideas.engines.topsinference.sdk import DTYPES, Sdk, Signature
from topsideas.engines.topsinference.strategies import OnnxFp16, Strategy
from topsideas.engines.typed import TypedModels
from topsideas.errors import EngineError
from topsideas.graph.conversion_files import write_model
from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan

PLAIN, STATISTICS, DUMP, FINAL = "plain", "statistics", "dump", "final"

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Build:
    """What one build left.

    Attributes:
        engine: The SDK's engine.
        ir: The dump of the compiled graph, if one was found.
        folder: Files of its runs are written here.
    """

    engine: Any
    ir: Path | None
    folder: Path


class Builder:
    """Parses and compiles.

    Args:
        sdk: The SDK.
        model: The user's model.
        options: What is asked of the engine.
        folder: The run's own folder.
    """

    def __init__(self, sdk: Sdk, model: Model, options: EngineOptions, folder: Path) -> None:
        self.sdk, self._model, self._options = sdk, model, options
        self._folder = folder
        self._numbers = count()
        self._typed = TypedModels(model, options.numerics)
        self._plain = folder / "model.onnx"
        write_model(model.graph_model, self._plain)
        self._own = {k: v for k, v in options.merged().items() if k not in ("sdk_profile",)}
        unknown = [v.name for v in model.inputs() if _element(v) not in DTYPES]
        if unknown:
            raise EngineError(f"TopsInference has no type for the input {unknown[0]!r}")

    @property
    def moving(self) -> bool:
        """Whether builds are for a range of shapes."""
        return bool(self._options.max_shapes)

    def nominal(self) -> Shapes:
        """Shapes to build for where no sample is at hand: sizes that move are the smallest."""
        return tuple(
            tuple(self._options.min_shapes.get(str(v.name), _smallest(v.shape)))
            for v in self._model.inputs()
        )

    def parse(self, shapes: Shapes, path: Path | None = None) -> Any:
        """The network of a model file. Raises EngineError."""
        inputs = self._model.inputs()
        if self.moving:
            low, high = self._ranges().values()
            shapes = tuple(
                tuple(a if a == b else -1 for a, b in zip(one, other, strict=True))
                for one, other in zip(low, high, strict=True)
            )
        signature = Signature(
            [str(v.name) for v in inputs],
            shapes,
            [_element(v) for v in inputs],
            [str(v.name) for v in self._model.graph.outputs],
        )
        return self.sdk.read(path or self._plain, signature)

    def build(
        self,
        strategy: Strategy,
        plan: PrecisionPlan,
        candidates: frozenset[int],
        shapes: Shapes,
        variant: str,
        thresholds: tuple[float, float] = (0.0, 0.0),
    ) -> Build:
        """Compile a plan.

        Args:
            strategy: How ops are kept.
            plan: Which are.
            candidates: Which could run low.
            shapes: The inputs' shapes; not used for a range of shapes.
            variant: ``plain``, with ``statistics`` or ``dump``, or ``final`` for deployment.
            thresholds: What statistics count against: at most, and at least.

        Raises:
            EngineError: The SDK refuses.
        """
        folder = self._folder / f"{variant}{next(self._numbers)}"
        folder.mkdir(parents=True)
        kept = plan.kept & candidates
        typed, all_fp32 = isinstance(strategy, OnnxFp16), not plan.low(candidates)
        source = self._typed.write(plan) if typed and not all_fp32 else None
        network = self.parse(shapes, source.path if source else None)
        options = dict(self._own) | dict(self._extra(variant, folder, thresholds))
        if not all_fp32 and not typed:
            options |= dict(strategy.options(kept))
            strategy.mark(network, kept)
        before = self._ir_files()
        flag = "fp32" if all_fp32 or typed else "mixed"
        engine = self.sdk.build(network, options, flag, self._ranges())
        return Build(engine, self._new_ir(before, folder), folder)

    def _extra(
        self, variant: str, folder: Path, thresholds: tuple[float, float]
    ) -> Mapping[str, Any]:
        profile = self.sdk.profile
        chosen: dict[str, Any] = dict(profile.compare_options) if variant != FINAL else {}
        own = {STATISTICS: profile.statistics_options, DUMP: profile.dump_options}
        chosen |= dict(own.get(variant, {}))
        le, ge = thresholds
        found: Mapping[str, Any] = filled(chosen, folder=str(folder), le=le, ge=ge)
        return found

    def _ranges(self) -> dict[str, Sequence[Sequence[int]]]:
        if not self.moving:
            return {}
        low, high = (
            [list(_of(b, v)) for v in self._model.inputs()]
            for b in (self._options.min_shapes, self._options.max_shapes)
        )
        moving_batch = any(a[:1] != b[:1] for a, b in zip(low, high, strict=True))
        if moving_batch and not self.sdk.profile.dynamic_batch:
            raise EngineError(
                "axis 0 of an input moves between --min_shapes and --max_shapes; the SDK is only "
                "known to move the others. Set dynamic_batch in the SDK profile if yours can"
            )
        return {"min": low, "max": high}

    def _ir_files(self) -> dict[Path, int]:
        found = self._folder.glob(self.sdk.profile.ir_files)
        return {path: path.stat().st_mtime_ns for path in found if path.is_file()}

    def _new_ir(self, before: Mapping[Path, int], folder: Path) -> Path | None:
        """A copy of the newest dump that a build wrote: the next one may write the same file."""
        after = self._ir_files()
        new = [p for p, changed in after.items() if before.get(p) != changed]
        if not new:
            return None
        return Path(shutil.copy(max(new, key=lambda p: (after[p], p.name)), folder / "ir.log"))


def _of(shapes: Mapping[str, Sequence[int]], value: Any) -> Sequence[int]:
    return shapes.get(str(value.name), _smallest(value.shape))


def _smallest(shape: Any) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else 1 for d in shape or ())


def _element(value: Any) -> int:
    return int(value.dtype) if value.dtype is not None else 0
