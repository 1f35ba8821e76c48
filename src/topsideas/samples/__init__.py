"""Where input arrays and golden outputs come from."""

from __future__ import annotations

from topsideas.samples.memory import samples_from_memory
from topsideas.samples.npz import SampleFile, SampleFolder, scan_folder
from topsideas.samples.sample import Sample, split_holdout
from topsideas.samples.shapes import ShapeBounds, parse_shapes, shape_bounds
from topsideas.samples.signature import Signature, TensorSpec, signature_of

__all__ = [
    "Sample",
    "SampleFile",
    "SampleFolder",
    "ShapeBounds",
    "Signature",
    "TensorSpec",
    "parse_shapes",
    "samples_from_memory",
    "scan_folder",
    "shape_bounds",
    "signature_of",
    "split_holdout",
]
