"""The converter on the ONNX project's own test cases for every operator.

A sample by default; all of them with the environment variable ``TOPSIDEAS_FULL=1``.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conversion_reference import assert_means_the_same, assert_tidy, session
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.case.test_case import TestCase

from topsideas.graph.conversion import Conversion, Converter, write
from topsideas.graph.gates import check_export
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics

_STEP = 1 if os.environ.get("TOPSIDEAS_FULL") == "1" else 5

# What the CPU provider says about fp16 although the operator's ONNX schema has it.
_RUNTIME_LACKS = (
    "Could not find an implementation for",
    "MLFloat16 data type is not supported",
    "Type (tensor(float)) of output arg (InsertedPrecisionFreeCast_",
)


class Skip(Exception):  # noqa: N818 - not an error
    """A case, or a step of one, that ONNX or the runtime does not support."""


def _cases() -> list[TestCase]:
    cases = [case for case in collect_testcases(None) if _has_float(case.model.graph)]
    return sorted(cases, key=lambda case: case.name)[::_STEP]


def _has_float(graph: onnx.GraphProto) -> bool:
    values = [*graph.input, *graph.output]
    return any(v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for v in values)


def _feeds(case: TestCase) -> dict[str, object]:
    inputs, _ = case.data_sets[0]
    names = [value.name for value in case.model.graph.input]
    return {name: _plain(value) for name, value in zip(names, inputs, strict=False)}


def _plain(value: object) -> object:
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _supported(case: TestCase, feeds: Mapping[str, object]) -> Model:
    """The loaded case, if the runtime can run it as it is."""
    domains = {opset.domain for opset in case.model.opset_import}
    if not domains & {"", "ai.onnx"}:
        raise Skip("ONNX: the case imports no opset of the default domain, so has no Cast")
    opened = _attempt("runtime: has no kernel for the case", lambda: _open(case.model))
    _attempt("runtime: cannot take or return the case's types", lambda: opened.run(None, feeds))
    model = load_model(case.model)
    reason = "onnx-ir: its shape inference pass types sequences as tensors"
    _attempt(reason, lambda: session(model.graph_model), only="expected type (seq(")
    return model


def _open(proto: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), options)


def _attempt(reason: str, action: Callable[[], Any], only: str = "") -> Any:
    try:
        return action()
    except Exception as error:
        if only not in str(error):
            raise
        raise Skip(reason) from error


def _plans(model: Model, seed: str) -> Iterator[PrecisionPlan]:
    """All low, all kept, and a random half."""
    rng = random.Random(seed)
    yield PrecisionPlan.of([])
    yield PrecisionPlan.of(model.candidates)
    yield PrecisionPlan.of(i for i in sorted(model.candidates) if rng.random() < 0.5)


def _check(case: TestCase, folder: Path, tally: Counter[str]) -> None:
    """Convert one case for each plan; count what was shown."""
    feeds = _feeds(case)
    source = _supported(case, feeds)
    onnx.save(case.model, folder / "source.onnx")
    converter = Converter(source, Numerics())
    for plan in _plans(source, case.name):
        conversion = converter.convert(plan)
        assert_tidy(conversion, source)
        low = plan.low(source.candidates)
        assert_means_the_same(conversion, source, low, feeds, Numerics())
        tally["conversions that agree with the emulator"] += 1
        tally[_loads(conversion, folder, feeds)] += 1


def _loads(conversion: Conversion, folder: Path, feeds: dict[str, object]) -> str:
    """Check that the written file is valid, opens and runs; say so, or why it cannot."""
    try:
        check_export(write(conversion, folder / "mixed.onnx")[0], folder / "source.onnx")
        session(conversion.model).run(None, feeds)
    except Exception as error:
        if not any(text in str(error) for text in _RUNTIME_LACKS):
            raise
        return "conversions not run: the runtime's CPU provider lacks the operator in fp16"
    return "conversions that load and run"


def _judge(case: TestCase, folder: Path, tally: Counter[str]) -> str:
    """What is wrong with a case; empty if nothing."""
    try:
        _check(case, folder, tally)
    except Skip as skip:
        tally[f"cases skipped, {skip}"] += 1
    except Exception as error:
        return f"{case.name}: {type(error).__name__}: {str(error)[:300]}"
    else:
        tally["cases passed"] += 1
    return ""


@pytest.mark.filterwarnings("ignore")  # ONNX's own code that generates the cases
def test_onnx_cases(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    tally: Counter[str] = Counter()
    failures = [_judge(case, tmp_path, tally) for case in _cases()]
    record_property("conversion of ONNX's cases", dict(tally))
    assert not any(failures), "\n".join(filter(None, failures))
    assert tally["cases passed"] > 1000 // _STEP
