"""The workspace between runs: fingerprint, cleaning, lock, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from e2e_bench import GENTLE, SQUARES_ANSWER, Bench, parse, plain_bench, squares_bench

from topsideas.workspace import Workspace

OTHER = "the workspace belongs to another model or other options: "
REMEDY = "; pass --clean to empty it or use another --workspace"


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (["--overflow", "inf"], 'overflow was "saturate", is "inf"'),
        (["--precision", "bf16"], 'precision was "fp16", is "bf16"'),
        (["--resource_mode", "1c4s"], 'compile_options.resource_mode was not set, is "1c4s"'),
        (
            ["--compile_options", '{"subnormals": "flush"}'],
            'compile_options.subnormals was not set, is "flush"',
        ),
        (
            ["--min_shapes", "x:[1,4]", "--max_shapes", "x:[9,4]"],
            "min_shapes.x was not set, is [1,4]",
        ),
    ],
)
def test_other_options_are_refused_and_clean_makes_room(
    squares: Bench, words: list[str], difference: str
) -> None:
    squares.run()
    refused = squares.run(*words)
    assert (refused.code, refused.report) == (2, None)
    assert OTHER in refused.err
    assert difference in refused.err
    assert REMEDY in refused.err
    assert squares.run().found["search"]["evaluations"] == 0
    assert squares.run(*words, "--clean").code == 0


def test_another_model_is_refused_and_clean_makes_room(squares: Bench) -> None:
    squares.run()
    squares.model.write_bytes(parse(GENTLE).SerializeToString())
    refused = squares.run("--manual")
    assert refused.code == 2
    assert f"{OTHER}model was " in refused.err
    assert REMEDY in refused.err
    assert squares.run("--manual", "--clean").code == 1
    assert squares.run("--manual").code == 1


def test_the_tolerance_the_mode_and_the_samples_are_no_part_of_the_fingerprint(
    squares: Bench,
) -> None:
    for words in ((), ("--manual",), ("--rtol", "0.1"), ("--cos_sim", "0.9"), ("--finalize",)):
        assert squares.run(*words).err == ""
    squares.sample(5, {"x": np.ones((1, 4), np.float32)})
    assert squares.run().code == 0


def test_clean_removes_what_the_tool_wrote_and_keeps_what_the_user_put_there(
    squares: Bench,
) -> None:
    first = squares.run("--finalize")
    notes = squares.workspace / "notes.txt"
    notes.write_text("mine")
    (squares.workspace / "irdump" / "mine.log").write_text("mine")
    (squares.workspace / "mine").mkdir()
    again = squares.run("--clean")
    assert again.found["search"]["evaluations"] == first.found["search"]["evaluations"]
    assert not Path(first.found["output_files"]["deploy_model"]).exists()
    assert notes.read_text() == "mine"
    assert (squares.workspace / "irdump" / "mine.log").read_text() == "mine"
    assert (squares.workspace / "mine").is_dir()


def test_a_file_of_the_user_is_never_overwritten(squares: Bench) -> None:
    squares.workspace.mkdir()
    (squares.workspace / "deploy.onnx").write_text("mine")
    outcome = squares.run("--finalize")
    assert outcome.code == 2
    assert "deploy.onnx: exists and was not written by topsideas" in outcome.err
    assert "move it away or use another --workspace" in outcome.err
    assert (squares.workspace / "deploy.onnx").read_text() == "mine"
    assert squares.run().code == 0


def test_a_workspace_in_use_is_refused_and_free_again_afterwards(squares: Bench) -> None:
    squares.run()
    fingerprint = _fingerprint(squares)
    with Workspace.open(squares.workspace, fingerprint):
        refused = squares.run()
        assert (refused.code, refused.report) == (2, None)
        assert "the workspace is in use by another run; wait until it ends" in refused.err
        assert "use another --workspace" in refused.err
    assert squares.run().code == 0


def test_a_workspace_is_free_again_after_an_error(squares: Bench) -> None:
    rule = squares.file("rule.py", "def check(r, o):\n    raise OSError('no network')\n")
    assert squares.run("--val_func", f"{rule}:check").code == 2
    assert squares.run().found["fp32_nodes"] == SQUARES_ANSWER


@pytest.mark.parametrize("name", ["file", "file/inside"])
def test_a_workspace_that_cannot_be_a_folder_is_refused(squares: Bench, name: str) -> None:
    squares.file("file", "mine")
    outcome = squares.run("--workspace", squares.folder / name)
    assert outcome.code == 2
    assert f"{squares.folder / name}: " in outcome.err
    assert "expected a folder" in outcome.err
    assert (squares.folder / "file").read_text() == "mine"


def test_a_damaged_journal_is_a_miss_and_not_an_error(
    squares: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    squares.run()
    (squares.workspace / ".topsideas" / "journal.sqlite").write_bytes(b"not a database" * 100)
    outcome = squares.run()
    assert (outcome.code, outcome.found["fp32_nodes"]) == (0, SQUARES_ANSWER)
    assert outcome.found["search"]["evaluations"] > 0
    assert "journal.sqlite" in caplog.text


def test_a_damaged_record_of_what_it_belongs_to_names_the_way_out(squares: Bench) -> None:
    squares.run()
    (squares.workspace / ".topsideas" / "workspace.json").write_text("{}")
    outcome = squares.run()
    assert outcome.code == 2
    assert "the workspace's record is damaged" in outcome.err
    assert "pass --clean to start it afresh" in outcome.err
    assert squares.run("--clean").code == 0


def test_a_relative_workspace_with_spaces_works_and_the_next_command_quotes_it(
    squares: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(squares.folder)
    outcome = squares.run("--workspace", "my space")
    assert outcome.code == 0
    assert "--workspace 'my space' " in outcome.found["next_command"]
    assert (squares.folder / "my space" / "fp16.executable").is_file()


def test_nothing_is_written_outside_the_workspace_but_the_report(squares: Bench) -> None:
    rule = squares.file("rule.py", "def check(r, o):\n    return True\n")
    before = squares.written()
    for words in ((), ("--manual",), ("--finalize",), ("--val_func", f"{rule}:check")):
        squares.run(*words)
        assert squares.written() == before | {"report.json"}


def test_one_workspace_serves_another_folder_of_the_same_model(tmp_path: Path) -> None:
    first, second = squares_bench(tmp_path / "a"), squares_bench(tmp_path / "b")
    first.run()
    outcome = second.run("--workspace", first.workspace)
    assert outcome.found["search"]["evaluations"] == 0


def test_a_report_may_have_a_name_that_is_no_text(tmp_path: Path) -> None:
    bench = plain_bench(tmp_path, GENTLE)
    bench.json = tmp_path / "report\udcff.json"
    outcome = bench.run()
    assert outcome.code == 0
    assert outcome.found["options"]["output_json"].endswith("report\udcff.json")


def _fingerprint(bench: Bench) -> dict[str, object]:
    import json

    marker = json.loads((bench.workspace / ".topsideas" / "workspace.json").read_text())
    fingerprint: dict[str, object] = marker["fingerprint"]
    return fingerprint
