"""The gate refuses what is not valid or does not load, and says why."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from topsideas.errors import EngineError, ModelError
from topsideas.graph import gates
from topsideas.graph.gates import check_export

HEAD = '<ir_version: 8, opset_import: ["": 17, "vendor": 1, "com.microsoft": 1]> g '
GOOD = HEAD + "(float[4] x) => (float[4] y) { a = Cast <to = 10> (x) y = Cast <to = 1> (a) }"
MIXED = (
    HEAD
    + """(float[4] x) => (float[4] y) {
    a = Cast <to = 10> (x)
    b = Add (a, x)
    y = Cast <to = 1> (b)
}"""
)
WRONG_INFO = (
    HEAD
    + """(float[4] x) => (float[4] y) <float[4] a> {
    a = Cast <to = 10> (x)
    y = Cast <to = 1> (a)
}"""
)
STALE_SHAPE = HEAD + "(float[4] x) => (float[4] y) <float[5] a> { a = Exp (x) y = Exp (a) }"
OF_THE_RUNTIME = HEAD + "(int64[4] x) => (int64[4] y) { y = com.microsoft.Gelu (x) }"
VENDOR = HEAD + "(float[4] x) => (float[4] y) { y = vendor.Op (x) }"
BF16 = (
    HEAD
    + """(float[4] x) => (float[4] y) {
    a = Cast <to = 16> (x)
    b = Acos (a)
    y = Cast <to = 1> (b)
}"""
)


def saved(folder: Path, text: str) -> Path:
    path = folder / "m.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def test_good(tmp_path: Path) -> None:
    proved, opened, optimised = check_export(saved(tmp_path, GOOD), optimised=True)
    assert proved == "valid: full ONNX check, strict types and shapes"
    assert opened.startswith("opens in ONNX Runtime ")
    assert optimised == "ONNX Runtime's optimiser takes it"


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("import os; os.kill(os.getpid(), 11)", "crashes on it (signal 11)"),
        ("raise ValueError('no')", "ValueError: no"),
    ],
)
def test_an_optimiser_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    monkeypatch.setattr(gates, "_OPTIMISE", code)
    assert told in check_export(saved(tmp_path, GOOD), optimised=True)[2]


@pytest.mark.parametrize("text", [MIXED, WRONG_INFO, STALE_SHAPE])
def test_types_that_contradict_inference(tmp_path: Path, text: str) -> None:
    with pytest.raises(ModelError, match="does not pass the ONNX checker"):
        check_export(saved(tmp_path, text))


def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no protobuf")
    with pytest.raises(ModelError):
        check_export(path)


def test_a_source_that_fails_strict_inference_excuses_its_export(tmp_path: Path) -> None:
    path = saved(tmp_path, STALE_SHAPE)
    proved, _ = check_export(path, source=path)
    assert proved == "valid: basic ONNX check only, as m.onnx fails strict inference already"


def test_what_the_runtime_refuses(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="ONNX Runtime refuses it"):
        check_export(saved(tmp_path, OF_THE_RUNTIME))


def test_an_operator_that_only_the_target_has_is_told(tmp_path: Path) -> None:
    _, opened = check_export(saved(tmp_path, VENDOR))
    assert opened.startswith("not opened: ")
    assert "vendor:Op" in opened


def test_a_missing_kernel_is_no_defect(tmp_path: Path) -> None:
    _, opened = check_export(saved(tmp_path, BF16.replace("17", "22")))
    assert "no kernel for it" in opened
