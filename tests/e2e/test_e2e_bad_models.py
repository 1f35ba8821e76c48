"""Models that are damaged, hostile or unsupported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from e2e_bench import GENTLE, SQUARES, Bench, parse, plain_bench, rows
from onnx import TensorProto, helper

Make = Callable[[Path], onnx.ModelProto | bytes]

FLOAT = TensorProto.FLOAT
ONES = np.ones(4, np.float32).tobytes()


def graph(
    *nodes: onnx.NodeProto,
    weights: tuple[TensorProto, ...] = (),
    opset: int = 17,
    domain: str = "acme",
) -> onnx.ModelProto:
    """A model with x and y of [N, 4], unchecked."""
    ends = [helper.make_tensor_value_info(name, FLOAT, ["N", 4]) for name in "xy"]
    made = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], list(weights))
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(domain, 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


def node(op: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def weighted(tensor: TensorProto) -> onnx.ModelProto:
    return graph(node("Mul", "x w", "y"), weights=(tensor,))


def external(location: str, **declared: object) -> onnx.ModelProto:
    tensor = TensorProto(name="w", dims=[4], data_type=FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **declared}.items():
        tensor.external_data.add(key=key, value=str(value))
    return weighted(tensor)


def beside(model: onnx.ModelProto, content: bytes = ONES, name: str = "w.bin") -> Make:
    """A model with a file of weights beside it."""

    def make(folder: Path) -> onnx.ModelProto:
        (folder / name).write_bytes(content)
        return model

    return make


def linked(folder: Path) -> onnx.ModelProto:
    outside = folder.parent / f"{folder.name}-outside.bin"
    outside.write_bytes(ONES)
    (folder / "w.bin").symlink_to(outside)
    return external("w.bin")


def huge(folder: Path) -> onnx.ModelProto:
    model = external("w.bin", length=3 << 30)
    model.graph.initializer[0].dims[:] = [(3 << 30) // 4]
    return beside(model)(folder)


def hidden_in_a_function(folder: Path) -> onnx.ModelProto:
    model = parse(
        "(float[N,4] x) => (float[N,4] y) { y = local.f(x) }",
        functions='<domain: "local", opset_import: ["": 17]> f (a) => (b) { c = Constant'
        " <value = float[4] {1, 1, 1, 1}> ()  b = Mul(a, c) }",
    )
    tensor = model.functions[0].node[0].attribute[0].t
    tensor.CopyFrom(external("../w.bin").graph.initializer[0])
    return model


MODELS: list[tuple[str, onnx.ModelProto | bytes | Make, str]] = [
    ("empty file", b"", "holds no graph; expected an ONNX model with nodes and outputs"),
    ("text", b"hello world\n", "cannot be read as ONNX"),
    ("zeros", bytes(100), "cannot be read as ONNX"),
    ("zip archive", b"PK\x03\x04" + bytes(50), "cannot be read as ONNX"),
    ("truncated", parse(GENTLE).SerializeToString()[:60], "cannot be read as ONNX"),
    ("length beyond the end", b"\x3a\xff\xff\xff\xff\x0f", "cannot be read as ONNX"),
    ("no graph", onnx.ModelProto(ir_version=8), "holds no graph; expected an ONNX model with"),
    ("no outputs", parse("(float[4] x) => () { y = Relu(x) }"), "the graph has no outputs; expe"),
    (
        "cycle",
        graph(node("Add", "x b", "a"), node("Relu", "a", "b"), node("Neg", "b", "y")),
        "not output of any previous nodes. Remedy: sort them, as onnx_ir.passes.common.Topo",
    ),
    ("undefined input", graph(node("Add", "x ghost", "y")), "however input 'ghost' of node"),
    ("output of nothing", graph(node("Relu", "x", "z")), "Graph output 'y' is not an output of"),
    (
        "a name defined twice",
        graph(node("Relu", "x", "y"), node("Neg", "x", "y")),
        "however 'y' has been used as output names multiple times",
    ),
    ("unknown op", graph(node("Frobnicate", "x", "y")), "No Op registered for Frobnicate"),
    ("domain not imported", graph(node("F", "x", "y", domain="b")), "No opset import for domain"),
    ("attribute type", graph(node("Softmax", "x", "y", axis="a")), "Mismatched attribute type"),
    (
        "weight shorter than its shape",
        weighted(TensorProto(name="w", dims=[1 << 30, 4], data_type=FLOAT, raw_data=b"1234")),
        "raw_data size (4 bytes) is too small for the declared shape",
    ),
    (
        "negative size",
        weighted(TensorProto(name="w", dims=[-1], data_type=FLOAT, raw_data=b"1234")),
        "Negative dimension value (tensor name: w)",
    ),
    (
        "unknown element type",
        weighted(TensorProto(name="w", dims=[1], data_type=77, raw_data=b"1234")),
        "not a usable ONNX graph: 77 is not a valid DataType",
    ),
    ("weights missing", external("w.bin"), "external data file 'w.bin' is missing in "),
    ("weights nowhere", external(""), "external data file '' is missing in "),
    ("weights by an absolute path", external("/etc/hostname"), "'/etc/hostname' lies outside the"),
    (
        "weights above the folder",
        external("../w.bin"),
        "'../w.bin' lies outside the model's folder",
    ),
    ("weights behind a link", linked, "external data 'w.bin' lies outside the model's folder"),
    ("weights above, in a function", hidden_in_a_function, "'../w.bin' lies outside the model's"),
    ("weights with a zero byte", external("a\0b"), "external data file 'a\\x00b' is missing in "),
    (
        "weights cut short",
        beside(external("w.bin"), ONES[:8]),
        "but the file has 8; it is cut sho",
    ),
    (
        "weights of 3 GB in 16 bytes",
        huge,
        "declared as 3221225472 bytes from 0, but the file has 16",
    ),
    (
        "weights too far in",
        beside(external("w.bin", offset=1 << 40)),
        "from 1099511627776, but the",
    ),
    ("negative offset", beside(external("w.bin", offset=-4)), "has offset '-4'; expected a whole"),
    (
        "offset of letters",
        beside(external("w.bin", offset="x")),
        "has offset 'x'; expected a whole",
    ),
    ("length too small", beside(external("w.bin", length=4)), "is 16 bytes by its shape and type"),
]

UNSUPPORTED: list[tuple[str, onnx.ModelProto, str]] = [
    (
        "opset 5",
        graph(node("Relu", "x", "y"), opset=5),
        "opset 5 is too old to emulate; expected 6",
    ),
    ("opset 99", graph(node("Relu", "x", "y"), opset=99), "onnxruntime 1."),
    (
        "op of an unknown domain",
        graph(node("Magic", "x", "y", domain="acme")),
        "acme:Magic(-1) is",
    ),
    ("op on a wrong type", graph(node("And", "x x", "y")), "Type 'tensor(float)' of input"),
]


def check(bench: Bench, bad: Path, code: int, text: str) -> None:
    """The bad model is refused; the good one then runs in the same workspace."""
    bench.json.unlink(missing_ok=True)
    before = bench.written()
    for words in ((), ("--manual",)):
        outcome = bench.run("--input_onnx", bad, *words)
        assert (outcome.code, outcome.out, outcome.report) == (code, "", None)
        assert text in outcome.err
        assert "Traceback" not in outcome.err
    assert bench.written() == before
    again = bench.run("--clean")
    assert (again.code, again.found["fp32_nodes"]) == (0, [])


@pytest.mark.parametrize(
    ("model", "text"), [row[1:] for row in MODELS], ids=[row[0] for row in MODELS]
)
def test_a_bad_model_is_refused_with_the_reason(
    tmp_path: Path, model: onnx.ModelProto | bytes | Make, text: str
) -> None:
    bench = plain_bench(tmp_path / "bench", GENTLE)
    made = model(bench.folder) if callable(model) else model
    content = made if isinstance(made, bytes) else made.SerializeToString()
    check(bench, bench.file("bad.onnx", content), 2, text)


@pytest.mark.parametrize(
    ("model", "text"), [row[1:] for row in UNSUPPORTED], ids=[row[0] for row in UNSUPPORTED]
)
def test_a_model_that_the_engine_cannot_run_is_an_engine_failure(
    tmp_path: Path, model: onnx.ModelProto, text: str
) -> None:
    bench = plain_bench(tmp_path, GENTLE)
    check(bench, bench.file("bad.onnx", model.SerializeToString()), 3, text)


def test_a_missing_model_and_a_folder_are_refused(tmp_path: Path) -> None:
    bench = plain_bench(tmp_path, GENTLE)
    expected = "expected the path of an .onnx file"
    check(bench, tmp_path / "no.onnx", 2, f"no such model file; {expected}")
    check(bench, bench.samples, 2, f"is a folder, {expected}")


def test_a_name_that_several_ops_bear_is_refused_with_their_ids(tmp_path: Path) -> None:
    model = GENTLE.replace("[clip]", "[triple]")
    outcome = plain_bench(tmp_path, model).run("--fp32_nodes", "triple")
    assert (outcome.code, outcome.report) == (2, None)
    assert "2 ops are named 'triple': ids [0, 1]; give the id" in outcome.err


def test_a_model_that_gives_nan_in_fp32_has_no_reference(tmp_path: Path) -> None:
    bench = plain_bench(tmp_path, "(float[N,4] x) => (float[N,4] y) { a = Neg(x)  y = Log(a) }")
    outcome = bench.run()
    assert outcome.code == 2
    assert "sample 0: the model gives NaN in output 'y' even in fp32" in outcome.err
    assert "Check the inputs" in outcome.err


def test_a_model_that_is_not_deterministic_is_refused(tmp_path: Path) -> None:
    noisy = SQUARES.replace("y = Div(r, c)", "d = Div(r, c)").removesuffix("}") + (
        "n = RandomNormalLike <scale = 0.001> (x)  y = Add(d, n) }"
    )
    bench = Bench(tmp_path, noisy)
    bench.sample(0, rows(), {"y": rows()["x"]})
    outcome = bench.run()
    assert (outcome.code, outcome.report) == (3, None)
    assert "two runs of the same plan on the same sample differ in output 'y'" in outcome.err
    assert "Remedy: give the model's random ops a seed, or make their values" in outcome.err
