"""``onnx report`` and ``onnx compare`` through the real command line."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from e2e_bench import Bench, plain_bench, run_words, squares_bench

HOSTILE = "=cmd|' /C calc'!A0\x1b[31m<script>|`x`"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A searched model whose square overflows; its report is written."""
    found = squares_bench(tmp_path_factory.mktemp("report"))
    assert found.run("--overflow", "inf", target="onnx").code == 0
    return found


def changed(bench: Bench, name: str, **fields: Any) -> Path:
    """A copy of the report with some fields exchanged."""
    report = json.loads(bench.json.read_text("utf-8"))
    path = bench.folder / name
    path.write_text(json.dumps(report | fields), encoding="utf-8")
    return path


def hostile(bench: Bench) -> Path:
    report = json.loads(bench.json.read_text("utf-8"))
    kept = [op | {"name": HOSTILE} for op in report["fp32_ops"]]
    evidence = report["evidence"]
    evidence["ops"] = [op | {"name": HOSTILE} for op in evidence["ops"]]
    return changed(bench, "hostile.json", fp32_ops=kept, evidence=evidence)


MEAN = """(float[N,500] x) => (float[N,1] y) <float tenth = {0.1}> {
    [average] m = ReduceMean <axes = [1]> (x)
    [small] y = Mul(m, tenth)
}"""
"""A mean of 500 values whose sum does not fit fp16."""


def test_sums_that_some_devices_overflow_are_told_with_the_remedy(tmp_path: Path) -> None:
    bench = plain_bench(tmp_path, MEAN, {"x": np.full((2, 500), 200, np.float32)})
    loose = ["--overflow", "inf", "--rtol", "1e-2"]
    found = bench.run(*loose, target="onnx").found
    assert found["fp32_nodes"] == []
    assert found["evidence"]["ops"][0]["inside"] == pytest.approx(1e5)
    assert "inside" not in found["evidence"]["ops"][1]
    told = [note for note in found["notes"] if note.startswith("sums inside low ops exceed 65504")]
    assert len(told) == 1
    assert "(0 ReduceMean 1e+05): devices that hold them in fp16" in told[0]
    remedy = re.search("--compile_options '(.*)' searches", told[0])
    assert remedy is not None
    other = ["--clean", "--compile_options", remedy[1]]
    found = bench.run(*loose, *other, target="onnx").found
    assert found["fp32_nodes"] == [0]
    assert not any("sums inside" in note for note in found["notes"])


class TestReport:
    def test_text_is_what_the_run_printed(self, bench: Bench) -> None:
        printed = bench.run("--overflow", "inf", target="onnx").out
        code, out, _ = run_words(["onnx", "report", str(bench.json)])
        assert code == 0
        assert out == printed
        target = bench.folder / "report.txt"
        code, _, _ = run_words(["onnx", "report", str(bench.json), "--output", str(target)])
        assert code == 0
        lines = [line.rstrip() for line in printed.splitlines()]
        assert target.read_text("utf-8").splitlines() == lines

    def test_verbose_tells_each_cause_in_full(self, bench: Bench) -> None:
        _, out, _ = run_words(["gcu", "report", str(bench.json), "-v"])
        assert "output overflow: it writes up to" in out
        assert "beyond the largest fp16 number 65504" in out

    def test_csv_has_a_row_per_op_and_no_formulas(self, bench: Bench) -> None:
        _, out, _ = run_words(["onnx", "report", str(hostile(bench)), "--format", "csv"])
        rows = list(csv.DictReader(io.StringIO(out)))
        assert [row["id"] for row in rows] == ["0", "1", "2", "3"]
        assert [row["runs_in"] for row in rows] == ["low", "fp32", "fp32", "low"]
        assert [row["cause"] for row in rows] == ["", "output_overflow", "input_overflow", ""]
        assert float(rows[1]["largest"]) > 65504
        assert all(row["name"].startswith("'=cmd|") for row in rows)
        assert "\x1b" not in out

    def test_markdown_shows_names_as_they_are(self, bench: Bench) -> None:
        _, out, _ = run_words(["onnx", "report", str(hostile(bench)), "--format", "md"])
        assert "# PASS  2 ops in fp32" in out
        assert "\x1b" not in out
        assert r"\<script\>\|\`x\`" in out
        assert "<script>" not in out

    @pytest.mark.parametrize(
        ("content", "text"),
        [
            (b"{", "not valid JSON"),
            (b'{"schema_version": NaN}', "NaN is no JSON"),
            (b"[1]", "is no report"),
            (b"{}", "is no report"),
            (b'{"schema_version": 7}', "has schema_version 7, this version of topsideas reads 1"),
            (b'{"schema_version": 1}', "no complete report, topsideas_version, mode"),
            (b"[" * 100_000, "not valid JSON"),
            (b"\xff\xfe", "cannot be read as a report"),
        ],
    )
    @pytest.mark.parametrize("command", ["report", "compare"])
    def test_what_is_no_report_is_refused(
        self, tmp_path: Path, command: str, content: bytes, text: str
    ) -> None:
        path = tmp_path / "x.json"
        path.write_bytes(content)
        words = [str(path)] * (2 if command == "compare" else 1)
        code, out, err = run_words(["onnx", command, *words])
        assert (code, out) == (2, "")
        assert text in err

    @pytest.mark.parametrize("form", ["text", "html", "md", "csv"])
    def test_what_was_changed_by_hand_is_no_traceback(self, bench: Bench, form: str) -> None:
        path = changed(bench, "wrong.json", fp32_ops=[3])
        code, _, err = run_words(["onnx", "report", str(path), "--format", form])
        assert code == 2
        assert "is not as a report should be" in err

    def test_numbers_of_hundreds_of_digits_are_no_bug_of_ours(self, bench: Bench) -> None:
        path = changed(bench, "huge.json", margin=10**400)
        for form in ("text", "html", "md", "csv"):
            code, _, err = run_words(["onnx", "report", str(path), "--format", form])
            assert code in (0, 2), err
        code, _, err = run_words(["onnx", "compare", str(path), str(bench.json)])
        assert code == 2
        assert "is not as a report should be (OverflowError" in err

    def test_a_file_of_yours_is_not_overwritten_by_a_page(self, bench: Bench) -> None:
        words = ["onnx", "report", str(bench.json), "--format", "html", "--output"]
        before = bench.json.read_bytes()
        code, _, err = run_words([*words, str(bench.json)])
        assert code == 2
        assert "exists and is no report" in err
        assert bench.json.read_bytes() == before


class TestCompare:
    def test_the_same_report_is_the_same(self, bench: Bench) -> None:
        code, out, _ = run_words(["onnx", "compare", str(bench.json), str(bench.json)])
        assert code == 0
        assert out.startswith("SAME  verdict and plan")
        assert "margins of all outputs that both have are equal" in out

    def test_another_tolerance_and_what_it_changed(self, bench: Bench) -> None:
        other = bench.folder / "other.json"
        loose = ("--rtol", "1e9", "--output_json", other)
        assert bench.run(*loose, "--clean", target="gcu").code == 0
        words = ["onnx", "compare", str(bench.json), str(other)]
        bench.run("--overflow", "inf", "--clean", target="onnx")
        code, out, _ = run_words(words)
        assert code == 1
        assert out.startswith("DIFFERENT  plan")
        assert "options.rtol" in out
        assert "options.overflow" in out
        assert "ops in fp32 in A only: 2" in out
        code, out, _ = run_words([*words, "--format", "json"])
        found = json.loads(out)
        assert code == 1
        assert found["differs"] == ["plan"]
        assert found["matched_by"] == "id"
        assert [op["left_id"] for op in found["plan"]["left"]] == [1, 2]
        assert [op["left_cause"] for op in found["plan"]["left"]] == [
            "output_overflow",
            "input_overflow",
        ]

    def test_an_engine_version_that_turns_the_verdict(self, bench: Bench) -> None:
        report = json.loads(bench.json.read_text("utf-8"))
        engine = report["engine"] | {"version": "2.0"}
        outputs = report["model_outputs"]
        outputs[0]["y"]["fp16_golden"] |= {"margin": None, "result": "fail"}
        other = changed(
            bench, "new.json", engine=engine, verdict="fail", margin=None, model_outputs=outputs
        )
        code, out, _ = run_words(["onnx", "compare", str(bench.json), str(other)])
        assert code == 1
        assert out.startswith("DIFFERENT  verdict")
        assert "engine.version" in out
        assert re.search(r"0 +y +\S+ +not finite", out)

    def test_other_models_are_matched_by_name(self, bench: Bench) -> None:
        report = json.loads(bench.json.read_text("utf-8"))
        model = report["model"] | {"sha256": "1" * 64}
        kept = [op | {"id": op["id"] + 10} for op in report["fp32_ops"]]
        evidence = report["evidence"]
        evidence["ops"] = [op | {"id": op["id"] + 10} for op in evidence["ops"]]
        shifted = changed(
            bench, "m.json", model=model, fp32_ops=kept, evidence=evidence, op_statistic=[]
        )
        code, out, _ = run_words(["onnx", "compare", str(bench.json), str(shifted)])
        assert code == 0
        assert "2 ops in fp32 in both, matched by name" in out
        kept[0]["name"] = "another"
        evidence["ops"][1]["name"] = "another"
        renamed = changed(
            bench, "m2.json", model=model, fp32_ops=kept, evidence=evidence, op_statistic=[]
        )
        code, out, _ = run_words(["onnx", "compare", str(bench.json), str(renamed)])
        assert code == 1
        assert "ops in fp32 in A only: 1" in out
        assert "ops in fp32 in B only: 1" in out

    def test_markdown_and_files(self, bench: Bench) -> None:
        target = bench.folder / "found.md"
        words = ["onnx", "compare", str(hostile(bench)), str(bench.json), "--format", "md"]
        code, out, _ = run_words([*words, "--output", str(target)])
        assert (code, out) == (0, "")
        assert target.read_text("utf-8").startswith("# SAME  verdict and plan")


def terminal(words: list[str], columns: int, **environment: str) -> str:
    """What the command shows on a terminal of so many columns."""
    leader, follower = pty.openpty()
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "LC_ALL", "TERM")}
    process = subprocess.Popen(
        [sys.executable, "-m", "topsideas", *words],
        stdout=follower,
        stderr=follower,
        stdin=follower,
        env=plain | {"COLUMNS": str(columns), "TERM": "xterm-256color"} | environment,
    )
    os.close(follower)
    shown = b""
    while select.select([leader], [], [], 60)[0]:
        try:
            chunk = os.read(leader, 1 << 16)
        except OSError:  # the other side has closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(leader)
    assert process.wait(60) in (0, 1)
    return shown.decode("utf-8").replace("\r\n", "\n")


_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class TestConsole:
    @pytest.mark.parametrize("verbose", [[], ["-v"]])
    def test_nothing_but_commands_and_paths_is_wider_than_80_columns(
        self, bench: Bench, verbose: list[str]
    ) -> None:
        shown = terminal(["onnx", "report", str(hostile(bench)), *verbose], 80)
        lines = _ESCAPES.sub("", shown).splitlines()
        assert len(lines) > 15
        wide = [line for line in lines if len(line) > 80]
        assert all(str(bench.folder) in line for line in wide), wide

    def test_a_comparison_fits_too(self, bench: Bench) -> None:
        report = json.loads(bench.json.read_text("utf-8"))
        other = changed(bench, "c.json", engine=report["engine"] | {"device": "x" * 200})
        paths = [os.path.relpath(path, bench.folder) for path in (bench.json, other)]
        here = Path.cwd()
        os.chdir(bench.folder)
        try:
            shown = terminal(["onnx", "compare", *paths], 80)
        finally:
            os.chdir(here)
        assert max(len(line) for line in _ESCAPES.sub("", shown).splitlines()) <= 80

    def test_colours_are_only_where_they_are_wanted(self, bench: Bench) -> None:
        words = ["onnx", "report", str(bench.json)]
        assert "\x1b[1;32m" in terminal(words, 80)
        assert "\x1b[1;32m" not in terminal(words, 80, NO_COLOR="1")
        assert "\x1b" not in terminal(words, 80, TERM="dumb")

    def test_names_that_a_terminal_would_obey_are_shown(self, bench: Bench) -> None:
        shown = terminal(["onnx", "report", str(hostile(bench))], 120, TERM="dumb")
        assert "\x1b" not in shown
        assert "\\x1b[31m" in shown

    def test_a_terminal_without_unicode_shows_escapes(self, bench: Bench) -> None:
        report = json.loads(bench.json.read_text("utf-8"))
        kept = [op | {"name": "牌照"} for op in report["fp32_ops"]]
        path = changed(bench, "unicode.json", fp32_ops=kept)
        plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        shown = terminal(["onnx", "report", str(path)], 100, **plain)
        assert "\\u724c\\u7167" in shown
        assert "牌照" in terminal(["onnx", "report", str(path)], 100)
