"""What only a process of its own shows: start-up, signals, pipes and terminals."""

from __future__ import annotations

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from e2e_bench import GENTLE, WEAR, Bench, plain_bench, read_report, rows, run_words

import topsideas

TIGHT = ("--rtol", "1e-3", "--atol", "0")
SLOW_RULE = """
import time
from pathlib import Path
import numpy as np

CALLS = Path(__file__).with_name("calls")

def check(reference, outputs):
    with CALLS.open("a") as file:
        file.write("x")
    time.sleep(0.1)
    return np.allclose(outputs[0], reference[0], rtol=1e-3, atol=0)
"""


def slow_bench(folder: Path) -> tuple[Bench, list[str]]:
    """A search of which every judgement takes a while; the words that start it."""
    bench = plain_bench(folder, WEAR, rows(), rows(seed=1))
    rule = bench.file("rule.py", SLOW_RULE)
    return bench, ["--val_func", f"{rule}:check", *TIGHT, "--threads", "1"]


def start(bench: Bench, words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "topsideas", *bench.words(*words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background may ignore the signal, which a child would inherit.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_calls(bench: Bench, count: int) -> None:
    calls, deadline = bench.folder / "calls", time.monotonic() + 60
    while not calls.exists() or calls.stat().st_size < count:
        assert time.monotonic() < deadline, "the search did not get so far"
        time.sleep(0.02)


def recorded_verdicts(bench: Bench) -> int:
    database = sqlite3.connect(bench.workspace / ".topsideas" / "journal.sqlite")
    try:
        (count,) = database.execute(
            "SELECT count(*) FROM results WHERE kind = 'verdict'"
        ).fetchone()
    finally:
        database.close()
    return int(count)


# --- start-up -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    [[sys.executable, "-m", "topsideas"], [str(Path(sys.executable).with_name("topsideas"))]],
    ids=["module", "script"],
)
def test_the_program_starts_as_a_module_and_as_a_script(program: list[str]) -> None:
    done = subprocess.run([*program, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"topsideas {topsideas.__version__}\n",
        "",
    )


def test_help_and_usage_errors_load_nothing_heavy() -> None:
    script = """
import sys
from topsideas.cli import main
for line in ("--help", "--version", "gcu --help", "gcu mix_precision --help",
             "onnx mix_precision -h", "", "gcu", "gcu mix_precision --mode x"):
    try:
        main(line.split())
    except SystemExit:
        pass
heavy = {"numpy", "onnx", "onnx_ir", "onnxruntime", "ml_dtypes", "sqlite3"} & set(sys.modules)
sys.exit(f"loaded: {sorted(heavy)}" if heavy else 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", ["gcu", "onnx"])
def test_help_shows_every_flag_in_its_group(target: str) -> None:
    code, out, err = run_words([target, "mix_precision", "--help"])
    groups = {
        "General": "manual input_onnx sample_dir workspace clean output_json fp32_nodes finalize "
        "list_ops quiet verbose",
        "Compile": "engine precision overflow compile_options resource_mode min_shapes max_shapes",
        "Run": "device cluster threads",
        "Search": "max_evaluations time_limit margin val_func val_scope holdout",
        "Statistic": "mode rtol atol ntol cos_sim le_value_thres ge_value_thres op_id_filter "
        "op_id_bypass op_type_filter op_type_bypass",
    }
    assert (code, err) == (0, "")
    places = [out.index(f"{group} Arguments:") for group in groups]
    assert places == sorted(places)
    for place, end, flags in zip(places, [*places[1:], len(out)], groups.values(), strict=True):
        for flag in flags.split():
            assert f"--{flag}" in out[place:end]
    default = {"gcu": "saturate", "onnx": "inf"}[target]
    assert f"on the emulator {default} for this target" in " ".join(out.split())
    assert "exit codes: 0 accuracy reached, 1 not reached, 2 bad usage or input," in out


def test_a_pipe_that_is_closed_early_is_no_error(tmp_path: Path) -> None:
    bench = plain_bench(tmp_path, GENTLE)
    line = " ".join(bench.words("--list_ops"))
    done = subprocess.run(
        f"{sys.executable} -m topsideas {line} | true",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_a_terminal_sees_progress_and_a_quiet_one_does_not(tmp_path: Path) -> None:
    bench = plain_bench(tmp_path, WEAR, rows())
    for word, seen in (("-v", "statistics "), ("--quiet", "")):
        reader, terminal = pty.openpty()
        done = subprocess.run(
            [sys.executable, "-m", "topsideas", *bench.words(*TIGHT, word, "--clean")],
            stdout=subprocess.PIPE,
            stderr=terminal,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
            text=True,
            check=False,
        )
        os.close(terminal)
        shown = _drained(reader)
        assert done.returncode == 0
        assert seen in shown
        assert bool(shown) == bool(seen)
        assert "\x1b" not in done.stdout


def _drained(reader: int) -> str:
    """All that was written to a pseudo terminal whose other end is closed."""
    parts = []
    while True:
        try:
            part = os.read(reader, 1 << 16)
        except OSError:  # how Linux says that nobody holds the other end
            part = b""
        if not part:
            os.close(reader)
            return b"".join(parts).decode()
        parts.append(part)


# --- interruptions ------------------------------------------------------------------------------


def test_a_killed_search_is_resumed_and_repeats_nothing_that_was_recorded(tmp_path: Path) -> None:
    bench, words = slow_bench(tmp_path / "killed")
    process = start(bench, words)
    try:
        wait_for_calls(bench, 5)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not bench.json.exists()
    known = recorded_verdicts(bench)
    resumed = bench.run(*words)
    search = resumed.found["search"]
    assert resumed.code == 0
    assert known >= 2
    assert sum(q["recalled"] for q in search["trace"]) == known
    # A verdict that was judged again would replace its row: fewer new rows than evaluations.
    assert search["evaluations"] == recorded_verdicts(bench) - known > 0
    undisturbed = plain_bench(tmp_path / "whole", WEAR, rows(), rows(seed=1)).run(*TIGHT)
    assert resumed.found["fp32_nodes"] == undisturbed.found["fp32_nodes"]
    assert search["one_minimal"]


def test_ctrl_c_prints_and_writes_the_best_valid_plan_so_far(tmp_path: Path) -> None:
    bench, words = slow_bench(tmp_path)
    process = start(bench, words)
    try:
        wait_for_calls(bench, 6)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    report = read_report(bench.json)
    assert report is not None, err
    assert process.returncode == 130
    assert err == ""
    assert report["search"]["stopped"] == "interrupted"
    assert report["search"]["one_minimal"] is False
    assert report["verdict"] == "pass"
    assert out.startswith("PASS  ")
    assert "not minimal (interrupted)" in out
    assert report["op_statistic"] == []
    again = bench.run(*words)
    assert again.code == 0
    assert len(again.found["fp32_nodes"]) <= len(report["fp32_nodes"])
    assert any(q["recalled"] for q in again.found["search"]["trace"])


def test_an_interrupted_manual_run_exits_130_and_says_so(tmp_path: Path) -> None:
    bench, words = slow_bench(tmp_path)
    process = start(bench, ["--manual", *words])
    try:
        wait_for_calls(bench, 1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "topsideas: interrupted\n")
    assert not bench.json.exists()
    assert json.loads((bench.workspace / ".topsideas" / "workspace.json").read_text())
