"""Where the command runs: streams, signals, devices, encodings, and paths that are somebody's."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.e2e_bench import SQUARES_ANSWER, Bench, run_words, squares_bench
from topsideas.cli.mix_precision import _Run

FAILS = "FAIL  all candidate ops in low precision"


@pytest.fixture
def squares(tmp_path: Path) -> Bench:
    return squares_bench(tmp_path)


def _run(
    words: list[str], shell: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the program with redirections of a shell."""
    inner = f'"$@" {shell}'
    return subprocess.run(
        ["bash", "-c", inner, "bash", sys.executable, "-m", "topsideas", *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


# --- streams ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shell", [">&-", "2>&-", "<&- >&- 2>&-", "| head -c 1; exit ${PIPESTATUS[0]}"]
)
def test_a_stream_that_is_closed_changes_neither_verdict_nor_files(
    squares: Bench, shell: str
) -> None:
    """What is opened next must not get the number of a stream, or a runtime prints into it."""
    assert _run(squares.words("--manual"), shell).returncode == 1
    assert json.loads(squares.json.read_text("utf-8"))["verdict"] == "fail"
    assert squares.run().found["fp32_nodes"] == SQUARES_ANSWER


def test_a_reader_that_leaves_does_not_make_two_reports_the_same(
    squares: Bench, tmp_path: Path
) -> None:
    squares.run("--manual")
    other = tmp_path / "other.json"
    other.write_bytes(squares.json.read_bytes())
    squares.run()
    words = ["onnx", "compare", str(squares.json), str(other), "--format", "json"]
    done = _run(words, "| true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stderr) == (1, "")


# --- signals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_what_ends_a_job_keeps_what_was_found(squares: Bench, name: str) -> None:
    """A scheduler, a container or a terminal that closes, in the middle of a search."""
    mark = squares.folder / "asked"
    text = "import pathlib, time\nimport numpy as np\n\ndef check(reference, outputs):\n"
    text += f"    pathlib.Path({str(mark)!r}).open('a').write('x')\n    time.sleep(0.2)\n"
    text += "    return bool(np.allclose(outputs[0], reference[0], 1e-2, 1e-2))\n"
    words = squares.words("--val_func", f"{squares.file('rule.py', text)}:check")
    process = subprocess.Popen(
        [sys.executable, "-m", "topsideas", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Under nohup the tests, and what they start, would not hear of a terminal that closes.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    while process.poll() is None and (not mark.exists() or mark.stat().st_size < 8):
        time.sleep(0.01)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out.startswith("PASS")
    found = json.loads(squares.json.read_text("utf-8"))
    assert found["search"]["stopped"] == "interrupted"


# --- outputs ------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a device")
def test_a_device_is_written_into_and_never_replaced(squares: Bench, tmp_path: Path) -> None:
    """As root, a file that is moved to /dev/null takes its place, for the whole machine."""
    null, full = tmp_path / "null", tmp_path / "full"
    try:
        os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(full, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
        null.open("rb").close()
    except OSError:
        pytest.skip("this system makes no devices")
    squares.run()
    report = ["onnx", "report", str(squares.json), "--format", "md", "--output"]
    assert run_words([*report, str(null)])[0] == 0
    code, _, err = run_words([*report, str(full)])
    assert (code, "No space left on device" in err) == (2, True)
    convert = ["onnx", "convert", "--input_onnx", str(squares.model), "--output", str(null)]
    code, _, err = run_words(convert)
    assert (code, "is a device or a pipe, expected the file to write" in err) == (2, True)
    assert all(stat.S_ISCHR(path.stat().st_mode) for path in (null, full))


def test_a_pipe_gets_the_report(squares: Bench, tmp_path: Path) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    with subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE) as reader:
        outcome = squares.run("--output_json", pipe)
        content = reader.communicate(timeout=60)[0]
    assert outcome.code == 0
    assert json.loads(content)["fp32_nodes"] == SQUARES_ANSWER
    assert pipe.is_fifo()


MINE = [
    ("mine.json", '{"name": "my settings"}'),
    ("verdicts.json", '{"verdict": "pass"}'),
    ("compared.json", '{"schema_version": 1, "same_model": true}'),
]


@pytest.mark.parametrize(("name", "content"), MINE)
def test_json_of_the_user_is_no_older_report(squares: Bench, name: str, content: str) -> None:
    mine = squares.file(name, content)
    outcome = squares.run("--output_json", mine)
    assert outcome.code == 2
    assert f"{mine}: exists and is no report, so it is not overwritten" in outcome.err
    assert mine.read_text() == content


def test_options_that_are_read_are_not_written_over(squares: Bench) -> None:
    options = squares.file("options.json", "{}")
    outcome = squares.run("--compile_options", f"@{options}", "--output_json", options)
    assert outcome.code == 2
    assert options.read_text() == "{}"


def test_two_outputs_at_one_place_are_refused(squares: Bench) -> None:
    both = ["--output_json", squares.folder / "out", "--output_html", f"{squares.folder}/./out"]
    outcome = squares.run(*both)
    assert outcome.code == 2
    assert "--output_html" in outcome.err
    assert "is the file of --output_json too; expected another path" in outcome.err
    assert not (squares.folder / "out").exists()


def test_no_output_of_any_command_replaces_another_kind_of_file(squares: Bench) -> None:
    squares.run()
    model, report = squares.model.read_bytes(), squares.json.read_bytes()
    shown = ["onnx", "report", str(squares.json), "--format"]
    compared = ["onnx", "compare", str(squares.json), str(squares.json), "--format"]
    verify = ["onnx", "verify", "--plan", str(squares.json), "--input_onnx", str(squares.model)]
    for words in (
        *([*shown, form, "--output", str(squares.model)] for form in ("text", "md", "csv")),
        *([*compared, form, "--output", str(squares.json)] for form in ("text", "md", "json")),
        [*verify, "--sample_dir", str(squares.samples), "--output_json", str(squares.json)],
    ):
        code, _, err = run_words(words)
        assert (code, "so it is not overwritten" in err) == (2, True), words
    assert (squares.model.read_bytes(), squares.json.read_bytes()) == (model, report)
    target = str(squares.folder / "out")
    for words in (*([*shown, form] for form in ("text", "md", "csv")), [*compared, "json"]):
        for _ in range(2):  # its own is replaced
            assert run_words([*words, "--output", target])[0] == 0, words
        Path(target).unlink()


def test_links_in_a_circle_are_refused_as_outputs(squares: Bench) -> None:
    (circle := squares.folder / "circle").symlink_to("circle")
    outcome = squares.run("--output_json", circle)
    assert outcome.code in (0, 2)  # Python 3.10 to 3.12 see no file there
    assert "Traceback" not in outcome.err
    assert outcome.code == 0 or str(circle) in outcome.err


def test_a_file_that_appears_while_the_run_lasts_is_not_written_over(
    squares: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = squares.folder / "mine.json"
    written = _Run._written

    def meanwhile(*args: Any) -> Any:
        mine.write_text("{}")
        return written(*args)

    monkeypatch.setattr(_Run, "_written", meanwhile)
    outcome = squares.run("--output_json", mine)
    assert (outcome.code, mine.read_text()) == (2, "{}")
    assert outcome.out.startswith("PASS  2 ops in fp32")
    assert "exists and is no report, so it is not overwritten" in outcome.err


def test_an_artefact_is_not_replaced_by_a_report(squares: Bench) -> None:
    squares.workspace.mkdir()
    outcome = squares.run("--output_json", target := squares.workspace / "fp16.executable")
    assert outcome.code == 2
    assert outcome.out.startswith("PASS  2 ops in fp32")
    assert f"{target}: exists and is no report" in outcome.err
    assert squares.run().code == 0  # what was written there is the tool's own still


def test_the_path_of_a_variable_that_is_not_set_is_no_workspace(squares: Bench) -> None:
    outcome = squares.run("--workspace", "")
    assert outcome.code == 2
    assert "the path of the workspace is empty; expected a folder" in outcome.err


# --- environment --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"HOME": "/nonexistent", "TMPDIR": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"},
        {"COLUMNS": "many", "TERM": "dumb"},
    ],
    ids=lambda environment: next(iter(environment.items())),
)
def test_the_environment_changes_no_answer(squares: Bench, environment: dict[str, str]) -> None:
    done = _run(squares.words("--finalize"), **environment)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(squares.json.read_text("utf-8"))
    assert found["fp32_nodes"] == SQUARES_ANSWER
    assert Path(found["output_files"]["deploy_model"]).is_file()
