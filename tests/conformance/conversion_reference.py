"""A converted model against the emulator, and against the converter's own rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from conversion_runners import Runner, Runtime, opened

from topsideas.graph.conversion import Conversion
from topsideas.graph.conversion_meaning import spelled_out
from topsideas.graph.emulation import emulated
from topsideas.graph.lifting import lift
from topsideas.graph.loading import Model
from topsideas.graph.ops import op_id
from topsideas.precision import Numerics
from topsideas.rounding import round_to

FLOAT = ir.DataType.FLOAT


def session(model: ir.Model) -> ort.InferenceSession:
    """A session on the CPU in which nothing is optimised."""
    return opened(ir.to_proto(model))


def assert_means_the_same(
    conversion: Conversion,
    source: Model,
    low: Collection[int],
    feeds: Mapping[str, object],
    numerics: Numerics,
    *,
    low_io: bool = False,
    run: Runner = Runtime(),  # noqa: B008 - it holds nothing
) -> None:
    """The typed model and the emulator agree in every bit (any NaN equals any NaN)."""
    slots = {op.id: op.slots for op in source.ops if op.id in low}
    original = source.graph_model.clone()
    lift(original, conversion.model.opset_imports.get("", 1))  # the same kernels on both sides
    expected = run(ir.to_proto(emulated(original, low, slots, numerics)), feeds)
    spelled = spelled_out(conversion.model, source.graph_model, numerics)
    actual = run(ir.to_proto(spelled), feeds)
    for want, got in zip(expected, actual, strict=True):
        is_float = isinstance(want, np.ndarray) and want.dtype == np.float32
        _assert_equal(got, round_to(want, numerics) if low_io and is_float else want)


def same_again(first: object, again: object) -> bool:
    """Whether two results are equal."""
    try:
        _assert_equal(first, again)
    except AssertionError:
        return False
    return True


def _assert_equal(got: object, want: object) -> None:
    if isinstance(want, list):
        assert isinstance(got, list)
        for left, right in zip(got, want, strict=True):
            _assert_equal(left, right)
    elif isinstance(want, np.ndarray):
        assert isinstance(got, np.ndarray)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    else:
        assert got == want


def assert_tidy(conversion: Conversion, source: Model) -> None:
    """No cast that could be left out, unique names, and the source model's interface."""
    inserted = [n for g in conversion.model.graphs() for n in g if op_id(n) == -1]
    casts = [node for node in inserted if node.op_type == "Cast"]
    assert len(casts) == conversion.casts
    for node in casts:
        _assert_useful(node)
    shared = [n for n in casts if not n.outputs[0].is_graph_output()]
    assert len({(n.inputs[0], n.outputs[0].dtype) for n in shared}) == len(shared)
    _assert_unique_names(conversion.model)
    for side in ("inputs", "outputs"):
        assert _interface(conversion.model, side) == _interface(source.graph_model, side)


def _assert_useful(cast: ir.Node) -> None:
    before, after = cast.inputs[0], cast.outputs[0]
    assert before.dtype != after.dtype
    assert after.uses() or after.is_graph_output()
    producer = before.producer()
    widened = producer is not None and producer.op_type == "Cast" and before.dtype == FLOAT
    assert not (widened and producer.inputs[0].dtype == after.dtype), "cancelling pair"


def _assert_unique_names(model: ir.Model) -> None:
    names = [v.name for v in (*model.graph.inputs, *model.graph.initializers.values())]
    names += [v.name for node in model.graph for v in node.outputs if v.name]
    listed = [v.name for v in model.graph.inputs if v.name in model.graph.initializers]
    assert len(set(names)) == len(names) - len(listed)


def _interface(model: ir.Model, side: str) -> list[tuple[object, ...]]:
    weights = model.graph.initializers
    values = getattr(model.graph, side)
    optional = model.ir_version < 4 or side == "outputs"
    kept = [v for v in values if side == "outputs" or v.name not in weights]
    assert optional or len(kept) <= len(values)
    return [(v.name, v.type, v.shape) for v in kept]
