"""Files made to hurt whoever reads them: refused with a reason, in little time and memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.e2e.e2e_bench import Bench, parse, plain_bench, rows, squares_bench
from tests.trust.fuzzing import fuzz, run_words
from tests.trust.mutation import MUTATORS
from tests.trust.seeds import SEEDS, seeds
from topsideas.errors import EXIT_BUG

FULL = bool(os.environ.get("TOPSIDEAS_FULL"))

# --- fuzzing ------------------------------------------------------------------------------------

COUNTS = {"model": 12, "npz": 20, "plan": 10, "options": 12}


@pytest.mark.parametrize("target", MUTATORS)
def test_changed_files_lead_to_documented_ends(target: str) -> None:
    ends = fuzz(target, seed=0, count=COUNTS[target] * (20 if FULL else 1))
    assert sum(ends.values()) >= COUNTS[target]
    assert len({end.split()[-1] for end in ends}) > 1  # not all of them are refused at once


def test_the_corpus_is_what_its_script_writes() -> None:
    files = {
        (target, name): content
        for target, held in seeds().items()
        for name, content in held.items()
    }
    assert {(p.parent.name, p.name) for p in SEEDS.glob("*/*")} == set(files)
    for (target, name), content in files.items():
        if target != "npz":  # an archive holds the time at which it was written
            assert (SEEDS / target / name).read_bytes() == content


def test_a_bug_of_ours_is_one_line_and_a_code_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def buggy(*_: object, **__: object) -> None:
        raise KeyError("\x1b[31mx")

    bench = plain_bench(tmp_path, "(float[N,4] x) => (float[N,4] y) { y = Relu(x) }")
    monkeypatch.setattr("topsideas.cli.mix_precision.load_model", buggy)
    code, out, err = run_words(bench.words())
    assert (code, out) == (EXIT_BUG, "")
    assert err.startswith("topsideas: error: KeyError in run, mix_precision.py:")
    assert err.count("\n") == 1
    assert "please report it" in err
    assert "\x1b" not in err
    assert "Traceback" in run_words(bench.words("-vv"))[2]


# --- models -------------------------------------------------------------------------------------


def _doubling(depth: int) -> onnx.ModelProto:
    """A model of ``2 ** depth`` nodes in a few lines."""
    functions = [
        f'<domain: "local", opset_import: ["": 17, "local": 1]> f{i} (a) => (b)'
        f" {{ c = local.f{i + 1}(a) b = local.f{i + 1}(c) }}\n"
        for i in range(depth)
    ]
    last = f'<domain: "local", opset_import: ["": 17]> f{depth} (a) => (b) {{ b = Relu(a) }}'
    text = "(float[N,4] x) => (float[N,4] y) { y = local.f0(x) }"
    return parse(text, functions="".join(functions) + last)


@pytest.mark.parametrize("depth", [20, 30, 300])
def test_functions_that_explode_when_inlined_are_refused(tmp_path: Path, depth: int) -> None:
    outcome = plain_bench(tmp_path, _doubling(depth)).run()
    assert (outcome.code, outcome.report) == (2, None)
    assert "its local functions are more than 1000000 nodes when inlined" in outcome.err


def test_functions_that_do_not_explode_are_inlined(tmp_path: Path) -> None:
    assert plain_bench(tmp_path, _doubling(4)).run().code == 0


def test_a_function_that_makes_none_of_its_outputs_is_refused(tmp_path: Path) -> None:
    empty = '<domain: "local", opset_import: ["": 17]> f (a) => (b) { c = Relu(a) }'
    text = "(float[N,4] x) => (float[N,4] y) { y = local.f(x) }"
    outcome = plain_bench(tmp_path, parse(text, functions=empty)).run()
    assert outcome.code == 2
    assert "not a valid ONNX model: nothing makes the value 'y'; expected a node" in outcome.err


def test_inputs_of_terabytes_are_not_made_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "(float[1000000,1000000] x) => (float[1000000,1000000] y) {y=Relu(x)}")
    out = tmp_path / "mixed.onnx"
    code, said, _ = run_words(
        ["onnx", "convert", "--input_onnx", str(bench.model), "--output", str(out)]
    )
    assert code == 0
    assert "not compared with the emulator: no inputs can be made up for it" in said


def test_a_tensor_of_ten_gigabytes_in_a_tiny_file_ends_with_the_limit(tmp_path: Path) -> None:
    """Expanded from the constants of a file of some hundred bytes."""
    text = """(float[N,4] x) => (float[a,b,c] y) <int64[3] s = {625000, 1000, 4}> {
        b = Expand(x, s) y = ReduceMax(b) }"""
    bench = plain_bench(tmp_path, text, rows(count=1))
    assert bench.model.stat().st_size < 1000
    words = bench.words("--engine_memory", "700M")
    process = subprocess.Popen(
        [sys.executable, "-m", "topsideas", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _, err = process.communicate()
    assert process.returncode == 3
    assert "MB when asked to run, and may hold 700 MB" in err or "bad_alloc" in err
    assert "Traceback" not in err


# --- samples ------------------------------------------------------------------------------------


def _bomb(path: Path, shape: str, descr: str = "<f4", size: int = 40 << 20) -> None:
    """An archive of a few hundred kilobytes that holds ``size`` bytes of zeros."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:  # noqa: SIM117
        with archive.open("x.npy", "w") as member:
            member.write(start)
            for _ in range(size >> 20):
                member.write(bytes(1 << 20))


@pytest.mark.parametrize(
    ("shape", "descr", "text"),
    [
        ("(10485760,)", "<f4", "expected shape [N,4], found [10485760]: rank 2 against 1"),
        ("(1, 10485760)", "<f4", "axis 1 must be 4, is 10485760"),
        ("(1, 4)", "<U2621440", "expected float32, found str"),
    ],
)
def test_a_zip_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, shape: str, descr: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = squares_bench(tmp_path)
    _bomb(bench.samples / "sample1_inputs.npz", shape, descr)
    read: list[int] = []
    whole = zipfile.ZipExtFile.read

    def counted(self: zipfile.ZipExtFile, n: int | None = -1) -> bytes:
        found = whole(self, n)
        read.append(len(found))
        return found

    monkeypatch.setattr(zipfile.ZipExtFile, "read", counted)
    outcome = bench.run()
    assert (outcome.code, outcome.report) == (2, None)
    assert text in outcome.err
    assert sum(read) < 1 << 20


def test_pickles_in_samples_and_caches_are_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "executed",))

    bench = squares_bench(tmp_path / "bench")
    bench.run()
    stream = io.BytesIO()
    np.save(stream, np.array([Bomb()], dtype=object), allow_pickle=True)
    for place in (*bench.workspace.rglob("*.npz"), bench.samples / "sample1_inputs.npz"):
        with zipfile.ZipFile(place, "w") as archive:
            for name in ("x.npy", "header.npy", "a0.npy"):
                archive.writestr(name, stream.getvalue())
    outcome = bench.run()
    assert "holds pickled Python objects, which are never loaded" in outcome.err
    (bench.samples / "sample1_inputs.npz").write_bytes(pickle.dumps(Bomb()))
    assert "the file is not an archive" in bench.run().err
    np.savez(bench.samples / "sample1_inputs.npz", **rows(seed=1))
    assert bench.run().code == 0
    assert not (tmp_path / "executed").exists()


# --- plans and options --------------------------------------------------------------------------


def test_a_pipe_without_an_end_is_not_read_to_it(tmp_path: Path) -> None:
    bench = squares_bench(tmp_path)
    outcome = bench.run("--compile_options", "@/dev/zero")
    assert (outcome.code, outcome.report) == (2, None)
    assert "/dev/zero: over 256 MB" in outcome.err
    for words in (["report", "/dev/zero"], ["compare", "/dev/zero", "/dev/zero"]):
        code, _, err = run_words(["onnx", *words])
        assert (code, "/dev/zero: cannot be read as a report: over 256 MB" in err) == (2, True)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"options": {"rtol": "wide"}}, "options.rtol is 'wide', expected a number"),
        ({"options": {"cos_sim": []}}, "options.cos_sim is [], expected a number"),
        ({"options": {"precision": "fp8"}}, "options.precision is 'fp8', expected one of fp16"),
        ({"options": {"overflow": {}}}, "options.overflow is {}, expected one of inf, saturate"),
        ({"margin": 10**400}, "margin is 1000000"),
        ({"margin": "\x1b[2J" * 99}, "margin is '\\x1b[2J"),
    ],
)
def test_a_report_that_was_changed_is_refused_with_the_key(
    tmp_path: Path, change: dict[str, object], text: str
) -> None:
    bench = squares_bench(tmp_path)
    found = bench.run().found
    merged = {**found, **change}
    if "options" in change:
        merged["options"] = {**found["options"], **change["options"]}
    plan = bench.file("plan.json", json.dumps(merged))
    words = ["onnx", "verify", "--plan", str(plan), "--input_onnx", str(bench.model)]
    code, _, err = run_words([*words, "--sample_dir", str(bench.samples)])
    assert code == 2
    assert text in err
    assert len(err) < 500
