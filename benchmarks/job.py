"""What a worker is asked and what it answers: files of JSON that any environment can read.

Workers run in environments of their own. This module needs the standard library and numpy only.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, Any]

_INPUTS = re.compile(r"sample(\d+)_inputs\.npz")


@dataclass(frozen=True, slots=True)
class Job:
    """One question to one tool.

    Attributes:
        model: The fp32 model.
        samples: The folder of its samples.
        tolerance: Both rtol and atol.
        threads: How many threads the tool may use.
        limit: Seconds until it is stopped.
        output: The folder for everything it writes.
    """

    model: str
    samples: str
    tolerance: float
    threads: int
    limit: float
    output: str

    @classmethod
    def from_arguments(cls) -> Job:
        """The job whose file is the worker's only argument."""
        return cls(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))

    def write(self) -> Path:
        """The job as a file in its output folder, which is made."""
        folder = Path(self.output)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "job.json"
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path

    def answer(self, name: str = "answer", **found: Any) -> None:
        """Leave what was found so far; the last call counts."""
        path = Path(self.output) / f"{name}.json"
        path.write_text(json.dumps(found), encoding="utf-8")

    def found(self, name: str = "answer") -> dict[str, Any]:
        """What a worker left; empty if nothing."""
        path = Path(self.output) / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    @property
    def mixed(self) -> Path:
        """Where the tool's mixed-precision model belongs."""
        return Path(self.output) / "mixed.onnx"

    def sample_ids(self) -> list[int]:
        """The ids of the samples, ascending."""
        names = (_INPUTS.fullmatch(path.name) for path in Path(self.samples).iterdir())
        return sorted(int(name[1]) for name in names if name)

    def inputs(self, sample: int) -> Arrays:
        """The inputs of a sample by name."""
        return dict(np.load(Path(self.samples) / f"sample{sample}_inputs.npz"))

    def golden(self, sample: int) -> Arrays:
        """The golden outputs of a sample by name."""
        return dict(np.load(Path(self.samples) / f"sample{sample}_outputs.npz"))

    def pairs(self) -> Iterator[tuple[Arrays, Arrays]]:
        """Inputs and golden outputs of all samples."""
        return ((self.inputs(i), self.golden(i)) for i in self.sample_ids())


def versions(*packages: str) -> str:
    """Packages with their installed versions, as a reader wants them."""
    return ", ".join(f"{name} {version(name)}" for name in packages)


def margin(outputs: Mapping[str, Any], golden: Mapping[str, Any], tolerance: float) -> float:
    """The worst share of the tolerance that any element uses; above 1 fails, never NaN.

    Written out here although the tool has its own: an independent check shares no code.
    """
    return max((_margin(outputs[n], golden[n], tolerance) for n in golden), default=0.0)


def _margin(out: Any, ref: Any, tolerance: float) -> float:
    out, ref = np.asarray(out), np.asarray(ref)
    if out.shape != ref.shape:
        return math.inf
    if ref.dtype.kind != "f":
        return 0.0 if np.array_equal(out, ref) else math.inf
    out, ref = out.astype(np.float64), ref.astype(np.float64)
    with np.errstate(all="ignore"):
        ratio = np.asarray(np.abs(out - ref) / (tolerance + tolerance * np.abs(ref)))
    ratio[(out == ref) | (np.isnan(out) & np.isnan(ref))] = 0.0
    ratio[~np.isfinite(ratio)] = math.inf
    return float(ratio.max(initial=0.0))
