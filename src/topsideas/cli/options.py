"""From parsed arguments to the objects that the use cases take."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from topsideas.calibration.selection import bounded_text
from topsideas.calibration.settings import Settings, Validator, sample_bytes
from topsideas.cli.low_format import OVERFLOW_OF_TARGET
from topsideas.cli.workers import devices
from topsideas.engines.emulator.runtime import default_threads
from topsideas.engines.options import PATIENT, EngineOptions, Isolation
from topsideas.engines.registry import ENGINES
from topsideas.errors import UsageError
from topsideas.graph.loading import Model
from topsideas.precision import PRECISIONS, Numerics, Overflow
from topsideas.samples.shapes import ShapeBounds, parse_shapes, shape_bounds
from topsideas.samples.signature import signature_of
from topsideas.search.objective import Objective
from topsideas.search.oracle import Budget
from topsideas.stats.calc import Thresholds
from topsideas.stats.criteria import Cosine, Tolerance


def settings(args: Namespace, must_keep: frozenset[int]) -> Settings:
    """How plans are judged. Raises UsageError."""
    if args.val_scope != "sample" and not args.val_func:
        raise UsageError(f"--val_scope {args.val_scope} says how --val_func is called; give both")
    tolerance = Tolerance(args.rtol, args.atol, args.ntol)
    return Settings(
        criterion=tolerance if args.cos_sim is None else Cosine(args.cos_sim, tolerance),
        validator=_validator(args.val_func, args.val_scope, args.val_timeout)
        if args.val_func
        else None,
        bound=args.margin,
        must_keep=must_keep,
        budget=Budget(args.max_evaluations, args.time_limit),
        threads=args.threads or default_threads(),
        objective=Objective(args.objective),
        pareto=args.pareto,
        max_builds=args.max_builds,
        sample_bytes=sample_bytes(args.memory_limit),
    )


def thresholds(args: Namespace) -> Thresholds:
    """What CALC counts. Raises UsageError."""
    limit = PRECISIONS[args.precision].max
    return Thresholds(args.le_value_thres, args.ge_value_thres, limit)


def engine_options(args: Namespace, engine: str, bounds: ShapeBounds | None) -> EngineOptions:
    """What is asked of the engine; a default that depends on it is written into ``args``.

    Raises UsageError.
    """
    args.overflow = overflow_of(args, engine)
    return EngineOptions(
        min_shapes=dict(bounds.min) if bounds is not None else {},
        max_shapes=dict(bounds.max) if bounds is not None else {},
        isolation=isolation(
            engine,
            isolate=args.isolate,
            build=args.build_timeout,
            run=args.run_timeout,
            memory=args.engine_memory,
            python=args.engine_python,
        ),
        numerics=Numerics(PRECISIONS[args.precision], Overflow(args.overflow)),
        compile_options=compile_options(args.compile_options),
        resource_mode=args.resource_mode,
        device=devices(args)[0],
        cluster=tuple(args.cluster),
        threads=args.threads,
        memory_limit=args.memory_limit,
    )


def overflow_of(args: Namespace, engine: str, found: Mapping[str, Any] | None = None) -> str:
    """What was asked for, else what the engine does, else what a report or the target says."""
    if args.overflow is not None:
        return str(args.overflow)
    there = (found or {}).get("overflow") or OVERFLOW_OF_TARGET[args.target]
    return ENGINES[engine].overflow or str(there)


def isolation(
    engine: str,
    *,
    isolate: bool,
    build: float | None = None,
    run: float | None = None,
    memory: int | None = None,
    python: str | None = None,
) -> Isolation | None:
    """A child process where the engine always needs one, or where it or a limit is asked for."""
    if ENGINES[engine].isolated:
        build, run = build or PATIENT.build_seconds, run or PATIENT.run_seconds
    elif not isolate and {build, run, memory, python} == {None}:
        return None
    return Isolation(build, run, memory, python=python)


def shape_bounds_of(args: Namespace, model: Model) -> ShapeBounds | None:
    """The range of input shapes. Raises UsageError."""
    low = parse_shapes(args.min_shapes or [], "--min_shapes")
    high = parse_shapes(args.max_shapes or [], "--max_shapes")
    return shape_bounds(low, high, signature_of(model))


def compile_options(text: str) -> dict[str, Any]:
    """The engine's options from JSON text or ``@file``. Raises UsageError."""
    source = "--compile_options"
    if text.startswith("@"):
        source = text[1:]
        try:
            text = bounded_text(Path(source))
        except (OSError, ValueError) as error:
            raise UsageError(f"--compile_options: cannot read {source}: {error}") from error
    try:
        options = json.loads(text)
        json.dumps(options, allow_nan=False)  # the reader lets NaN and Infinity through
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"{source}: not valid JSON ({error}); expected an object, or @file"
        ) from error
    if not isinstance(options, dict):
        raise UsageError(f"{source}: expected a JSON object, found {type(options).__name__}")
    return options


def _validator(reference: str, scope: str, seconds: float) -> Validator:
    file, _, name = reference.rpartition(":")
    if not file or not name:
        raise UsageError(f"--val_func {reference!r}: expected FILE.py:NAME")
    function = _load_function(Path(file), name)
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    return Validator(function, scope, {"file_sha256": digest, "name": name}, seconds)


@contextlib.contextmanager
def _without_bytecode() -> Iterator[None]:
    """Keep Python from writing ``__pycache__`` into the user's folder."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _load_function(path: Path, name: str) -> Callable[[Any, Any], bool]:
    if not path.is_file():
        raise UsageError(f"--val_func: no such file {path}; expected FILE.py:NAME")
    spec = importlib.util.spec_from_file_location("topsideas_val_func", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"--val_func: {path} is not a Python file; expected FILE.py:NAME")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        with _without_bytecode():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"--val_func: {path} fails to load: {type(error).__name__}: {error}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"--val_func: {path} defines no function {name!r}")
    return function  # type: ignore[no-any-return]
