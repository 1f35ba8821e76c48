"""The emulator, op by op, on the ONNX project's own test cases for every operator.

A sample by default; all of them with the environment variable ``TOPSIDEAS_FULL=1``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from emulator_reference import Mismatch, Step, Walk, check_step, may_go_low
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.case.test_case import TestCase

from topsideas.engines.base import OpRecord
from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.errors import EngineError, ModelError
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import BF16, FP16, Numerics, Overflow, Subnormals

FULL = os.environ.get("TOPSIDEAS_FULL") == "1"
STEP = 1 if FULL else 4
LEAST = 1000 if FULL else 250

IEEE = Numerics()
OTHERS = [
    Numerics(FP16, Overflow.SATURATE),
    Numerics(BF16),
    Numerics(FP16, Overflow.SATURATE, Subnormals.FLUSH),
]


class Skip(Exception):  # noqa: N818 - not an error
    """A case, or an op in it, that cannot be compared, and why."""


def _cases() -> list[TestCase]:
    cases = [case for case in collect_testcases(None) if _has_float(case.model.graph)]
    return sorted(cases, key=lambda case: case.name)[::STEP]


def _has_float(graph: onnx.GraphProto) -> bool:
    values = [*graph.input, *graph.output]
    return any(v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for v in values)


def _feeds(case: TestCase) -> dict[str, Any]:
    inputs, _ = case.data_sets[0]
    names = [value.name for value in case.model.graph.input]
    plain = [
        onnx.numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in inputs
    ]
    arrays = [np.asarray(v) if isinstance(v, np.generic) else v for v in plain]
    return dict(zip(names, arrays, strict=False))


def _loaded(case: TestCase, feeds: dict[str, Any]) -> tuple[Model, list[Any]]:
    """The case as the tool sees it, and what plain fp32 execution gives."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        blob = case.model.SerializeToString()
        plain = ort.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
        expected = plain.run(None, feeds)
    except Exception as error:
        raise Skip("onnxruntime has no kernel for it") from error
    if not {o.domain for o in case.model.opset_import} & {"", "ai.onnx"}:
        raise Skip("the case imports no opset of the default domain, so has no Cast")
    return load_model(case.model), expected


def test_onnx_cases() -> None:
    for case in _cases():
        pass
