from __future__ import annotations

import gc
import weakref

import numpy as np
import onnx
import onnx_ir as ir

from topsideas.engines.emulator.memory import _SOME, Room, shares
from topsideas.engines.emulator.store import content_key
from topsideas.engines.options import EngineOptions
from topsideas.engines.registry import open_engine
from topsideas.graph.loading import load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics
from topsideas.testing.planted import parse


class Holder:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_whoever_enters_a_tight_room_closes_what_was_there() -> None:
    room, first, second = Room(tight=True), Holder(), Holder()
    for who in (first, first, second, first):
        room.enter(who)
    assert (first.closed, second.closed) == (1, 1)


def test_where_there_is_room_nothing_is_closed() -> None:
    room, first, second = Room(tight=False), Holder(), Holder()
    for who in (first, second, first):
        room.enter(who)
    assert (first.closed, second.closed) == (0, 0)


def test_a_room_keeps_nobody_alive() -> None:
    room, first = Room(tight=True), Holder()
    room.enter(first)
    gone = weakref.ref(first)
    del first
    gc.collect()
    assert gone() is None
    room.enter(Holder())


def _model(width: int) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((width, width), dtype=np.float32) / width for _ in range(3)]
    values = [ir.Value(name=f"w{i}", const_value=ir.Tensor(w)) for i, w in enumerate(weights)]
    x = ir.val("x", ir.DataType.FLOAT, [2, width])
    nodes, last = [], x
    for value in values:
        nodes.append(ir.node("MatMul", [last, value]))
        last = nodes[-1].outputs[0]
    last.name, last.type = "y", ir.TensorType(ir.DataType.FLOAT)
    last.shape = ir.Shape([2, width])
    opsets = {"": 17}
    graph = ir.Graph([x], [last], nodes=nodes, initializers=values, opset_imports=opsets, name="g")
    return ir.to_proto(ir.Model(graph, ir_version=8))


def test_small_weights_are_not_tight_and_large_ones_are() -> None:
    graph = load_model(_model(64)).graph
    assert not shares(1 << 30, graph).tight
    assert shares(1 << 17, graph).tight


def test_weights_that_many_ops_read_are_asked_for_as_often() -> None:
    """Each session holds its own, as those of an unrolled loop do."""
    weight = onnx.numpy_helper.from_array(np.zeros((64, 64), np.float32), "w")
    found = []
    for body in ("y = MatMul (x, w)", "a = MatMul (x, w) b = MatMul (a, w) y = MatMul (b, w)"):
        proto = parse("g (float[64,64] x, float[64,64] w) => (float[64,64] y) {" + body + "}")
        proto.graph.initializer.append(weight)
        found.append(shares(1 << 30, load_model(proto).graph).sessions - _SOME)
    assert found[1] == 3 * found[0] > 0


def test_results_do_not_depend_on_who_runs_in_between() -> None:
    model = load_model(_model(64))
    feeds = {"x": np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64)}
    keys = set()
    for limit in (1 << 17, 1 << 30):
        options = EngineOptions(numerics=Numerics(), threads=1, memory_limit=limit)
        engine = open_engine("emulator", model, options)
        executable = engine.compile(PrecisionPlan.of([1]))
        for _ in range(2):
            trace = executable.trace(feeds)
            records = list(trace)
            assert len(records) == 3
            for outputs in (executable.run(feeds), trace.outputs, executable.once().run(feeds)):
                keys.add(content_key(outputs["y"]))
    assert len(keys) == 1
