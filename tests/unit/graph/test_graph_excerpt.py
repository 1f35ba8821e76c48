"""Nodes cut out as a model: what it reads, what it returns, where it rounds."""

from __future__ import annotations

import numpy as np
import onnx

from topsideas.engines.emulator import runtime
from topsideas.graph.excerpt import Cutter, read_values
from topsideas.graph.loading import Model, load_model
from topsideas.precision import Numerics
from topsideas.testing.planted import in_loop, parse, ramp

CHAIN = """g (float[3] x) => (float[3] y)
<float[3] w = {1, 2, 100000}> {
    a = Mul (x, w)
    b = Exp (a)
    y = Add (a, b)
}"""


def _cutter(model: Model) -> Cutter:
    slots = {op.id: op.slots for op in model.ops if op.candidate}
    return Cutter(model.graph_model, slots, Numerics())


def _casts(proto: bytes) -> int:
    return sum(n.op_type == "Cast" for n in onnx.load_from_string(proto).graph.node)


def test_every_output_is_returned_and_before_rounding_too() -> None:
    model = load_model(parse(CHAIN))
    excerpt = _cutter(model).cut(list(model.graph), {0, 2}, raw=True)
    assert [v.name for v in excerpt.reads] == ["x"]
    assert [v.name for v in excerpt.writes] == ["a", "b", "y"]
    assert [v.name for v in excerpt.raw] == ["a", "y"]
    assert [v.name for v in excerpt.constants] == ["w"]
    session = runtime.session(excerpt.proto, excerpt.weights)
    a, b, y, raw_a, raw_y = runtime.run(session, {"i0": ramp(0, 1.1, 3)}, "all")
    assert np.isinf(raw_a).tolist() == [False, False, True]  # the weight is rounded as well
    assert np.array_equal(a, raw_a.astype(np.float16).astype(np.float32))
    assert np.array_equal(b, np.exp(a))
    assert np.array_equal(y, raw_y.astype(np.float16).astype(np.float32))


def test_what_lies_between_is_not_read() -> None:
    model = load_model(parse(CHAIN))
    nodes = list(model.graph)
    excerpt = _cutter(model).cut(nodes[1:], set())
    assert [v.name for v in excerpt.reads] == ["a"]
    assert [v.name for v in excerpt.writes] == ["b", "y"]
    assert excerpt.raw == ()


def test_a_value_that_is_low_already_is_not_rounded() -> None:
    model = load_model(parse("g (float[2] x) => (float[2] y) { y = Exp (x) }"))
    cutter, node = _cutter(model), model.graph[0]
    assert _casts(cutter.cut([node], {0}).proto) == 4
    assert _casts(cutter.cut([node], {0}, stored=[node.inputs[0]]).proto) == 2


def test_what_a_low_neighbour_stored_is_not_rounded_again() -> None:
    model = load_model(parse(CHAIN))
    assert _casts(_cutter(model).cut(list(model.graph), {0, 1, 2}).proto) == 2 + 3 * 2


def test_a_cut_node_reads_what_its_body_captures() -> None:
    model = load_model(in_loop().model)
    loop = model.graph[0]
    assert [v.name for v in read_values(loop)] == ["n", "go", "x", "c", "d"]
    excerpt = _cutter(model).cut([loop], {2, 3})
    assert [v.name for v in excerpt.reads] == ["n", "x"]
    assert [i.name for i in runtime.session(excerpt.proto).get_inputs()] == ["i0", "i1"]


def test_ranks_are_declared_if_asked_for_and_sizes_never() -> None:
    model = load_model(parse("g (float[N,3] x, float z) => (float[N,3] y) { y = Add (x, z) }"))
    for ranks in (False, True):
        excerpt = _cutter(model).cut([model.graph[0]], {0}, ranks=ranks)
        proto = onnx.load_from_string(excerpt.proto)
        x, z = (i.type.tensor_type for i in proto.graph.input)
        assert [t.HasField("shape") for t in (x, z)] == [ranks, ranks]
        assert len(x.shape.dim) == (2 if ranks else 0)
        assert not any(d.HasField("dim_value") for d in x.shape.dim)


def test_large_weights_are_handed_over_beside_the_model() -> None:
    proto = parse("g (float[2000] x) => (float[2000] y) { y = Mul (x, x) }")
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(2000, np.float32), "w"))
    proto.graph.node[0].input[1] = "w"
    model = load_model(proto)
    excerpt = _cutter(model).cut([model.graph[0]], {0})
    assert [w.nbytes for w in excerpt.weights.values()] == [8000]
    assert len(excerpt.proto) < 1000
