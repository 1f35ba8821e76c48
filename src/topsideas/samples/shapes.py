"""The range a dynamic model is compiled for: ``NAME:[1,3,224,224]`` at both ends."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from topsideas.errors import SampleError, UsageError
from topsideas.samples.sample import Sample
from topsideas.samples.signature import Signature, TensorSpec, shape_text

Shape = tuple[int, ...]

# Names may hold colons, slashes and brackets: the shape is what the last brackets enclose.
_TOKEN = re.compile(r"(?P<name>.+):\[(?P<dims>[^\[\]]*)\]", re.DOTALL)
_FORM = "expected NAME:[1,3,224,224], quoted if it holds spaces"


@dataclass(frozen=True, slots=True)
class ShapeBounds:
    """The smallest and the largest shape of inputs, both by input name."""

    min: Mapping[str, Shape]
    max: Mapping[str, Shape]

    def check(self, sample: Sample) -> None:
        """Raise a SampleError where the sample lies outside."""
        for name, low in self.min.items():
            shape, high = sample.inputs[name].shape, self.max[name]
            if len(shape) != len(low):
                raise SampleError(
                    f"sample {sample.id}: {name!r} has shape {shape_text(shape)}, expected rank "
                    f"{len(low)} as in --min_shapes {shape_text(low)}"
                )
            for axis, (least, size, most) in enumerate(zip(low, shape, high, strict=True)):
                if not least <= size <= most:
                    raise SampleError(
                        f"sample {sample.id}: {name!r} has shape {shape_text(shape)}, expected "
                        f"{least} to {most} at axis {axis}, found {size}; widen --min_shapes "
                        f"{shape_text(low)} or --max_shapes {shape_text(high)}"
                    )


def parse_shapes(tokens: Iterable[str], option: str) -> dict[str, Shape]:
    """Shapes by input name, from the values of ``--min_shapes`` or ``--max_shapes``.

    Raises:
        UsageError: A token is malformed or a name occurs twice.
    """
    shapes: dict[str, Shape] = {}
    for token in tokens:
        match = _TOKEN.fullmatch(token.strip())
        if match is None:
            raise UsageError(f"{option}: {token!r} is not a shape; {_FORM}")
        if match["name"] in shapes:
            raise UsageError(f"{option}: {match['name']!r} is given twice, expected once")
        shapes[match["name"]] = _dims(match["dims"], token, option)
    return shapes


def shape_bounds(
    min_shapes: Mapping[str, Sequence[int]],
    max_shapes: Mapping[str, Sequence[int]],
    signature: Signature,
) -> ShapeBounds | None:
    """The bounds, checked against the model; None if none are given.

    Raises:
        UsageError: An input is unknown or bounded at one end only, a shape does not fit the
            model, or a minimum exceeds its maximum.
    """
    lows = {name: tuple(shape) for name, shape in min_shapes.items()}
    highs = {name: tuple(shape) for name, shape in max_shapes.items()}
    specs = {spec.name: spec for spec in signature.inputs}
    for option, shapes in (("--min_shapes", lows), ("--max_shapes", highs)):
        for name, shape in shapes.items():
            _check_fits(name, shape, specs, option)
    for name in sorted(lows.keys() ^ highs.keys()):
        given, lacking = ("min", "max") if name in lows else ("max", "min")
        raise UsageError(
            f"{name!r} has --{given}_shapes but no --{lacking}_shapes; expected both or neither"
        )
    for name, low in lows.items():
        _check_ordered(name, low, highs[name])
    return ShapeBounds(lows, highs) if lows else None


def _dims(text: str, token: str, option: str) -> Shape:
    dims = [dim.strip() for dim in text.split(",")] if text.strip() else []
    for dim in dims:
        if not (dim.isascii() and dim.isdigit() and len(dim) < 19):
            raise UsageError(
                f"{option}: {dim!r} in {token!r} is not a size, expected a whole number; {_FORM}"
            )
    return tuple(int(dim) for dim in dims)


def _check_fits(name: str, shape: Shape, specs: Mapping[str, TensorSpec], option: str) -> None:
    if name not in specs:
        raise UsageError(
            f"{option}: the model has no input {name!r}; expected one of {sorted(specs)}"
        )
    declared = specs[name].shape
    if declared is None:
        return
    fits = len(shape) == len(declared) and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(declared, shape, strict=True)
    )
    if not fits:
        raise UsageError(
            f"{option}: {name!r} is {shape_text(declared)} in the model, found "
            f"{shape_text(shape)}; expected the same rank and the same fixed sizes"
        )


def _check_ordered(name: str, low: Shape, high: Shape) -> None:
    if len(low) != len(high) or any(a > b for a, b in zip(low, high, strict=True)):
        raise UsageError(
            f"{name!r}: --min_shapes {shape_text(low)} exceeds --max_shapes {shape_text(high)}; "
            "expected the same rank, and min <= max at each axis"
        )
