"""A workspace of which any bit of any file changed: results are lost or right, never wrong."""

from __future__ import annotations

import copy
import os
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.e2e_bench import SQUARES_ANSWER, Bench, squares_bench
from tests.trust.killing import lasting

FLIPS = 400 if os.environ.get("TOPSIDEAS_FULL") else 16
# What a run may say instead of an answer.
REFUSALS = ("the workspace's record is damaged", "was not written by topsideas", "has format")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bench whose workspace holds everything that a run leaves."""
    bench = squares_bench(tmp_path_factory.mktemp("sound"))
    assert bench.run("--manual").code == 1
    assert bench.run("--finalize").code == 0
    assert bench.run().code == 0
    return bench


def _flipped(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _files(bench: Bench) -> Iterator[Path]:
    return (p for p in sorted(bench.workspace.rglob("*")) if p.is_file() and p.stat().st_size)


def _copy(sound: Bench, folder: Path) -> Bench:
    """The same model and samples with a workspace of its own."""
    bench = Bench(folder)
    shutil.copytree(sound.workspace, bench.workspace)
    bench.model, bench.samples = sound.model, sound.samples
    return bench


@cache
def _expected(sound: Bench) -> dict[str, Any]:
    return lasting(sound.run().found)


def _check(bench: Bench, sound: Bench, spoilt: Path) -> None:
    outcome = bench.run()
    if outcome.code == 2:
        assert any(text in outcome.err for text in REFUSALS), (spoilt, outcome.err)
        # Files that may be the user's are not overwritten, but the answer is told.
        assert outcome.report is None or outcome.report["fp32_nodes"] == SQUARES_ANSWER
        return
    expected, found = copy.deepcopy(_expected(sound)), lasting(outcome.found)
    for op, told in zip(expected["fp32_ops"], found["fp32_ops"], strict=True):
        if told["felt_margin"] is None:  # a row that was lost is not known, and not another value
            op["felt_margin"] = None
    assert (outcome.code, outcome.err) == (0, ""), spoilt
    assert found == expected, spoilt


def test_a_flipped_bit_in_any_file_changes_no_result(sound: Bench, tmp_path: Path) -> None:
    """Once in every file, then at random places."""
    rng = random.Random(0)
    files = [p.relative_to(sound.workspace) for p in _files(sound)]
    assert {"journal.sqlite", "manifest.json", "workspace.json"} <= {p.name for p in files}
    for number in range(max(FLIPS, len(files))):
        name = files[number] if number < len(files) else rng.choice(files)
        bench = _copy(sound, tmp_path / f"flip{number}")
        _flipped(bench.workspace / name, rng)
        _check(bench, sound, name)


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_file_that_was_cut_changes_no_result(sound: Bench, tmp_path: Path, cut: int) -> None:
    """All files that hold results at once, as after a crash of the machine."""
    bench = _copy(sound, tmp_path)
    for path in _files(bench):
        if path.name not in ("workspace.json", "manifest.json"):
            path.write_bytes(path.read_bytes()[:cut])
    _check(bench, sound, bench.workspace)


# --- a journal that somebody edited -------------------------------------------------------------

_ROWS = "SELECT kind, key, value, checksum FROM results"
Rows = list[tuple[str, str, bytes, bytes]]


def _swapped(database: sqlite3.Connection, rows: Rows) -> None:
    """Each row gets the value and the checksum of the next one."""
    for (kind, key, *_), (*_, value, checksum) in zip(rows, rows[1:] + rows[:1], strict=True):
        update = "UPDATE results SET value = ?, checksum = ? WHERE kind = ? AND key = ?"
        database.execute(update, (value, checksum, kind, key))


def _doubled(database: sqlite3.Connection, rows: Rows) -> None:
    """Every row is there again, under the key of the next one of its kind and under a new key."""
    for kind, key, value, checksum in rows:
        for other in [f"{key}x", *(k for name, k, *_ in rows if name == kind and k != key)][:2]:
            insert = "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)"
            database.execute(insert, (kind, other, value, checksum))


def _emptied(database: sqlite3.Connection, _: Rows) -> None:
    database.execute("UPDATE results SET value = x'', checksum = x''")


def _another(database: sqlite3.Connection, _: Rows) -> None:
    database.execute("DROP TABLE results")
    database.execute("CREATE TABLE results (a INTEGER)")


def _refusing(database: sqlite3.Connection, _: Rows) -> None:
    """SQL that came with the file would run at each verdict."""
    database.execute(
        "CREATE TRIGGER t BEFORE INSERT ON results BEGIN SELECT RAISE(ABORT, 'no'); END"
    )


def _forgetting(database: sqlite3.Connection, _: Rows) -> None:
    database.execute("CREATE TRIGGER t AFTER INSERT ON results BEGIN DELETE FROM results; END")


@pytest.mark.parametrize("edit", [_swapped, _doubled, _emptied, _another, _refusing, _forgetting])
def test_a_journal_that_was_edited_changes_no_result(
    sound: Bench, tmp_path: Path, edit: Callable[[sqlite3.Connection, Rows], None]
) -> None:
    bench = _copy(sound, tmp_path)
    journal = next(bench.workspace.rglob("journal.sqlite"))
    database = sqlite3.connect(journal)
    edit(database, database.execute(_ROWS).fetchall())
    database.commit()
    database.close()
    _check(bench, sound, journal)
    assert bench.run().found["search"]["evaluations"] == 0  # what was lost is on record again


@pytest.mark.parametrize("part", ["page removed", "pages exchanged", "twice", "of another run"])
def test_a_journal_of_parts_changes_no_result(sound: Bench, tmp_path: Path, part: str) -> None:
    bench = _copy(sound, tmp_path / "bench")
    journal = next(bench.workspace.rglob("journal.sqlite"))
    content = journal.read_bytes()
    pages = [content[i : i + 4096] for i in range(0, len(content), 4096)]
    if part == "of another run":
        other = squares_bench(tmp_path / "other", 3)
        other.run()
        content = next(other.workspace.rglob("journal.sqlite")).read_bytes()
    elif part == "twice":
        content *= 2
    else:
        pages[1:3] = pages[2:3] if part == "page removed" else pages[2:0:-1]
        content = b"".join(pages)
    journal.write_bytes(content)
    _check(bench, sound, journal)
