"""``onnx convert`` and ``onnx export`` through the real command line."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from e2e_bench import BODIES, SQUARES, Bench, parse, rows

from topsideas.cli import main
from topsideas.formats.registry import FORMATS
from topsideas.graph.loading import load_model

FP16, BF16, FLOAT = onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "squares.onnx"
    onnx.save(parse(SQUARES), path)
    return path


def convert(model: Path, *words: str) -> tuple[int, Path]:
    output = model.with_name("mixed.onnx")
    line = ["onnx", "convert", "--input_onnx", str(model), "--output", str(output), *words]
    return main(line), output


def types(path: Path) -> dict[str, int]:
    """The element type of each value."""
    graph = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


class TestConvert:
    def test_by_name_and_id(self, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code, output = convert(model, "--fp32_nodes", "square", "2")
        assert code == 0
        found = types(output)
        assert (found["x"], found["a"], found["s"], found["r"], found["y"]) == (
            FLOAT,
            FP16,
            FLOAT,
            FLOAT,
            FLOAT,
        )
        (result,) = ort.InferenceSession(output).run(None, rows())
        np.testing.assert_allclose(result, rows()["x"], rtol=1e-2)
        told = capsys.readouterr().out
        assert "2 of 4 candidate ops in fp16, 2 of 4 ops as they were" in told
        assert "4 casts, " in told
        assert "check: valid: full ONNX check, strict types and shapes" in told
        assert "check: equal to the emulator in every bit on generated inputs" in told

    def test_by_type(self, model: Path) -> None:
        assert convert(model, "--fp32_types", "Mul", "Sqrt")[0] == 0
        found = types(model.with_name("mixed.onnx"))
        assert (found["a"], found["s"], found["y_fp16"]) == (FLOAT, FLOAT, FP16)

    def test_low_inputs_and_outputs(self, model: Path) -> None:
        code, output = convert(model, "--io_precision", "low")
        assert code == 0
        assert set(types(output).values()) == {FP16}
        assert not [n for n in onnx.load(output).graph.node if n.op_type == "Cast"]

    def test_weights_among_the_inputs(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "m.onnx"
        proto = parse(SQUARES)
        proto.graph.input.append(onnx.helper.make_tensor_value_info("c", FLOAT, []))
        onnx.save(proto, path)
        code, output = convert(path)
        assert (code, len(onnx.load(output).graph.input)) == (0, 2)
        assert "1 weights stay float32" in capsys.readouterr().out
        session = ort.InferenceSession(output)
        replaced = session.run(None, {**rows(), "c": np.array(2, np.float32)})[0]
        np.testing.assert_allclose(replaced, rows()["x"], rtol=1e-2)
        code, output = convert(path, "--fixed_weights")
        mixed = onnx.load(output).graph
        assert (code, len(mixed.input)) == (0, 1)
        assert mixed.initializer[0].data_type == FP16
        assert "note: 1 weights taken off the inputs" in capsys.readouterr().out

    def test_bf16(self, model: Path) -> None:
        code, output = convert(model, "--precision", "bf16", "--io_precision", "low")
        assert code == 0
        assert set(types(output).values()) == {BF16}

    def test_samples_are_what_is_compared_on(
        self, squares: Bench, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert convert(squares.model, "--sample_dir", str(squares.samples))[0] == 0
        assert "equal to the emulator in every bit on 2 samples" in capsys.readouterr().out

    def test_pinned_ops_are_told(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "m.onnx"
        text = "(float[4] x) => (float[4] y) { a = Exp (x)  b = local.Odd (a)  y = Neg (b) }"
        onnx.save(parse(text), path)
        assert convert(path)[0] == 0
        told = capsys.readouterr().out
        assert "the type of 'b' is not known" in told
        assert "not opened: ONNX Runtime" in told

    def test_bodies(self, tmp_path: Path) -> None:
        path = tmp_path / "bodies.onnx"
        onnx.save(parse(BODIES), path)
        assert convert(path, "--fp32_nodes", "inner_square")[0] == 0

    def test_weights_that_overflow_are_named(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "m.onnx"
        onnx.save(parse(SQUARES.replace("300", "70000")), path)
        assert convert(path)[0] == 0
        assert "note: weight 'c': 1 of 1 values exceed fp16's largest" in capsys.readouterr().out
        assert convert(path, "--overflow", "saturate", "--quiet")[0] == 0
        assert not capsys.readouterr().out

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--fp32_nodes", "99"], "op id 99 is not in the model"),
            (["--fp32_nodes", "squre"], "did you mean 'square'?"),
            (["--fp32_types", "Sqr"], "no op of type 'Sqr'; did you mean 'Sqrt'?"),
            (["--sample_dir", "nowhere"], "no such sample folder"),
        ],
    )
    def test_mistakes(
        self, model: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, output = convert(model, *words)
        assert code == 2
        assert message in capsys.readouterr().err
        assert not output.exists()

    def test_the_input_is_never_replaced(
        self, model: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        line = ["onnx", "convert", "--input_onnx", str(model), "--output", str(model)]
        assert main(line) == 2
        assert "belongs to the input model; expected another file" in capsys.readouterr().err

    def test_weights_of_the_input_are_never_replaced(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "m.onnx"
        data = {"save_as_external_data": True, "location": "mixed.onnx.data", "size_threshold": 0}
        proto = parse(SQUARES)
        raw = onnx.numpy_helper.from_array(np.array(300, np.float32), "c")
        proto.graph.initializer[0].CopyFrom(raw)
        onnx.save(proto, path, **data)
        before = (tmp_path / "mixed.onnx.data").read_bytes()
        assert convert(path)[0] == 2
        assert "mixed.onnx.data: belongs to the input model" in capsys.readouterr().err
        assert (tmp_path / "mixed.onnx.data").read_bytes() == before

    def test_bf16_of_an_old_model(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "m.onnx"
        onnx.save(parse(SQUARES, opset=12), path)
        code, output = convert(path, "--precision", "bf16")
        assert code == 0
        assert onnx.load(output).opset_import[0].version == 13
        told = capsys.readouterr().out
        assert "note: opset 12 lifted to 13, before which bf16 does not exist" in told

    def test_bf16_of_a_model_that_cannot_be_lifted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "m.onnx"
        onnx.save(parse("(float[4] x) => (float[4] y) { y = Clip (x) }", opset=10), path)
        assert convert(path, "--precision", "bf16")[0] == 3
        assert "cannot be lifted as it is: Clip changed on the way" in capsys.readouterr().err


@pytest.fixture
def report(squares: Bench) -> Path:
    """The report of a manual run that keeps ops 1 and 2."""
    assert squares.run("--manual", "--fp32_nodes", "1", "2").code == 0
    return squares.json


def export(report: Path, name: str, *words: str) -> tuple[int, Path]:
    output = report.with_name(f"plan.{name}")
    line = ["onnx", "export", "--plan", str(report), "--format", name, "--output", str(output)]
    return main([*line, *words]), output


class TestExport:
    def test_onnx(self, report: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code, output = export(report, "onnx")
        assert code == 0
        assert (types(output)["a"], types(output)["s"]) == (FP16, FLOAT)
        assert "evidence is emulated" in capsys.readouterr().out

    def test_op_list_reads_back_as_a_plan(self, report: Path, squares: Bench) -> None:
        code, output = export(report, "oplist")
        assert code == 0
        listed = json.loads(output.read_text())
        assert listed["fp32_nodes"] == [1, 2]
        assert [op["name"] for op in listed["fp32_ops"]] == ["square", "root"]
        assert listed["model"]["sha256"] == load_model(squares.model).digest
        again = squares.run("--manual", "--fp32_nodes", f"@{output}")
        assert again.found["fp32_nodes"] == [1, 2]
        assert export(output, "onnx")[0] == 0

    def test_tensorrt_reads_back_as_the_plan(self, report: Path) -> None:
        code, output = export(report, "tensorrt")
        assert code == 0
        flags = dict(word.lstrip("-").partition("=")[::2] for word in _words(output))
        assert flags["precisionConstraints"] == "obey"
        assert "fp16" in flags
        expected = {"*": ["fp16"], "square": ["fp32"], "root": ["fp32"]}
        assert _specification(flags["layerPrecisions"]) == expected
        assert _specification(flags["layerOutputTypes"]) == expected

    def test_onnxconverter_block_list(self, report: Path) -> None:
        code, output = export(report, "onnxconverter")
        assert code == 0
        arguments = json.loads(output.read_text())
        assert arguments["node_block_list"] == ["square", "root"]
        assert arguments["keep_io_types"] is True

    def test_openvino_ir(self, report: Path) -> None:
        openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
        code, output = export(report, "openvino")
        assert code == 0
        read = openvino.Core().read_model(output.with_suffix(".xml"))
        kinds = {
            op.get_friendly_name(): op.get_output_element_type(0).get_type_name()
            for op in read.get_ordered_ops()
        }
        assert (kinds["scale"], kinds["square"], kinds["root"], kinds["unscale"]) == (
            "f16",
            "f32",
            "f32",
            "f16",
        )
        compiled = openvino.Core().compile_model(read, "CPU")
        (found,) = compiled(rows()).values()
        np.testing.assert_allclose(found, rows()["x"], rtol=1e-2)

    @pytest.mark.parametrize("name", ["onnx", *FORMATS])
    def test_without_a_name_the_file_goes_beside_the_plan(self, report: Path, name: str) -> None:
        if name == "openvino":
            pytest.importorskip("openvino", reason="OpenVINO is not installed")
        assert main(["onnx", "export", "--plan", str(report), "--format", name, "--quiet"]) == 0
        suffix = ".mixed.onnx" if name == "onnx" else FORMATS[name].suffix
        assert report.with_name(f"report{suffix}").is_file()

    def test_plans_of_another_model_are_refused(
        self, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        other = tmp_path / "other.onnx"
        onnx.save(parse(SQUARES.replace("300", "301")), other)
        code, output = export(report, "onnx", "--input_onnx", str(other))
        assert code == 2
        assert "was found for another model" in capsys.readouterr().err
        assert not output.exists()

    def test_plans_of_another_precision_are_refused(
        self, report: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert export(report, "onnx", "--precision", "bf16")[0] == 2
        assert "was found for fp16, and says nothing about bf16" in capsys.readouterr().err

    def test_a_plain_list_needs_the_model(
        self, squares: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        plan = tmp_path / "ids.txt"
        plan.write_text("1\nroot\n")
        assert export(plan, "oplist")[0] == 2
        assert "give it with --input_onnx" in capsys.readouterr().err
        code, output = export(plan, "oplist", "--input_onnx", str(squares.model))
        assert code == 0
        assert json.loads(output.read_text())["fp32_nodes"] == [1, 2]

    def test_the_plan_is_never_replaced(
        self, report: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        line = ["onnx", "export", "--plan", str(report), "--format", "oplist"]
        assert main([*line, "--output", str(report)]) == 2
        assert "is the plan; expected another file" in capsys.readouterr().err

    def test_a_plan_that_fails_says_so(
        self, squares: Bench, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert squares.run("--manual", "--fp32_nodes", "1").code == 1
        assert export(squares.json, "oplist")[0] == 0
        assert "does not reach the accuracy" in capsys.readouterr().out

    @pytest.mark.parametrize("name", ["oplist", "tensorrt", "onnxconverter"])
    def test_lists_say_nothing_of_inputs(
        self, report: Path, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert export(report, name, "--io_precision", "low")[0] == 2
        assert f"format {name} says nothing of inputs" in capsys.readouterr().err

    def test_onnxconverter_knows_no_bf16(
        self, squares: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        plan = tmp_path / "ids.txt"
        plan.write_text("1\n")
        words = ("--input_onnx", str(squares.model), "--precision", "bf16")
        assert export(plan, "onnxconverter", *words)[0] == 3
        assert "converts to fp16 only" in capsys.readouterr().err


class TestNamesThatDoNotTellOpsApart:
    TEXT = """(float[4] x) => (float[4] y) {
        [same] a = Exp (x)
        [same] b = Neg (a)
        c = Abs (b)
        [odd:name, "and' more] d = Sqrt (c)
        [fine] y = Tanh (d)
    }""".replace("""[odd:name, "and' more] """, "")

    @pytest.mark.parametrize("name", ["tensorrt", "onnxconverter"])
    def test_a_renamed_copy_goes_with_the_list(self, tmp_path: Path, name: str) -> None:
        path, plan = tmp_path / "m.onnx", tmp_path / "ids.txt"
        proto = parse(self.TEXT)
        proto.graph.node[3].name = "odd:name, \"and' more"
        onnx.save(proto, path)
        plan.write_text("0\n3\n")
        code, output = export(plan, name, "--input_onnx", str(path))
        assert code == 0
        copy = onnx.load(output.with_name("plan.named.onnx"))
        names = [node.name for node in copy.graph.node]
        assert len(set(names)) == 5
        assert names[4] == "fine"
        text = output.read_text()
        kept = [names[0], names[3]]
        if name == "tensorrt":
            flags = dict(word.lstrip("-").partition("=")[::2] for word in _words(output))
            assert list(_specification(flags["layerPrecisions"])) == ["*", *kept]
        else:
            assert json.loads(text)["node_block_list"] == kept

    def test_arguments_survive_xargs(self, tmp_path: Path) -> None:
        path, plan = tmp_path / "m.onnx", tmp_path / "ids.txt"
        proto = parse(self.TEXT.replace("[same]", ""))
        for index, node in enumerate(proto.graph.node):
            node.name = f'it\'s "{index}" $HOME \\ ü'
        onnx.save(proto, path)
        plan.write_text("1\n")
        code, output = export(plan, "tensorrt", "--input_onnx", str(path))
        assert code == 0
        show = [sys.executable, "-c", "import sys, json; print(json.dumps(sys.argv[1:]))"]
        done = subprocess.run(
            ["xargs", "-a", str(output), *show], capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout) == _words(output)
        assert f"{proto.graph.node[1].name}:fp32" in json.loads(done.stdout)[2]


def test_help_names_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["onnx", "export", "--help"])
    told = capsys.readouterr().out
    assert all(name in told for name in FORMATS)


def _words(file: Path) -> list[str]:
    return shlex.split(file.read_text())


def _specification(text: str) -> dict[str, list[str]]:
    """The grammar of trtexec: ``name:type[+type][,name:type]``."""
    pairs = (part.rpartition(":") for part in text.split(","))
    return {name: kinds.split("+") for name, _, kinds in pairs}
