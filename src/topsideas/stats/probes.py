"""Watched elements of a model's outputs: where the effect of single ops is recorded."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from topsideas.stats.criteria import Criterion, Tolerance, is_float

# Measured on real models: 128, 512 and 5,000 elements order ops equally well.
_COUNT = 256
# Of these, the share that deviates most when all ops run low; the rest is drawn at random.
_WORST = 0.75
# What a deviation without a number counts for: NaN, an infinity, another shape or integer.
BROKEN = 1e6


@dataclass(frozen=True, eq=False)
class Probes:
    """Elements of one sample's outputs.

    Attributes:
        indices: Flat indices by output name, int64.
        reference: The elements in fp32, float64, of all outputs one behind the other.
        scale: What deviations are measured against where the criterion has no allowance per
            element: the root mean square of the output, per element.
    """

    indices: dict[str, np.ndarray]
    reference: np.ndarray
    scale: np.ndarray

    @classmethod
    def choose(cls, outputs: Mapping[str, Any], reference: Mapping[str, Any]) -> Probes:
        """Pick the elements that ``outputs``, of a failing plan, shows to deviate most.

        The choice does not depend on the tolerance, so that records serve another one too.
        """
        arrays = {n: r for n, r in reference.items() if isinstance(r, np.ndarray) and r.size}
        share = max(1, _COUNT // max(1, len(arrays)))
        indices = {n: _pick(outputs.get(n), r, share) for n, r in arrays.items()}
        values = [_values(arrays[n], i) for n, i in indices.items()]
        scales = [np.full(len(i), _rms(arrays[n])) for n, i in indices.items()]
        empty = [np.zeros(0)]
        return cls(indices, np.concatenate(values or empty), np.concatenate(scales or empty))

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values, numbers to the last bit.

        The outputs are a list, as their order is that of the numbers: who stores objects may sort
        their keys.
        """
        return {
            "outputs": [[name, at.tolist()] for name, at in self.indices.items()],
            "reference": encode(self.reference),
            "scale": encode(self.scale),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Probes:
        """The inverse of :meth:`to_json`."""
        return cls(
            {name: np.array(at, np.int64) for name, at in data["outputs"]},
            decode(data["reference"], np.float64),
            decode(data["scale"], np.float64),
        )

    def deviations(self, outputs: Mapping[str, Any]) -> np.ndarray:
        """``outputs - reference`` at the probes, float32; infinite where there is no number."""
        found = [np.zeros(0)]
        start = 0
        for name, indices in self.indices.items():
            reference = self.reference[start : start + len(indices)]
            start += len(indices)
            found.append(_deviation(outputs.get(name), indices, reference))
        with np.errstate(over="ignore"):
            return np.concatenate(found).astype(np.float32)

    def shares(self, deviations: np.ndarray, criterion: Criterion) -> np.ndarray:
        """Deviations in shares of the allowance, float64, at most 1e6."""
        if isinstance(criterion, Tolerance):
            allowed = criterion.atol + criterion.rtol * np.abs(self.reference)
        else:
            allowed = self.scale
        with np.errstate(all="ignore"):
            ratio = np.abs(deviations.astype(np.float64)) / allowed
        ratio[deviations == 0] = 0.0
        return np.asarray(np.nan_to_num(ratio, nan=BROKEN, posinf=BROKEN).clip(max=BROKEN))


def encode(array: np.ndarray) -> str:
    """The bytes of an array as text, for JSON, which knows no NaN and no infinity."""
    return base64.b64encode(array.tobytes()).decode()


def decode(text: str, dtype: type[np.generic]) -> np.ndarray:
    """The inverse of :func:`encode`."""
    return np.frombuffer(base64.b64decode(text), dtype)


def _pick(output: Any, reference: np.ndarray, count: int) -> np.ndarray:
    if reference.size <= count:
        return np.arange(reference.size)
    draw = np.random.default_rng(0).choice(reference.size, count, replace=False)
    everywhere = np.arange(reference.size)
    distance = np.abs(_deviation(output, everywhere, _values(reference, everywhere)))
    distance = np.nan_to_num(distance, posinf=BROKEN) / (_rms(reference) + np.abs(reference.flat))
    worst = np.argpartition(distance, -int(count * _WORST))[-int(count * _WORST) :]
    return np.unique(np.concatenate([worst, draw[: count - len(worst)]]))


def _deviation(output: Any, indices: np.ndarray, reference: np.ndarray) -> np.ndarray:
    if not isinstance(output, np.ndarray) or (len(indices) and indices[-1] >= output.size):
        return np.full(len(indices), np.inf)
    values = _values(output, indices)
    with np.errstate(all="ignore"):
        deviation = values - reference
    same = (values == reference) | (np.isnan(values) & np.isnan(reference))
    broken = np.inf if not is_float(output) else np.nan_to_num(deviation, nan=np.inf)
    return np.asarray(np.where(same, 0.0, broken))


def _values(array: np.ndarray, indices: np.ndarray) -> np.ndarray:
    flat: np.ndarray = array.reshape(-1)[indices]
    if array.dtype.kind in "fiub" or is_float(array):
        return flat.astype(np.float64)
    return np.array([hash(str(v)) % (1 << 52) for v in flat], np.float64)


def _rms(array: np.ndarray) -> float:
    if not is_float(array):
        return 1.0
    with np.errstate(all="ignore"):
        mean = float(np.mean(np.square(array.astype(np.float64))))
    return float(np.sqrt(mean)) if np.isfinite(mean) and mean > 0 else 1.0
