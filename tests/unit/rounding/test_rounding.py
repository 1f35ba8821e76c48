"""Rounding against its definition, numpy and ml_dtypes, and inside the emulator's graph."""

from __future__ import annotations

from functools import cache

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topsideas.engines.emulator.engine import EmulatorEngine, EmulatorExecutable, WholeModel
from topsideas.graph.loading import load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import BF16, FP16, Numerics, Overflow, Precision, Subnormals
from topsideas.rounding import round_to
from topsideas.testing.planted import parse

PLAIN = {p.name: (p, dtype) for p, dtype in ((FP16, np.float16), (BF16, ml_dtypes.bfloat16))}
EVERY = [Numerics(p, o, s) for p in (FP16, BF16) for o in Overflow for s in Subnormals]
MANTISSA = {"fp16": 10, "bf16": 7}

every_format = pytest.mark.parametrize("precision", [FP16, BF16], ids=lambda p: p.name)
every_numerics = pytest.mark.parametrize("numerics", EVERY, ids=lambda n: "-".join(_fields(n)))
quick = settings(deadline=None, max_examples=40)


def _fields(numerics: Numerics) -> list[str]:
    return list(numerics.to_json().values())[:3]


def _floats(bits: list[int]) -> np.ndarray:
    return np.array(bits, np.uint32).view(np.float32)


# Any float32 at all, and float32 whose lower half decides a tie in either format.
any_bits = st.integers(0, 2**32 - 1)
ties = st.builds(
    lambda high, low: (high << 16) + low,
    st.integers(0, 2**16 - 1),
    st.sampled_from(
        [0, 1, 0x0FFF, 0x1000, 0x1001, 0x2FFF, 0x3000, 0x7FFF, 0x8000, 0x8001, 0xFFFF]
    ),
)
arrays = st.lists(any_bits | ties, min_size=1, max_size=64).map(_floats)


def _same(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Bit for bit; any NaN is as good as any other."""
    assert found.dtype == expected.dtype == np.float32
    assert found.shape == expected.shape
    bits = found.view(np.uint32) == expected.view(np.uint32)
    return bits | (np.isnan(found) & np.isnan(expected))


def _by_definition(x: np.ndarray, precision: Precision) -> np.ndarray:
    """IEEE 754: the nearest multiple of the quantum, ties to even, with an unbounded exponent."""
    digits, least = MANTISSA[precision.name], round(np.log2(precision.smallest_normal))
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        exponent = np.maximum(np.floor(np.log2(np.abs(wide))), least)
        quantum = 2.0 ** (exponent - digits)
        rounded = np.copysign(np.rint(wide / quantum) * quantum, wide)
        rounded = np.where(np.abs(rounded) > precision.max, np.copysign(np.inf, wide), rounded)
        return np.where(np.isfinite(wide) & (wide != 0), rounded, wide).astype(np.float32)


def _every_boundary(dtype: type) -> np.ndarray:
    """Each value of a 16-bit format, each middle between two, and the float32 next to those."""
    values = np.arange(2**16, dtype=np.uint16).view(dtype).astype(np.float32)
    finite = np.sort(values[np.isfinite(values)])
    middles = (finite[1:].astype(np.float64) + finite[:-1]) / 2
    exact = np.concatenate([values, middles.astype(np.float32)])
    with np.errstate(all="ignore"):
        near = [np.nextafter(exact, np.float32(end)) for end in (np.inf, -np.inf)]
    return np.concatenate([exact, *near])


@every_format
def test_every_boundary_is_rounded_by_the_definition(precision: Precision) -> None:
    x = _every_boundary(PLAIN[precision.name][1])
    assert x.size > 300_000
    assert _same(round_to(x, Numerics(precision)), _by_definition(x, precision)).all()


@every_format
@quick
@given(x=arrays)
def test_any_float32_is_rounded_as_the_16_bit_type_does(
    precision: Precision, x: np.ndarray
) -> None:
    with np.errstate(all="ignore"):
        expected = x.astype(PLAIN[precision.name][1]).astype(np.float32)
    found = round_to(x, Numerics(precision))
    assert _same(found, expected).all()
    assert _same(found, _by_definition(x, precision)).all()


@every_format
@quick
@given(x=arrays)
def test_saturation_changes_nothing_but_what_overflows(
    precision: Precision, x: np.ndarray
) -> None:
    free = round_to(x, Numerics(precision))
    held = round_to(x, Numerics(precision, Overflow.SATURATE))
    limit = np.float32(precision.max)
    expected = np.where(np.isinf(free), np.copysign(limit, x), free)
    assert _same(held, expected).all()
    assert (np.isnan(held) == np.isnan(x)).all()


@every_format
@quick
@given(x=arrays)
def test_flushing_changes_nothing_but_subnormals(precision: Precision, x: np.ndarray) -> None:
    kept = round_to(x, Numerics(precision))
    flushed = round_to(x, Numerics(precision, subnormals=Subnormals.FLUSH))
    small = np.abs(kept) < np.float32(precision.smallest_normal)
    assert _same(flushed, np.where(small, np.copysign(np.float32(0), x), kept)).all()


@every_numerics
@quick
@given(x=arrays)
def test_rounding_twice_is_rounding_once(numerics: Numerics, x: np.ndarray) -> None:
    once = round_to(x, numerics)
    assert _same(round_to(once, numerics), once).all()


@every_numerics
@quick
@given(x=arrays)
def test_rounding_keeps_order_and_sign(numerics: Numerics, x: np.ndarray) -> None:
    numbers = np.sort(x[~np.isnan(x)])
    rounded = round_to(numbers, numerics)
    assert (rounded[:-1] <= rounded[1:]).all()
    assert (np.signbit(rounded) == np.signbit(numbers)).all()
    assert _same(round_to(-numbers, numerics), -rounded).all()


@every_numerics
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,), (2, 3)])
def test_an_array_of_the_same_shape_comes_back(numerics: Numerics, shape: tuple[int, ...]) -> None:
    x = np.full(shape, 1e9, np.float32)
    rounded = round_to(x, numerics)
    assert isinstance(rounded, np.ndarray)
    assert (rounded.shape, rounded.dtype) == (shape, np.dtype(np.float32))
    assert (x == np.float32(1e9)).all()


@cache
def _identity(numerics: Numerics) -> tuple[EmulatorExecutable, WholeModel, WholeModel]:
    """One op that hands its input on, low: run step by step, whole, and whole with fusions."""
    model = load_model(parse("g (float[N] x) => (float[N] y) { y = Identity (x) }"))
    low = EmulatorEngine(model, numerics).compile(PrecisionPlan.of([]))
    return low, low.freeze(), low.second_opinion()


@every_numerics
@settings(deadline=None, max_examples=30)
@given(x=arrays)
def test_the_emulator_rounds_inside_a_graph_as_the_reference(
    numerics: Numerics, x: np.ndarray
) -> None:
    for executable in _identity(numerics):
        assert _same(executable.run({"x": x})["y"], round_to(x, numerics)).all()


@every_numerics
def test_the_emulator_rounds_every_boundary_as_the_reference(numerics: Numerics) -> None:
    x = _every_boundary(PLAIN[numerics.precision.name][1])[::5]
    for executable in _identity(numerics):
        assert _same(executable.run({"x": x})["y"], round_to(x, numerics)).all()
