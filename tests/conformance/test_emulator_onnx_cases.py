"""The emulator, op by op, on the ONNX project's own test cases for every operator.

A sample by default; all of them with the environment variable ``TOPSIDEAS_FULL=1``.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from emulator_reference import Mismatch, Walk, check_step, goes_low, same
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.case.test_case import TestCase
from onnx.reference.op_run import RuntimeImplementationError

from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.errors import EngineError
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import BF16, FP16, Numerics, Overflow, Subnormals

FULL = os.environ.get("TOPSIDEAS_FULL") == "1"
STEP = 1 if FULL else 5
# Expanded functions have up to eighty nodes, all of kinds that other cases show too.
MOST_NODES = 1000 if FULL else 20

IEEE = Numerics()
OTHERS = (
    Numerics(FP16, Overflow.SATURATE),
    Numerics(BF16),
    Numerics(FP16, Overflow.SATURATE, Subnormals.FLUSH),
)

# Ops, and messages of the runtime, for which a case cannot be compared.
RANDOM = {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomUniform"}
LIMITS = {
    "No corresponding Numpy type": "onnxruntime's Python hands out no bfloat16 or 4-bit tensors",
    "implementation for CausalConvWithState": "needs sizes, which one-node models do not declare",
    "(LinearAttention)": "a Scan inside a function needs ranks to be declared",
}
# The reference evaluator and onnxruntime differ in fp32.
DIFFER = {
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
    "test_cast_no_saturate_FLOAT_to_FLOAT8E4M3FN",
    "test_maxunpool_export_with_output_shape",
    "test_attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal",
    "test_attention_4d_with_past_and_present_qk_matmul_bias_4d_mask_causal",
}
# Their inputs are positions, thresholds or counts, or the reference evaluator takes exponentials
# of them as they come.
NOT_ENLARGED = {
    *("AffineGrid", "CenterCropPad", "GridSample", "NonMaxSuppression", "OneHot", "Range"),
    *("LogSoftmax", "MelWeightMatrix", "Resize", "RoiAlign", "SoftmaxCrossEntropyLoss"),
    "Upsample",
}
# A Scan whose body's shapes can only be inferred from the ranks outside.
ALWAYS = {"test_linear_attention_gated_delta_expanded"}


class Skip(Exception):  # noqa: N818 - not an error
    """A case, or a part of one, that cannot be compared, and why."""


def _cases() -> list[TestCase]:
    every = sorted(collect_testcases(None), key=lambda case: case.name)
    chosen = [case for case in every if _wanted(case.model.graph)][::STEP]
    names = {case.name for case in chosen}
    return [*chosen, *(c for c in every if c.name in ALWAYS and c.name not in names)]


def _wanted(graph: onnx.GraphProto) -> bool:
    values = [*graph.input, *graph.output]
    floats = any(v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for v in values)
    return floats and len(graph.node) <= MOST_NODES


def _feeds(case: TestCase) -> dict[str, Any]:
    inputs, _ = case.data_sets[0]
    names = [value.name for value in case.model.graph.input]
    plain = [
        onnx.numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in inputs
    ]
    arrays = [np.asarray(v) if isinstance(v, np.generic) else v for v in plain]
    return dict(zip(names, arrays, strict=False))


def _plain(case: TestCase, feeds: dict[str, Any]) -> list[Any]:
    """What fp32 execution without the tool gives."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        blob = case.model.SerializeToString()
        opened = ort.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
        outputs: list[Any] = opened.run(None, feeds)
    except Exception as error:
        raise Skip("onnxruntime has no kernel for it, or cannot take its types") from error
    return outputs


def _checked(case: TestCase) -> tuple[Model, dict[str, Any]]:
    """The loaded case, once all ops kept in fp32 have given what plain execution gives."""
    if any(node.op_type in RANDOM for node in case.model.graph.node):
        raise Skip("its ops are random")
    if case.name in DIFFER:
        raise Skip("the reference evaluator and onnxruntime differ in fp32")
    feeds = _feeds(case)
    plain = _plain(case, feeds)
    model = load_model(case.model)
    kept = EmulatorEngine(model, IEEE).compile(PrecisionPlan(model.candidates))
    for output, (name, found) in zip(plain, kept.run(feeds).items(), strict=True):
        if not same(found, output):
            raise Mismatch(f"all ops kept in fp32, and yet output {name!r} is not plain fp32")
    return model, feeds


def _questions(case: TestCase, model: Model) -> Iterator[tuple[Numerics, PrecisionPlan, bool]]:
    """All low, a half low, and all low under other numerics with inputs that overflow."""
    rng = random.Random(case.name)
    yield IEEE, PrecisionPlan.of([]), False
    if len(model.candidates) > 1:
        half = [op for op in sorted(model.candidates) if rng.random() < 0.5]
        yield IEEE, PrecisionPlan.of(half), False
    fitting = [n for n in OTHERS if n.precision is FP16 or model.opset >= 13]
    yield rng.choice(fitting), PrecisionPlan.of([]), len(model.ops) == 1


def _enlarged(case: TestCase, feeds: dict[str, Any]) -> dict[str, Any]:
    """Data a thousand times larger; positions and numbers of things as they are."""
    (node,) = case.model.graph.node
    if node.op_type in NOT_ENLARGED:
        return feeds
    return {n: _times_1000(v) for n, v in feeds.items()}


def _times_1000(value: Any) -> Any:
    plain = isinstance(value, np.ndarray) and value.dtype == np.float32
    return np.asarray(value * np.float32(1000)) if plain else value


def _compare(case: TestCase, tally: Counter[str]) -> None:
    model, feeds = _checked(case)
    tally["all kept equals plain fp32"] += 1
    for numerics, plan, large in _questions(case, model):
        fed = _enlarged(case, feeds) if large else feeds
        executable = EmulatorEngine(model, numerics).compile(plan)
        trace = executable.trace(fed)
        walk = Walk(case.model, iter(trace), fed)
        low = plan.low(model.candidates)
        for step, record in walk:
            if goes_low(walk, step, record) != (step.id in model.candidates):
                raise Mismatch(f"op {step.id} is a candidate: {step.id in model.candidates}")
            check_step(walk, step, record, step.id in low, numerics)
            tally["ops compared"] += 1
        for name, found in executable.run(fed).items():
            if not same(found, trace.outputs[name]):
                raise Mismatch(f"output {name!r} differs between a run and a traced run")
    tally["cases compared"] += 1


def _judge(case: TestCase, tally: Counter[str]) -> str:
    """What is wrong with a case; empty if nothing."""
    try:
        _compare(case, tally)
    except Skip as skip:
        tally[f"skipped: {skip}"] += 1
    except RuntimeImplementationError:
        tally["skipped: the reference evaluator lacks an op"] += 1
    except EngineError as error:
        reason = next((r for text, r in LIMITS.items() if text in str(error)), None)
        if reason is None:
            return f"{case.name}: {error}"
        tally[f"skipped: {reason}"] += 1
    except Exception as error:
        return f"{case.name}: {type(error).__name__}: {error}"
    return ""


@pytest.mark.filterwarnings("ignore")  # ONNX's own code that generates and evaluates the cases
def test_the_emulator_follows_its_definition(
    record_property: Callable[[str, object], None],
) -> None:
    tally: Counter[str] = Counter()
    cases = _cases()
    failures = [_judge(case, tally) for case in cases]
    record_property("emulator on ONNX's cases", dict(tally))
    print(dict(tally))  # noqa: T201 - shown with -s and on failure
    assert not any(failures), "\n".join(filter(None, failures))
    assert tally["cases compared"] > 0.85 * len(cases)
    assert tally["ops compared"] > 2 * len(cases)
