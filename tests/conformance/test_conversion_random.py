"""Random models under random plans: the typed model is valid, tidy, and means what is emulated."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnx_ir as ir
from conversion_reference import assert_means_the_same, assert_tidy
from conversion_runners import Runtime
from hypothesis import assume, given, note
from hypothesis import strategies as st
from random_models import examples, feeds_of, models, plans_of, runs

from topsideas.graph.conversion import Conversion, Converter, write
from topsideas.graph.gates import check_export
from topsideas.graph.loading import Model, load_model
from topsideas.graph.ops import op_id
from topsideas.precision import BF16, FP16, Numerics, Overflow, Subnormals
from topsideas.rounding import round_to

_NUMERICS = (
    Numerics(),
    Numerics(),
    Numerics(precision=BF16),
    Numerics(overflow=Overflow.SATURATE, subnormals=Subnormals.FLUSH),
)


@examples(60, 1500)
@given(models(), st.data())
def test_random_models(proto: onnx.ModelProto, data: st.DataObject) -> None:
    assume(runs(proto))
    note(onnx.printer.to_text(proto))
    numerics = data.draw(st.sampled_from(_NUMERICS))
    source = load_model(proto, numerics.precision)
    feeds = feeds_of(source)
    for low_io in (False, True):
        plan = data.draw(plans_of(source))
        conversion = Converter(source, numerics, low_io=low_io).convert(plan)
        if not low_io:
            assert_tidy(conversion, source)
        _assert_one_cast_each(conversion)
        low = plan.low(source.candidates)
        if low_io:
            feeds = _low(source, feeds, numerics)
        assert_means_the_same(conversion, source, low, feeds, numerics, low_io=low_io)
        _assert_exports(conversion, feeds, run=numerics.precision is FP16 and not low_io)


def _low(source: Model, feeds: dict[str, np.ndarray], numerics: Numerics) -> dict[str, np.ndarray]:
    """What low inputs can hold, and the weights among them too."""
    weights = source.graph.initializers.items()
    listed = {str(value.name) for value in source.graph.inputs}
    held = {name: w.const_value.numpy() for name, w in weights if name in listed}
    return {name: round_to(array, numerics) for name, array in (feeds | held).items()}


def _assert_one_cast_each(conversion: Conversion) -> None:
    """Of all casts in a graph, the user's too, at most one inserted of a tensor to a type.

    A tensor that is an output in both types, or twice an output, may need another one.
    """
    for graph in conversion.model.graphs():
        casts = [n for n in graph if n.op_type == "Cast" and op_id(n) == -1]
        inner = [n for n in casts if not n.outputs[0].is_graph_output()]
        for group in (casts, inner):
            made = Counter((n.inputs[0], n.outputs[0].dtype) for n in group)
            outputs = {n.outputs[0] for n in group if n.outputs[0].is_graph_output()}
            assert sum(made.values()) - len(made) <= max(len(outputs) - 1, 0), made


def _assert_exports(conversion: Conversion, feeds: dict[str, np.ndarray], *, run: bool) -> None:
    with TemporaryDirectory() as folder:
        path = write(conversion, Path(folder) / "m.onnx")[0]
        check_export(path)
        assert _interface(ir.load(path)) == _interface(conversion.model)
    if run:
        Runtime()(ir.to_proto(conversion.model), feeds)


def _interface(model: ir.Model) -> list[tuple[object, ...]]:
    return [(v.name, v.type) for v in (*model.graph.inputs, *model.graph.outputs)]
