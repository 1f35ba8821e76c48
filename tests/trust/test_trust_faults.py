"""Validators, samples, disks, clocks and neighbours that misbehave, through the command line."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.e2e.e2e_bench import SQUARES_ANSWER, Bench, parse, rows, squares_bench

RULES = {
    "hangs": ("time.sleep(60)", "gave no answer on sample 0 within 1 s; expected True or False"),
    "hangs later": ("time.sleep(60 * (len(seen) > 1)) or True", "gave no answer on sample "),
    "raises": ("1 / 0", "raised ZeroDivisionError on sample 0: division by zero"),
    "leaves": ("sys.exit('enough')", "raised SystemExit on sample 0: enough"),
    "says nothing": ("None", "returned None on sample 0; expected True (acceptable) or False"),
    "says NaN": ("float('nan')", "returned nan on sample 0; expected True"),
    "says one": ("1", "returned 1 on sample 0; expected True"),
    "says it all": ("outputs[0] == outputs[0]", "on sample 0; expected True"),
    "says it large": ("'x' * 100_000", "on sample 0; expected True"),
}


@pytest.fixture
def squares(tmp_path: Path) -> Bench:
    return squares_bench(tmp_path, count=4)


def _rule(bench: Bench, body: str) -> list[str]:
    text = "import sys\nimport time\nimport numpy as np\nseen = []\n\n"
    text += f"def check(reference, outputs):\n    seen.append(1)\n    return {body}\n"
    return ["--val_func", f"{bench.file('rule.py', text)}:check"]


@pytest.mark.parametrize("what", RULES)
def test_a_rule_that_misbehaves_is_named_with_the_sample(squares: Bench, what: str) -> None:
    body, text = RULES[what]
    start = time.monotonic()
    outcome = squares.run(*_rule(squares, body), "--val_timeout", "1", "--threads", "2")
    assert (outcome.code, outcome.report) == (2, None)
    assert text in outcome.err
    assert len(outcome.err) < 1000
    assert time.monotonic() - start < 30
    assert squares.run().found["fp32_nodes"] == SQUARES_ANSWER


def test_a_rule_that_hangs_does_not_keep_the_process_from_ending(squares: Bench) -> None:
    words = [*_rule(squares, "time.sleep(600)"), "--val_timeout", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "topsideas", *squares.words(*words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "within 1 s" in done.stderr


def test_numpys_booleans_are_booleans(squares: Bench) -> None:
    rule = _rule(squares, "np.allclose(outputs[0], reference[0], 1e-2, 1e-2) == np.bool_(True)")
    assert squares.run(*rule).found["fp32_nodes"] == SQUARES_ANSWER


def test_a_sample_that_changes_during_the_run_is_found(squares: Bench) -> None:
    """The rule stands for whatever else writes there; sample 3 is not in memory yet."""
    path = squares.samples / "sample3_inputs.npz"
    other = squares.folder / "other.npz"
    np.savez(other, **rows(seed=99))
    body = f"__import__('shutil').copy({str(other)!r}, {str(path)!r}) and True"
    outcome = squares.run(*_rule(squares, body), "--threads", "1")
    assert (outcome.code, outcome.report) == (2, None)
    assert "sample 3: its files changed during the run; expected the arrays" in outcome.err
    assert squares.run("--rtol", "0.02").code == 1  # its golden outputs are not of these inputs


def test_weights_that_change_during_the_run_spoil_no_later_run(tmp_path: Path) -> None:
    """Weights of a megabyte and more are read when they are needed, not at the start."""
    width = 1 << 18
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, width], bytes(16 * width), raw=True)
    model = parse(f"(float[N,4] x) => (float[N,{width}] y) {{ y = MatMul(x, w) }}")
    model.graph.initializer.append(weights)
    onnx.external_data_helper.convert_model_to_external_data(model, location="w.bin")
    bench = Bench(tmp_path)
    onnx.save(model, bench.model)
    bench.sample(0, rows())
    data = bench.folder / "w.bin"
    written = f"__import__('pathlib').Path({str(data)!r}).write_bytes(bytes({16 * width}))"
    body = f"bool({written})"
    outcome = bench.run(*_rule(bench, body))
    assert (outcome.code, outcome.report) == (2, None)
    assert f"{data}: changed during the run, so that its results may be of neither" in outcome.err
    data.write_bytes(bytes(16 * width))
    again = bench.run(*_rule(bench, "True"))
    assert again.code == 0
    assert again.found["search"]["evaluations"] > 0


@pytest.mark.parametrize("years", [-60, 60])
def test_clocks_that_jump_change_nothing(
    squares: Bench, monkeypatch: pytest.MonkeyPatch, years: int
) -> None:
    first = squares.run("--time_limit", "600")
    jumps, wall = itertools.count(), time.time
    monkeypatch.setattr(time, "time", lambda: wall() + next(jumps) * years * 3e7)
    for path in squares.workspace.rglob("*"):
        os.utime(path, (2e9 + years * 3e7,) * 2)
    again = squares.run("--time_limit", "600")
    assert again.found["search"]["evaluations"] == 0
    assert again.found["fp32_ops"] == first.found["fp32_ops"]


def test_of_two_runs_at_once_one_is_refused_and_nothing_is_lost(squares: Bench) -> None:
    rule = _rule(squares, "time.sleep(0.05) or np.allclose(outputs[0], reference[0], 1e-2, 1e-2)")
    words = [sys.executable, "-m", "topsideas", *squares.words(*rule)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(words, **pipes) for _ in range(2)]
    ended = [(process.communicate()[1], process.returncode) for process in both]
    refused = [err for err, code in ended if code == 2]
    assert sorted(code for _, code in ended) in ([0, 2], [0, 0])  # one may have been quicker
    assert all("the workspace is in use by another run" in err for err in refused)
    again = squares.run(*rule)
    assert again.found["fp32_nodes"] == SQUARES_ANSWER
    assert again.found["search"]["evaluations"] == 0


LINKS = [".topsideas", ".topsideas/lock", ".topsideas/journal.sqlite", ".topsideas/arrays"]
LINKS += [".topsideas/CACHEDIR.TAG", ".topsideas/.topsideas-tmp.workspace.json"]


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("there", [True, False])
def test_links_in_a_workspace_lead_nowhere(squares: Bench, name: str, there: bool) -> None:
    """A workspace that came with somebody's repository must not reach the user's own files."""
    outside = squares.folder / "outside"
    (outside / "folder").mkdir(parents=True)
    (outside / "file").write_text("precious")
    target = outside / ("folder" if name in LINKS[:4:3] else "file")
    link = squares.workspace / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target if there else outside / "new")
    before = squares.written()
    outcome = squares.run("--clean")
    assert (outcome.code, outcome.report) == (2, None)
    assert f"{link}: is a link, and nothing is written outside" in outcome.err or not there
    assert squares.written() == before
    assert (outside / "file").read_text() == "precious"


def test_what_a_listed_artefact_links_to_stays(squares: Bench) -> None:
    squares.run()
    precious = squares.file("precious", "mine")
    for name in ("fp16.executable", "irdump/tops_ir_dump_fp16.log"):
        (squares.workspace / name).unlink()
        (squares.workspace / name).symlink_to(precious)
    assert squares.run().code == 0
    assert precious.read_text() == "mine"
    assert not (squares.workspace / "fp16.executable").is_symlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk of a few kilobytes")
@pytest.mark.parametrize("kilobytes", [48, 100, 120])
def test_a_full_disk_hides_no_answer(squares: Bench, kilobytes: int) -> None:
    squares.workspace.mkdir()
    size = f"size={kilobytes}k"
    mount = ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(squares.workspace)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this system mounts nothing")
    try:
        outcome = squares.run()
        assert outcome.code in (0, 2)
        assert outcome.code == 0 or "full" in outcome.err or "No space left" in outcome.err
        assert "Traceback" not in outcome.err
    finally:
        subprocess.run(["umount", str(squares.workspace)], check=True)
    assert squares.run().found["fp32_nodes"] == SQUARES_ANSWER


def test_an_answer_is_shown_although_its_files_cannot_be_written(
    squares: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr("topsideas.cli.mix_precision.save_executables", full)
        outcome = squares.run()
    assert outcome.code == 2
    assert outcome.out.startswith("PASS  2 ops in fp32")
    assert "cannot write all files: No space left on device; expected a folder on" in outcome.err
    assert outcome.found["fp32_nodes"] == SQUARES_ANSWER
    assert outcome.found["notes"][-1].startswith("not all files were written: ")
    again = squares.run()
    assert (again.code, again.found["search"]["evaluations"]) == (0, 0)
