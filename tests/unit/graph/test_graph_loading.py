"""Models from files and from memory: what is taken, what is refused, what the digest covers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.errors import ModelError
from topsideas.graph.loading import load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics, Overflow
from topsideas.testing.planted import in_branch, in_function, in_loop, overflow, parse, ramp


def _weighty(value: float = 2.0) -> onnx.ModelProto:
    """A model whose weight goes into an external file."""
    proto = parse("g (float[600] x) => (float[600] y) { y = Mul (x, x) }")
    weight = np.full(600, value, np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    proto.graph.node[0].input[1] = "w"
    return proto


def _save(proto: onnx.ModelProto, path: Path) -> None:
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)


def test_a_model_from_memory_and_from_its_file_are_the_same(tmp_path: Path) -> None:
    proto = overflow().model
    onnx.save(proto, tmp_path / "m.onnx")
    memory, file = load_model(proto), load_model(tmp_path / "m.onnx")
    assert memory.ops == file.ops
    assert (memory.path, file.path) == (None, tmp_path / "m.onnx")
    assert load_model(str(tmp_path / "m.onnx")).digest == file.digest == memory.digest


def test_the_users_model_is_left_alone() -> None:
    proto = in_function().model
    before = proto.SerializeToString()
    model = load_model(proto)
    EmulatorEngine(model, Numerics()).compile(PrecisionPlan.of([])).run({"x": ramp(1, 2, 4)})
    assert proto.SerializeToString() == before


def test_the_digest_covers_model_and_weights(tmp_path: Path) -> None:
    digests = set()
    for name, value in (("a", 2.0), ("b", 3.0)):
        (tmp_path / name).mkdir()
        _save(_weighty(value), tmp_path / name / "m.onnx")
        digests.add(load_model(tmp_path / name / "m.onnx").digest)
    digests |= {load_model(m().model).digest for m in (overflow, in_loop)}
    assert len(digests) == 4


def test_weights_in_a_file_are_used(tmp_path: Path) -> None:
    _save(_weighty(), tmp_path / "m.onnx")
    model = load_model(tmp_path / "m.onnx")
    executable = EmulatorEngine(model, Numerics()).compile(PrecisionPlan.of([]))
    found = executable.run({"x": np.ones(600, np.float32)})
    assert (found["y"] == 2).all()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda p: (p / "weights.bin").unlink(), "weights.bin"),
        (lambda p: _relocate(p, "../weights.bin"), "outside|escape|not allowed|invalid|Invalid"),
        (lambda p: _relocate(p, "/etc/hostname"), "outside|absolute|not allowed|invalid|Invalid"),
        (lambda p: _relocate(p, "other.bin"), "other.bin"),
    ],
    ids=["missing", "parent folder", "absolute path", "another name"],
)
def test_external_data_must_lie_beside_the_model(
    tmp_path: Path, change: Callable[[Path], None], text: str
) -> None:
    _save(_weighty(), tmp_path / "m.onnx")
    change(tmp_path)
    with pytest.raises(ModelError, match=text):
        load_model(tmp_path / "m.onnx")


def _relocate(folder: Path, location: str) -> None:
    proto = onnx.load(folder / "m.onnx", load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    (folder / "m.onnx").write_bytes(proto.SerializeToString())


def test_external_data_cannot_come_from_memory(tmp_path: Path) -> None:
    _save(_weighty(), tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    with pytest.raises(ModelError, match=r"keeps weights in external data.*pass the path"):
        load_model(proto)


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "no such model file"), (b"", "holds no graph"), (b"not onnx at all", "as ONNX")],
    ids=["missing", "empty", "text"],
)
def test_files_that_are_no_model_are_refused(
    tmp_path: Path, content: bytes | None, text: str
) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=f"m.onnx.*{text}"):
        load_model(path)


def _graph(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("y",)) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    ys = [helper.make_tensor_value_info(o, TensorProto.FLOAT, [4]) for o in outputs]
    graph = helper.make_graph(list(nodes), "g", [x], ys)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _without_a_device() -> onnx.ModelProto:
    """A configuration of devices that none of the model's belongs to: found by fuzzing."""
    proto = _graph(helper.make_node("Exp", ["x"], ["y"]))
    proto.graph.node[0].device_configurations.add()
    return proto


@pytest.mark.parametrize(
    "proto",
    [
        _without_a_device(),
        _graph(helper.make_node("Exp", ["nowhere"], ["y"])),
        _graph(helper.make_node("Exp", ["a"], ["y"]), helper.make_node("Exp", ["x"], ["a"])),
        _graph(helper.make_node("Exp", ["x"], ["y"]), helper.make_node("Tanh", ["x"], ["y"])),
        _graph(helper.make_node("NoSuchOp", ["x"], ["y"])),
        _graph(helper.make_node("Exp", ["x"], ["a"])),
    ],
    ids=[
        "no device",
        "unknown input",
        "wrong order",
        "written twice",
        "unknown op",
        "output not made",
    ],
)
def test_invalid_graphs_are_refused(proto: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match="the model: not a valid ONNX model"):
        load_model(proto)


def test_the_default_domain_has_two_names() -> None:
    text = '<ir_version: 8, opset_import: ["ai.onnx": 17]>\n'
    proto = onnx.parser.parse_model(text + "g (float[2] x) => (float[2] y) { y = Exp (x) }")
    model = load_model(proto)
    assert model.opset == 17
    assert [(op.type, op.candidate) for op in model.ops] == [("Exp", True)]
    engine = EmulatorEngine(model, Numerics(overflow=Overflow.SATURATE))
    found = engine.compile(PrecisionPlan.of([])).run({"x": np.full(2, 20, np.float32)})
    assert found["y"].tolist() == [65504, 65504]


def test_inputs_with_initializers_are_optional() -> None:
    proto = _weighty()
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [600]))
    assert [v.name for v in load_model(proto).inputs()] == ["x"]


def test_sparse_weights_are_made_dense() -> None:
    proto = parse("g (float[4] x) => (float[4] y) { y = Mul (x, x) }")
    values = numpy_helper.from_array(np.array([5.0, 7.0], np.float32), "w")
    places = numpy_helper.from_array(np.array([1, 3], np.int64), "places")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4]))
    proto.graph.node[0].input[1] = "w"
    model = load_model(proto)
    executable = EmulatorEngine(model, Numerics()).compile(PrecisionPlan.of([]))
    assert executable.run({"x": np.ones(4, np.float32)})["y"].tolist() == [0, 5, 0, 7]


def test_a_sparse_tensor_that_would_fill_memory_is_refused() -> None:
    proto = parse("g (float[4] x) => (float[4] y) { y = Exp (x) }")
    values = numpy_helper.from_array(np.array([5.0], np.float32), "w")
    places = numpy_helper.from_array(np.array([1], np.int64), "places")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [1 << 40]))
    with pytest.raises(ModelError, match="over 2 GB"):
        load_model(proto)


def test_ids_are_places_in_the_file_and_bodies_follow() -> None:
    model = load_model(in_loop().model)
    assert [(op.id, op.path) for op in model.ops] == [
        (0, "main/Loop_0"),
        (1, "main/loop_0/body/Identity_0"),
        (2, "main/loop_0/body/Mul_1"),
        (3, "main/loop_0/body/Mul_2"),
        (4, "main/loop_0/body/Tanh_3"),
    ]


def test_nested_bodies_are_numbered_depth_first() -> None:
    text = """g (float[2] x, bool c) => (float[2] y, float[2] z) {
        y = If (c) <
            then_branch = t () => (float[2] a) {
                a = If (c) <
                    then_branch = tt () => (float[2] p) { p = Exp (x) },
                    else_branch = te () => (float[2] q) { q = Tanh (x) }
                >
                unused = Sin (x)
            },
            else_branch = e () => (float[2] b) { b = Cos (x) }
        >
        z = Sqrt (x)
    }"""
    paths = [op.path for op in load_model(parse(text)).ops]
    assert paths == [
        "main/If_0",
        "main/Sqrt_1",
        "main/if_0/then_branch/If_0",
        "main/if_0/then_branch/if_0/then_branch/Exp_0",
        "main/if_0/then_branch/if_0/else_branch/Tanh_0",
        "main/if_0/then_branch/Sin_1",
        "main/if_0/else_branch/Cos_0",
    ]


def test_functions_are_inlined_and_ids_index_the_inlined_model() -> None:
    model = load_model(in_function().model)
    assert model.inlined
    assert [op.type for op in model.ops] == ["Constant", "Div", "Exp"] * 2
    assert not load_model(in_branch().model).inlined


def test_ops_without_names_or_with_the_same_name_keep_their_ids() -> None:
    nodes = [
        helper.make_node("Exp", ["x"], ["a"], name="same"),
        helper.make_node("Tanh", ["a"], ["b"], name="same"),
        helper.make_node("Sqrt", ["b"], ["y"]),
    ]
    model = load_model(_graph(*nodes))
    assert [(op.id, op.name, op.type) for op in model.ops] == [
        (0, "same", "Exp"),
        (1, "same", "Tanh"),
        (2, "", "Sqrt"),
    ]


def test_shapes_are_inferred() -> None:
    text = """g (float[N,3] x) => (float[N,6] y) {
        y = Concat <axis = 1> (x, x)
    }"""
    assert load_model(parse(text)).ops[0].shapes == (("N", 6),)
