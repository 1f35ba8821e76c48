"""What every engine must do: plain functions, no framework, so they also run on a vendor's box.

Run all of them with ``for check in CHECKS: check(opener)``, where ``opener`` opens the engine for
a model. A check that fails raises ConformanceError and says what was expected; one that does not
apply to what the engine says it can do raises NotApplicable. The checks that matter most are
:func:`low_ops_round` and :func:`kept_ops_do_not`: an engine that quietly computes in fp32, or that
ignores the plan, fails here and not in a user's report.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from topsideas.engines.base import Capabilities, Engine, Executable, SecondOpinion
from topsideas.errors import EngineError
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import BF16, FP16, Numerics, Overflow
from topsideas.rounding import round_to
from topsideas.stats.criteria import Tolerance, margin
from topsideas.testing.planted import Planted, overflow, parse, planted_models, products, ramp
from topsideas.testing.search_conformance import ConformanceError, require

Opener = Callable[[Model, Numerics], Engine]
Outputs = dict[str, Any]

_IEEE = Numerics()
_SATURATING = Numerics(FP16, Overflow.SATURATE)
_ALL_LOW = PrecisionPlan.of([])
# Two executions that are both right differ by the order of their fp32 sums.
_NOISE = Tolerance(1e-5, 1e-6)
_SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 6e-8, 3e-8, 1e-30, 65520, -1e30]
_NEGATE = "g (float[N] x) => (float[N] y) { y = Neg (x) }"


# No compiler makes one product of two, so that what is between them is stored.
_PRODUCTS = """g (float[16,16] x, float[16,16] a, float[16,16] b) => (float[16,16] y) {
    between = MatMul (x, a)
    y = MatMul (between, b)
}"""


class NotApplicable(Exception):  # noqa: N818 - it is no failure
    """The engine says that it cannot do what a check is about."""


def numerics_of(opener: Opener) -> Numerics:
    """The numerics to check an engine with: infinite overflow, or saturation if it refuses that.

    Raises:
        EngineError: It refuses both.
    """
    model = load_model(parse(_NEGATE))
    try:
        opener(model, _IEEE)
    except EngineError as refused:
        try:
            opener(model, _SATURATING)
        except EngineError:
            raise refused from None
        return _SATURATING
    return _IEEE


def identity_is_stable(opener: Opener) -> None:
    """Who computes is named, says how it knows, and is the same when asked again."""
    model, numerics = load_model(overflow().model), numerics_of(opener)
    first, second = (opener(model, numerics).identity() for _ in range(2))
    require(first.to_json() == second.to_json(), "identity() differs between two openings")
    require(bool(first.name and first.version and first.device), "identity() has empty fields")
    require(
        first.evidence in ("emulated", "measured"),
        f"evidence is {first.evidence!r}, expected 'emulated' or 'measured'",
    )


def identity_tells_numerics(opener: Opener) -> None:
    """Openings that give other results bear other identities."""
    model = load_model(overflow().model)
    try:
        ieee, saturating = (opener(model, n).identity().to_json() for n in (_IEEE, _SATURATING))
    except EngineError as refused:
        raise NotApplicable(f"one overflow only: {refused}") from refused
    require(ieee != saturating, "inf and saturate share an identity, and so cached results")


def outputs_are_named_and_typed(opener: Opener) -> None:
    """Every output by its name, in the model's order, of its dtype and rank."""
    for planted, model, engine in _opened(opener):
        outputs = engine.compile(_ALL_LOW).run(planted.samples[0])
        names = [str(v.name) for v in model.graph.outputs]
        require(list(outputs) == names, f"{planted.name}: {list(outputs)}, expected {names}")
        for value in model.graph.outputs:
            found, where = outputs[str(value.name)], f"{planted.name}: output {value.name!r}"
            dtype = value.dtype.numpy() if value.dtype else None
            require(found.dtype == dtype, f"{where} is {found.dtype}, expected {dtype}")
            rank = len(value.shape) if value.shape is not None else found.ndim
            require(found.ndim == rank, f"{where} has shape {found.shape}, expected rank {rank}")


def any_shape_runs(opener: Opener) -> None:
    """Scalars, empty tensors, and one executable on several sizes."""
    numerics = numerics_of(opener)
    engine = opener(load_model(parse(_NEGATE)), numerics)
    negate = engine.compile(_ALL_LOW)
    for size in (3, 0, 1, 7) if engine.capabilities().dynamic else (3,):
        _negated(engine, negate, ramp(0, 1, size), numerics, f"N={size}")
    scalar = parse("g (float x) => (float y) { y = Neg (x) }")
    engine = opener(load_model(scalar), numerics)
    tenth = np.float32(0.1)[...]
    _negated(engine, engine.compile(_ALL_LOW), tenth, numerics, "a scalar")


def bf16_rounds(opener: Opener) -> None:
    """Where bf16 is taken, what low ops hand on is rounded to it, and what kept ops do is not."""
    model, part = load_model(parse(_PRODUCTS), BF16), 2.0**-9
    try:
        engine = opener(model, Numerics(BF16))
    except EngineError as refused:
        raise NotApplicable(f"no bf16: {refused}") from refused
    x, a, b = (np.zeros((16, 16), np.float32) for _ in range(3))
    x[0, :3], a[:2, 0], a[2, 1], b[:2, 0] = (1, part, 1), 1, 1, (1, -1)
    for kept, expected in (([], 0.0), ([0, 1], part)):
        found = engine.compile(PrecisionPlan.of(kept)).run({"x": x, "a": a, "b": b})["y"][0, 0]
        require(found == expected, f"ops {kept} kept: 1 + {part} - 1 is {found}, not {expected}")


def special_values_survive(opener: Opener) -> None:
    """NaN, infinities, signed zeros and tiny values, in fp32 and in the low format."""
    x, numerics = np.array(_SPECIAL, np.float32), numerics_of(opener)
    model = load_model(parse(_NEGATE))
    engine = opener(model, numerics)
    _same(engine.compile(PrecisionPlan.of([0])).run({"x": x})["y"], -x, "all ops kept in fp32")
    _negated(engine, engine.compile(_ALL_LOW), x, numerics, "all ops low")


def arrays_are_left_alone(opener: Opener) -> None:
    """Inputs are not written to, and outputs stay as they are when the engine runs again."""
    for planted, _, engine in _opened(opener):
        executable, feeds = engine.compile(_ALL_LOW), planted.samples[0]
        before = {n: a.copy() for n, a in feeds.items()}
        first = executable.run(feeds)
        kept = {n: a.copy() for n, a in first.items()}
        executable.run({n: np.zeros_like(a) for n, a in feeds.items()})
        for name, array in before.items():
            _same(feeds[name], array, f"{planted.name}: input {name!r} after a run")
        for name, array in kept.items():
            _same(first[name], array, f"{planted.name}: output {name!r} after another run")


def low_ops_round(opener: Opener) -> None:
    """A planted product that does not fit overflows, or saturates where that was asked for."""
    planted, seen = products(), False
    for numerics, beyond in ((_IEEE, np.inf), (_SATURATING, 65504 * 0.01)):
        try:
            engine = opener(load_model(planted.model), numerics)
        except EngineError:
            continue
        seen = True
        found = engine.compile(_ALL_LOW).run(planted.samples[0])["y"][0, 0]
        near = np.isclose(found, beyond, rtol=1e-2)
        require(bool(near), f"{numerics.overflow.value}: found {found}, expected {beyond}")
    require(seen, "the engine refuses both overflows")


def kept_ops_do_not(opener: Opener) -> None:
    """Each planted answer passes; without any one of its ops it fails."""
    for planted, _, engine in _opened(opener):
        worst = _worst(engine, planted, planted.answer)
        require(worst <= 1, f"{planted.name}: margin {worst:.4g} with its answer kept in fp32")
        certain = engine.capabilities().rounds_as_defined or not planted.fusible
        for op in sorted(planted.answer) if certain else ():
            worst = _worst(engine, planted, planted.answer - {op})
            require(worst > 1, f"{planted.name}: op {op} runs low and yet margin {worst:.4g}")


def runs_repeat(opener: Opener) -> None:
    """The same plan on the same inputs gives the same bits."""
    for planted, _, engine in _opened(opener):
        feeds = planted.samples[-1]
        runs = [engine.compile(_ALL_LOW).run(feeds) for _ in range(2)]
        _same_outputs(runs[1], runs[0], f"{planted.name}: a second run")


def traces_show_every_op(opener: Opener) -> None:
    """A trace tells what each op read and wrote, and watching changes nothing."""
    for planted, model, engine in _opened(opener):
        can = _traceable(engine)
        for plan in (_ALL_LOW, PrecisionPlan(planted.answer), PrecisionPlan(model.candidates)):
            for feeds in planted.samples:
                executable = engine.compile(plan)
                trace = executable.trace(feeds)
                seen = {record.id for record in trace}
                if can.exact_trace:  # others say that watching may change what is fused
                    _same_outputs(trace.outputs, executable.run(feeds), f"{planted.name}: traced")
                require(
                    list(trace.outputs) == [str(v.name) for v in model.graph.outputs],
                    f"{planted.name}: a trace's outputs are {list(trace.outputs)}",
                )
                known = {op.id for op in model.ops}
                require(seen <= known, f"{planted.name}: traced unknown ops {seen - known}")
                top = {op.id for op in model.ops if op.candidate and op.path.count("/") == 1}
                require(top <= seen, f"{planted.name}: no trace of ops {top - seen}")


def traces_show_rounding(opener: Opener) -> None:
    """What a low op stored is what it computed, rounded; kept ops show no rounding."""
    rounded = False
    for planted, model, engine in _opened(opener):
        _traceable(engine)
        plan = PrecisionPlan(planted.answer)
        low = plan.low(model.candidates)
        for record in engine.compile(plan).trace(planted.samples[0]):
            where = f"{planted.name}: op {record.id}"
            require(record.id in low or not record.raw, f"{where} does not round and shows raw")
            for raw, stored in zip(record.raw, record.outputs, strict=bool(record.raw)):
                if raw is not None:
                    rounded = True
                    _same(stored, round_to(raw, planted.numerics), f"{where} as stored")
    if not rounded:
        raise NotApplicable("the engine does not show what it computed before it was rounded")


def failures_are_engine_errors(opener: Opener) -> None:
    """Inputs that do not fit end in EngineError, never in a crash or a stranger's exception."""
    model = parse("g (float[4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}> { y = Add (x, w) }")
    engine = opener(load_model(model), numerics_of(opener))
    executable = engine.compile(_ALL_LOW)
    calls: list[Callable[[Any], Any]] = [executable.run]
    if engine.capabilities().traces:
        calls.append(lambda feeds: list(executable.trace(feeds)))
    wrong: dict[str, dict[str, np.ndarray]] = {
        "of the wrong dtype": {"x": np.zeros(4, np.float64)},
        "of a shape that its readers refuse": {"x": np.zeros((2, 3), np.float32)},
        "that is missing": {},
    }
    for what, feeds in wrong.items():
        for run in calls:
            try:
                run(feeds)
            except EngineError:
                continue
            raise ConformanceError(f"an input {what} raised nothing")


def artefacts_are_written(opener: Opener) -> None:
    """Executables and listings can be saved."""
    planted = overflow()
    engine = opener(load_model(planted.model), numerics_of(opener))
    executable = engine.compile(PrecisionPlan(planted.answer))
    with tempfile.TemporaryDirectory() as folder:
        for write, name in ((executable.save, "saved"), (executable.dump, "listing")):
            path = Path(folder) / name
            write(path)
            require(path.is_file() and path.stat().st_size > 0, f"no {name} was written")


def saved_executables_run(opener: Opener) -> None:
    """What was saved gives, once loaded, what it gave before; other files are refused."""
    for planted, _, engine in _opened(opener):
        executable = engine.compile(PrecisionPlan(planted.answer))
        before = executable.run(planted.samples[0])
        with tempfile.TemporaryDirectory() as folder:
            saved, other = Path(folder) / "saved", Path(folder) / "other"
            executable.save(saved)
            found = engine.load(saved).run(planted.samples[0])
            _same_outputs(found, before, f"{planted.name}: saved and loaded")
            other.write_bytes(b"no executable")
            for path in (other, Path(folder) / "missing"):
                try:
                    engine.load(path).run(planted.samples[0])
                except EngineError:
                    continue
                raise ConformanceError(f"loading {path.name!r} raised nothing")


def second_opinions_agree(opener: Opener) -> None:
    """Where an engine can run a plan in a second way, both say the same but for fp32 noise."""
    for planted, model, engine in _opened(opener):
        for plan in (PrecisionPlan(planted.answer), PrecisionPlan(model.candidates)):
            executable = engine.compile(plan)
            able = isinstance(executable, SecondOpinion)
            require(able == engine.capabilities().opinions, "what it can do is told wrongly")
            if not isinstance(executable, SecondOpinion):
                raise NotApplicable("the engine runs a plan in one way only")
            second = executable.second_opinion()
            for feeds in planted.samples:
                first = executable.run(feeds)
                for name, found in second.run(feeds).items():
                    worst = margin(found, first[name], _NOISE)
                    require(worst <= 1, f"{planted.name}: opinions on {name!r} differ")


def _negated(
    engine: Engine, negate: Executable, x: np.ndarray, numerics: Numerics, what: str
) -> None:
    """One low Neg rounds, unless the engine may make one kernel of it and its casts."""
    found, expected = negate.run({"x": x})["y"], -round_to(x, numerics)
    if not engine.capabilities().rounds_as_defined:
        expected = np.where(found == -x, -x, expected)
    _same(found, expected, what)


def _opened(opener: Opener) -> Iterator[tuple[Planted, Model, Engine]]:
    """The planted models whose numerics the engine takes; the plain ones it must take.

    A target that only saturates is given those that fail by saturation.
    """
    only = numerics_of(opener)
    for planted in planted_models():
        if only is _SATURATING and planted.numerics == _IEEE and planted.by_infinity:
            continue
        model = load_model(planted.model)
        numerics = only if planted.numerics == _IEEE else planted.numerics
        try:
            engine = opener(model, numerics)
        except EngineError:
            if planted.numerics == _IEEE:
                raise
            continue
        yield replace(planted, numerics=numerics), model, engine


def _traceable(engine: Engine) -> Capabilities:
    can = engine.capabilities()
    if not can.traces:
        raise NotApplicable("the engine shows no outputs of single ops")
    return can


def _worst(engine: Engine, planted: Planted, kept: frozenset[int]) -> float:
    reference = engine.compile(PrecisionPlan(load_model(planted.model).candidates))
    executable = engine.compile(PrecisionPlan(kept))
    return max(_margin(executable.run(f), reference.run(f)) for f in planted.samples)


def _margin(outputs: Outputs, golden: Outputs) -> float:
    return max(margin(outputs[name], golden[name], Tolerance()) for name in golden)


def _same(found: Any, expected: np.ndarray, what: str) -> None:
    """Bit for bit, but for the payload of NaN."""
    found = np.asarray(found)
    require(found.dtype == expected.dtype, f"{what}: {found.dtype}, expected {expected.dtype}")
    require(found.shape == expected.shape, f"{what}: {found.shape}, expected {expected.shape}")
    same = (found == expected) & (np.signbit(found) == np.signbit(expected))
    if expected.dtype.kind == "f":
        same |= np.isnan(found) & np.isnan(expected)
    require(bool(np.all(same)), f"{what}: {found}, expected {expected}")


def _same_outputs(found: Outputs, expected: Outputs, what: str) -> None:
    require(list(found) == list(expected), f"{what}: {list(found)}, expected {list(expected)}")
    for name, array in expected.items():
        _same(found[name], np.asarray(array), f"{what}: output {name!r}")


CHECKS: tuple[Callable[[Opener], None], ...] = (
    identity_is_stable,
    identity_tells_numerics,
    outputs_are_named_and_typed,
    any_shape_runs,
    special_values_survive,
    arrays_are_left_alone,
    low_ops_round,
    bf16_rounds,
    kept_ops_do_not,
    runs_repeat,
    traces_show_every_op,
    traces_show_rounding,
    failures_are_engine_errors,
    artefacts_are_written,
    saved_executables_run,
    second_opinions_agree,
)
