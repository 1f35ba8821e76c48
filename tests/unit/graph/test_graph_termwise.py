"""Products summed term by term: the bits of a plain loop over the terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.errors import EngineError
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Accumulation, Numerics
from topsideas.testing.planted import parse

_TERMWISE = Numerics(accumulation=Accumulation.TERMWISE)
_LOW = np.float16


def _summed(start: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``start`` + left[.., k] * right[k, ..], each term in float32 and stored in fp16."""
    total = start.astype(_LOW)
    for k in range(left.shape[-1]):
        terms = left[..., k, None].astype(np.float32) * right[k].astype(np.float32)
        total = (total.astype(np.float32) + terms).astype(_LOW)
    return total.astype(np.float32)


def _model(text: str, opset: int = 13, **weights: np.ndarray) -> Model:
    given = ", ".join(
        f"float{list(w.shape)} {name} = {{{', '.join(map(repr, w.ravel().tolist()))}}}"
        for name, w in weights.items()
    )
    return load_model(parse(text.replace("<>", f"<{given}>"), opset=opset))


def _ran(model: Model, kept: tuple[int, ...] = (), **feeds: np.ndarray) -> Any:
    executable = EmulatorEngine(model, _TERMWISE).compile(PrecisionPlan.of(kept))
    found, traced = executable.run(feeds)["y"], list(executable.trace(feeds))
    assert np.array_equal(found, executable.freeze().run(feeds)["y"])
    assert np.array_equal(found, traced[-1].outputs[0])
    return found


def _random(*shape: int) -> np.ndarray:
    seed = sum(shape)
    return np.random.default_rng(seed).uniform(-2, 2, shape).astype(_LOW).astype(np.float32)


def test_a_matrix_product() -> None:
    x, w = _random(2, 3, 40), _random(40, 5)
    model = _model("g (float[2,3,40] x) => (float[2,3,5] y) <> { y = MatMul (x, w) }", w=w)
    found = _ran(model, x=x)
    assert np.array_equal(found, _summed(np.zeros((2, 3, 5)), x, w))
    assert not np.array_equal(found, _ran(model, (0,), x=x))  # a kept one sums in fp32


@pytest.mark.parametrize("shapes", [((40,), (40, 5)), ((3, 40), (40,))])
def test_a_product_with_vectors(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    x, w = _random(*shapes[0]), _random(*shapes[1])
    size = list((x @ w).shape)
    model = _model(
        f"g (float{list(x.shape)} x) => (float{size} y) <> {{ y = MatMul (x, w) }}", w=w
    )
    wide = (np.atleast_2d(x), w.reshape(40, -1))
    expected = _summed(np.zeros((len(wide[0]), wide[1].shape[1])), *wide)
    assert np.array_equal(_ran(model, x=x).ravel(), expected.ravel())


@pytest.mark.parametrize("opset", [11, 13])
def test_a_gemm_starts_with_its_bias(opset: int) -> None:
    x, w, b = _random(40, 3), _random(5, 40), _random(5)
    text = """g (float[40,3] x) => (float[3,5] y) <> {
        y = Gemm <transA = 1, transB = 1, beta = 0.5> (x, w, b)
    }"""
    start = np.broadcast_to(b / 2, (3, 5))
    assert np.array_equal(_ran(_model(text, opset, w=w, b=b), x=x), _summed(start, x.T, w.T))


def test_a_scaled_gemm_adds_its_bias_last() -> None:
    x, w, b = _random(3, 40), _random(40, 5), _random(5)
    text = "g (float[3,40] x) => (float[3,5] y) <> { y = Gemm <alpha = 3.0> (x, w, b) }"
    scaled = (3 * _summed(np.zeros((3, 5)), x, w)).astype(_LOW).astype(np.float32)
    expected = (scaled + b).astype(_LOW).astype(np.float32)
    assert np.array_equal(_ran(_model(text, w=w, b=b), x=x), expected)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    "how",
    [
        "pads = [1, 2, 0, 1]",
        "strides = [2, 1], dilations = [1, 2], pads = [1, 1, 1, 1]",
        'auto_pad = "SAME_UPPER", strides = [2, 2]',
        'auto_pad = "SAME_LOWER", strides = [2, 2]',
        'auto_pad = "VALID"',
    ],
)
def test_a_convolution_goes_by_positions_then_channels(groups: int, how: str) -> None:
    x, w, b = _random(2, 4, 8, 9), _random(8, 4 // groups, 2, 3), _random(8)
    text = f"""g (float[2,4,8,9] x) => (float[n,8,h,v] y) <> {{
        y = Conv <group = {groups}, {how}> (x, w, b)
    }}"""
    model = _model(text, w=w, b=b)
    exact = EmulatorEngine(model, Numerics()).compile(PrecisionPlan.of([0]))
    # What each weight alone contributes is exact: the convolution with all others zero.
    total = np.zeros_like(exact.run({"x": x})["y"]) + b[:, None, None]
    total = total.astype(_LOW)
    for row, column, channel in np.ndindex(2, 3, 4 // groups):
        one = np.zeros_like(w)
        one[:, channel, row, column] = w[:, channel, row, column]
        alone = _model(text, w=one, b=np.zeros_like(b))
        term = EmulatorEngine(alone, Numerics()).compile(PrecisionPlan.of([0])).run({"x": x})
        total = (total.astype(np.float32) + term["y"]).astype(_LOW)
    assert np.array_equal(_ran(model, x=x), total.astype(np.float32))


def test_a_convolution_along_one_axis() -> None:
    x, w = _random(1, 3, 9), _random(2, 3, 4)
    text = "g (float[1,3,9] x) => (float[1,2,6] y) <> { y = Conv (x, w) }"
    windows = np.lib.stride_tricks.sliding_window_view(x[0], 4, axis=1)  # channels, at, positions
    terms = windows.transpose(1, 2, 0).reshape(6, -1)
    expected = _summed(np.zeros((6, 2)), terms, w.transpose(2, 1, 0).reshape(-1, 2))
    assert np.array_equal(_ran(_model(text, w=w), x=x)[0], expected.T)


def test_a_sum_overflows_on_its_way() -> None:
    x = np.array([[300, 300, -300, -300]], np.float32)
    w = np.full((4, 1), 200, np.float32)
    model = _model("g (float[1,4] x) => (float[1,1] y) <> { y = MatMul (x, w) }", w=w)
    assert np.isinf(_ran(model, x=x)).all()
    assert _ran(model, (0,), x=x) == 0


def test_an_old_opset_is_refused() -> None:
    model = load_model(parse("g (float[2] x) => (float[2] y) { y = Exp (x) }", opset=10))
    with pytest.raises(EngineError, match="termwise needs opset 11, the model has 10"):
        EmulatorEngine(model, _TERMWISE)
