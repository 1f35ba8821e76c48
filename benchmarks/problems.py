"""Which models there are to run: those of a folder, or small generated ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from benchmarks.environments import ROOT
from topsideas.precision import Numerics
from topsideas.testing.planted import Planted, planted_models

_DEMO = ROOT / "examples" / "plate_reader"


@dataclass(frozen=True, slots=True)
class Problem:
    """A model with samples.

    Attributes:
        name: How tables call it.
        model: The model file.
        samples: The folder with ``sample{K}_inputs.npz`` and ``sample{K}_outputs.npz``.
    """

    name: str
    model: Path
    samples: Path


def find_problems(folder: Path, generated: Path) -> list[Problem]:
    """The models of ``folder`` by name; without such a folder those of :func:`generate`.

    Each model is a folder with one ``.onnx`` file and a folder ``samples``.
    """
    if not folder.is_dir():
        return [*generate(generated), demo()]
    return list(_scan(folder))


def demo() -> Problem:
    """The plate reader that ships with the project."""
    return Problem("plate_reader", next(_DEMO.glob("*.onnx")), _DEMO / "lprnet-samples")


def generate(folder: Path) -> list[Problem]:
    """Write the planted models of the test suite, with golden outputs from a fp32 run."""
    planted = [p for p in planted_models() if p.numerics == Numerics()]
    for each in planted:
        _write(each, folder / each.name)
    names = {each.name for each in planted}
    return [problem for problem in _scan(folder) if problem.name in names]


def _scan(folder: Path) -> Iterator[Problem]:
    for path in sorted(folder.iterdir()):
        models, samples = sorted(path.glob("*.onnx")), path / "samples"
        if models and samples.is_dir():
            yield Problem(path.name, models[0], samples)


def _write(planted: Planted, folder: Path) -> None:
    samples = folder / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    onnx.save(planted.model, folder / "model.onnx")
    session = ort.InferenceSession(planted.model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    for number, feeds in enumerate(planted.samples):
        golden = dict(zip(names, session.run(None, feeds), strict=True))
        np.savez(samples / f"sample{number}_inputs.npz", **feeds)
        np.savez(samples / f"sample{number}_outputs.npz", **golden)
