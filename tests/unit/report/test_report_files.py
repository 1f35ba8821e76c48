"""Writing a report, and how numbers and names are written for people."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from topsideas.errors import UsageError
from topsideas.report.files import check_target, write_json
from topsideas.report.text import count, number, printable, share


def test_a_report_is_written_whole_and_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for report in ({"name": "牌照"}, {"name": "\udcff", "value": None}):
        write_json(report, path)
        assert json.loads(path.read_text("utf-8")) == report
        assert list(tmp_path.iterdir()) == [path]
    write_json({"name": "牌照"}, path)
    assert "牌照" in path.read_text("utf-8")


def test_a_large_report_takes_no_memory_to_write(tmp_path: Path) -> None:
    """Samples by the thousand make reports of many megabytes."""
    row = {"name": "n" * 60, "value": 0.5}
    report = {"rows": [row] * 20_000}
    tracemalloc.start()
    try:
        write_json(report, tmp_path / "report.json")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "report.json").stat().st_size > 2_000_000
    assert peak < 500_000


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_json_is_never_written(tmp_path: Path, value: float) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json({"value": value}, path)
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "is a folder, expected the path of a file"),
        ("no/report.json", "no such folder .*no; expected a path in a folder that exists"),
        ("file/report.json", "no such folder .*file; expected a path in a folder that exists"),
    ],
)
def test_a_path_that_cannot_be_written_is_refused_beforehand(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=text):
        check_target(str(tmp_path / name))


def test_a_folder_that_vanishes_meanwhile_is_named(tmp_path: Path) -> None:
    check_target(None)
    check_target(str(tmp_path / "report.json"))
    gone = tmp_path / "gone" / "report.json"
    with pytest.raises(UsageError, match=r"cannot write the report to .*: No such file"):
        write_json({}, gone)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match=r"cannot write the report to .*: Not a directory"):
        write_json({}, tmp_path / "file" / "report.json")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0, "0"), (1.0, "1"), (0.123456, "0.1235"), (123456.0, "1.235e+05")],
)
def test_numbers_have_four_digits(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_a_missing_number_may_be_called_otherwise() -> None:
    assert number(None, "not finite") == "not finite"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (1e-9, "<0.01 %"), (1e-4, "0.01 %"), (0.5, "50 %"), (1, "100 %")],
)
def test_a_share_never_rounds_something_to_nothing(value: float, shown: str) -> None:
    assert share(value) == shown


def test_counts_are_shown_of_their_whole() -> None:
    assert count(3, 12) == "3 of 12"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("encoder/Mul_3", "encoder/Mul_3"),
        ("牌照 é", "牌照 é"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\r\n\tb", r"a\x0d\x0a\x09b"),
        ("\u202etxt", r"\x202etxt"),
        ("\udcff", r"\xdcff"),
    ],
)
def test_control_characters_are_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert printable(text) == shown
