from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topsideas.errors import SampleError, UsageError
from topsideas.samples.sample import Sample
from topsideas.samples.shapes import parse_shapes, shape_bounds
from topsideas.samples.signature import Signature, TensorSpec

SIGNATURE = Signature(
    (
        TensorSpec("x", np.dtype(np.float32), ("N", 3, None)),
        TensorSpec("fixed", np.dtype(np.float32), (4,)),
        TensorSpec("free", np.dtype(np.float32), None),
    ),
    (),
)


@settings(deadline=None, max_examples=60)
@given(st.text(min_size=1), st.lists(st.integers(0, 10**6), max_size=5))
def test_any_name_and_shape(name: str, shape: list[int]) -> None:
    token = f"{name}:{shape}"
    if token == token.strip():  # a shell never gives blanks at the start
        assert parse_shapes([token], "--min_shapes") == {name: tuple(shape)}


@pytest.mark.parametrize(
    ("token", "name", "shape"),
    [
        ("x:[1,3,224,224]", "x", (1, 3, 224, 224)),
        ("a/b:0:[2]", "a/b:0", (2,)),
        ("x:[1]:[2]", "x:[1]", (2,)),
        ("x:[]", "x", ()),
        (" x:[ 1 , 2 ] ", "x", (1, 2)),
    ],
)
def test_tokens(token: str, name: str, shape: tuple[int, ...]) -> None:
    assert parse_shapes([token], "--min_shapes") == {name: shape}


@pytest.mark.parametrize(
    "token", ["", "x", "x:1,2", "x:[1,2", ":[1]", "x[1]", "x:[1][2]", "x:[1] y"]
)
def test_tokens_that_are_no_shapes(token: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_shapes([token], "--max_shapes")
    assert f"--max_shapes: {token!r} is not a shape; expected NAME:[1,3,224,224]" in str(
        caught.value
    )


@pytest.mark.parametrize("dim", ["-1", "1.5", "N", "", "1e3", "٣", "9" * 19])
def test_sizes_that_are_no_numbers(dim: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_shapes([f"x:[2,{dim}]"], "--min_shapes")
    assert f"{dim!r} in 'x:[2,{dim}]' is not a size, expected a whole number" in str(caught.value)


def test_a_name_given_twice() -> None:
    with pytest.raises(UsageError, match="--min_shapes: 'x' is given twice, expected once"):
        parse_shapes(["x:[1]", "x:[2]"], "--min_shapes")


def test_bounds() -> None:
    bounds = shape_bounds(
        {"x": [1, 3, 8], "fixed": (4,)}, {"x": (4, 3, 8), "fixed": [4]}, SIGNATURE
    )
    assert bounds is not None
    assert bounds.min == {"x": (1, 3, 8), "fixed": (4,)}
    assert bounds.max["x"] == (4, 3, 8)


def test_no_bounds() -> None:
    assert shape_bounds({}, {}, SIGNATURE) is None


@pytest.mark.parametrize(
    ("low", "high", "part"),
    [
        ({"y": (1,)}, {}, "--min_shapes: the model has no input 'y'; expected one of ['fixed',"),
        ({}, {"y": (1,)}, "--max_shapes: the model has no input 'y'"),
        (
            {"x": (1, 4, 8)},
            {"x": (1, 3, 8)},
            "--min_shapes: 'x' is [N,3,?] in the model, found [1,4,8]; expected the same rank",
        ),
        ({"x": (1, 3, 8)}, {"x": (1, 3)}, "--max_shapes: 'x' is [N,3,?] in the model"),
        ({"fixed": (5,)}, {"fixed": (5,)}, "'fixed' is [4] in the model, found [5]"),
        ({"x": (1, 3, 8)}, {}, "'x' has --min_shapes but no --max_shapes; expected both"),
        ({}, {"x": (1, 3, 8)}, "'x' has --max_shapes but no --min_shapes"),
        (
            {"x": (1, 3, 8)},
            {"x": (2, 3, 7)},
            "'x': --min_shapes [1,3,8] exceeds --max_shapes [2,3,7]; expected the same rank",
        ),
        ({"free": (1,)}, {"free": (1, 2)}, "'free': --min_shapes [1] exceeds"),
    ],
)
def test_bounds_that_do_not_fit(
    low: dict[str, tuple[int, ...]], high: dict[str, tuple[int, ...]], part: str
) -> None:
    with pytest.raises(UsageError) as caught:
        shape_bounds(low, high, SIGNATURE)
    assert part in str(caught.value)


def _sample(*shape: int) -> Sample:
    return Sample(7, {"x": np.zeros(shape), "free": np.zeros(shape)}, None)


def test_a_sample_inside_passes() -> None:
    bounds = shape_bounds({"x": (1, 3, 8)}, {"x": (4, 3, 9)}, SIGNATURE)
    assert bounds is not None
    bounds.check(_sample(1, 3, 8))
    bounds.check(_sample(4, 3, 9))


@pytest.mark.parametrize("shape", [(5, 3, 8), (0, 3, 8)])
def test_a_sample_outside_is_named(shape: tuple[int, ...]) -> None:
    bounds = shape_bounds({"x": (1, 3, 8)}, {"x": (4, 3, 9)}, SIGNATURE)
    assert bounds is not None
    with pytest.raises(SampleError) as caught:
        bounds.check(_sample(*shape))
    assert f"sample 7: 'x' has shape [{shape[0]},3,8], expected 1 to 4 at axis 0" in str(
        caught.value
    )
    assert "widen --min_shapes [1,3,8] or --max_shapes [4,3,9]" in str(caught.value)


def test_a_sample_of_another_rank() -> None:
    bounds = shape_bounds({"free": (1,)}, {"free": (2,)}, SIGNATURE)
    assert bounds is not None
    with pytest.raises(SampleError, match=r"sample 7: 'free' has shape \[1,1\], expected rank 1"):
        bounds.check(_sample(1, 1))
