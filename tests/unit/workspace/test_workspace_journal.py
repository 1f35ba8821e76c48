from __future__ import annotations

import json
import logging
import math
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topsideas.errors import WorkspaceError
from topsideas.workspace import Workspace
from topsideas.workspace.journal import Journal

Open = Callable[..., Workspace]

_JSON = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def module_journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    journal = Journal(tmp_path_factory.mktemp("journal") / "journal.sqlite")
    yield journal
    journal.close()


@pytest.fixture
def database(root: Path) -> Path:
    return root / ".topsideas" / "journal.sqlite"


def _edit(database: Path, statement: str, *arguments: object) -> None:
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(statement, arguments)
    connection.close()


@settings(deadline=None, max_examples=60)
@given(_JSON, st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_round_trip(module_journal: Journal, value: object, key: str) -> None:
    module_journal.put("verdict", key, value)
    found = module_journal.get("verdict", key)
    assert json.dumps(found, sort_keys=True) == json.dumps(value, sort_keys=True)


def test_values_outlive_the_run(open_workspace: Open) -> None:
    workspace = open_workspace()
    workspace.put("verdict", "k", {"passed": True, "margin": 0.25})
    assert workspace.get("verdict", "k") == {"passed": True, "margin": 0.25}
    workspace = open_workspace()
    assert workspace.get("verdict", "k") == {"passed": True, "margin": 0.25}
    workspace.put("verdict", "k", [1, None])
    assert workspace.get("verdict", "k") == [1, None]


def test_kinds_and_keys_are_apart(open_workspace: Open) -> None:
    workspace = open_workspace()
    workspace.put("felt", "k", 1)
    assert workspace.get("verdict", "k") is None
    assert workspace.get("felt", "K") is None


@pytest.mark.parametrize("value", [math.nan, [math.inf], {"a": -math.inf}])
def test_values_that_json_has_no_number_for(open_workspace: Open, value: object) -> None:
    workspace = open_workspace()
    with pytest.raises(ValueError, match="not JSON compliant"):
        workspace.put("verdict", "k", value)
    assert workspace.get("verdict", "k") is None


@pytest.mark.parametrize("value", [np.float32(1), {1, 2}, b"x", {1: 2}])
def test_values_that_are_not_json(open_workspace: Open, value: object) -> None:
    with pytest.raises(TypeError, match=r"not JSON serializable|expected str"):
        open_workspace().put("verdict", "k", value)


def test_none_means_unknown(open_workspace: Open) -> None:
    with pytest.raises(ValueError, match="verdict k: None cannot be recorded"):
        open_workspace().put("verdict", "k", None)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("value", b"true"),
        ("value", b"fals"),
        ("value", b"\xff"),
        ("value", "false"),
        ("value", 0),
        ("checksum", b""),
        ("checksum", "\udcff".encode(errors="surrogateescape")),
        ("key", "other"),
        ("kind", "felt"),
    ],
)
def test_a_damaged_row_is_a_miss(
    open_workspace: Open,
    database: Path,
    caplog: pytest.LogCaptureFixture,
    column: str,
    value: object,
) -> None:
    workspace = open_workspace()
    workspace.put("verdict", "k", False)
    workspace.put("verdict", "sound", 1)
    workspace.close()
    _edit(database, f"UPDATE results SET {column} = ? WHERE key = 'k'", value)
    kind, key = ("felt" if column == "kind" else "verdict"), ("other" if column == "key" else "k")
    workspace = open_workspace()
    with caplog.at_level(logging.WARNING, "topsideas.workspace"):
        assert workspace.get(kind, key) is None
    assert f"journal.sqlite: the row {kind} {key} is damaged and dropped" in caplog.text
    caplog.clear()
    assert workspace.get(kind, key) is None
    assert not caplog.records
    assert workspace.get("verdict", "sound") == 1
    workspace.put(kind, key, 2)
    assert workspace.get(kind, key) == 2


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 500, b"SQLite"]
)
def test_a_damaged_database_is_moved_aside(
    open_workspace: Open, database: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    open_workspace().close()
    database.write_bytes(content)
    with caplog.at_level(logging.WARNING, "topsideas.workspace"):
        workspace = open_workspace()
    assert "journal.sqlite: the database is damaged (" in caplog.text
    assert "it is kept as journal.sqlite.damaged, and results are computed again" in caplog.text
    assert database.with_name("journal.sqlite.damaged").read_bytes() == content
    workspace.put("verdict", "k", 1)
    assert open_workspace().get("verdict", "k") == 1


def test_a_database_of_another_make(open_workspace: Open, database: Path) -> None:
    open_workspace().close()
    _edit(database, "DROP TABLE results")
    _edit(database, "CREATE TABLE results (a)")
    workspace = open_workspace()
    workspace.put("verdict", "k", 1)
    assert workspace.get("verdict", "k") == 1


def test_any_damage_to_the_database_loses_values_but_changes_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    for number in range(200):
        journal.put("verdict", str(number), {"n": number, "text": "x" * 100})
    journal.close()
    whole, random = path.read_bytes(), np.random.default_rng(0)
    caplog.set_level(logging.CRITICAL, "topsideas.workspace")
    for round_number in range(40):
        content = bytearray(whole)
        for place in random.integers(0, len(whole), 200):
            content[place] = random.integers(0, 256)
        if round_number % 4 == 0:
            content = content[: random.integers(0, len(whole))]
        path.write_bytes(content)
        journal = Journal(path)
        for number in range(0, 200, 7):
            found = journal.get("verdict", str(number))
            assert found in (None, {"n": number, "text": "x" * 100})
            journal.put("verdict", str(number), number)
            assert journal.get("verdict", str(number)) == number
        journal.close()


def test_a_full_disk(open_workspace: Open) -> None:
    workspace = open_workspace()
    connection = workspace._journal._database
    connection.execute("PRAGMA max_page_count = 8").fetchone()

    def fill() -> None:
        for number in range(100):
            workspace.put("verdict", str(number), "x" * 4000)

    with pytest.raises(WorkspaceError) as caught:
        fill()
    assert "journal.sqlite: cannot be used: database or disk is full; expected a disk" in str(
        caught.value
    )
    assert workspace.get("verdict", "0") == "x" * 4000


def test_a_database_that_another_program_holds(
    open_workspace: Open, database: Path, root: Path, fingerprint: dict[str, object]
) -> None:
    open_workspace().close()
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(WorkspaceError, match=r"database is locked; expected .* no other program"):
        Workspace.open(root, fingerprint)
    holder.close()
    open_workspace()


def test_a_folder_in_the_databases_place(open_workspace: Open, database: Path) -> None:
    database.mkdir(parents=True)
    with pytest.raises(WorkspaceError, match="unable to open database file; expected a disk"):
        open_workspace()


def test_use_after_closing_is_an_error_and_moves_nothing(
    open_workspace: Open, database: Path
) -> None:
    workspace = open_workspace()
    workspace.put("verdict", "k", 1)
    workspace.close()
    with pytest.raises(sqlite3.ProgrammingError):
        workspace.get("verdict", "k")
    assert open_workspace().get("verdict", "k") == 1
    assert not database.with_name("journal.sqlite.damaged").exists()


def test_threads_share_a_workspace(open_workspace: Open) -> None:
    workspace = open_workspace()

    def use(number: int) -> bool:
        workspace.put("verdict", str(number), number)
        return workspace.get("verdict", str(number)) == number

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(use, range(200)))


_KILLED = """
import sys
import numpy as np
from topsideas.workspace import Workspace
workspace = Workspace.open(sys.argv[1], {"model": "abc"})
number = int(sys.argv[2])
while True:
    workspace.put("verdict", str(number), {"n": number, "text": "x" * 500})
    workspace.put_arrays("trace", f"k{number % 10}", {"x": np.full(50000, number)})
    workspace.write_atomic("deploy.onnx", str(number).encode() * 100000)
    print(number, flush=True)
    number += 1
"""


def test_a_killed_run_loses_nothing_that_it_acknowledged(root: Path) -> None:
    start = 0
    for acknowledged in (3, 40, 11):
        arguments = [sys.executable, "-c", _KILLED, str(root), str(start)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(acknowledged)]
            process.kill()
            lines += process.stdout.read().split("\n")[:-1]
        start = int(lines[-1]) + 1
        with Workspace.open(root, {"model": "abc"}) as workspace:
            for number in range(start):
                found = workspace.get("verdict", str(number))
                assert found == {"n": number, "text": "x" * 500}
            for digit in range(10):
                arrays = workspace.get_arrays("trace", f"k{digit}")
                assert arrays is None or len(np.unique(arrays["x"])) == 1
            last = (root / "deploy.onnx").read_bytes()
            assert last in {str(n).encode() * 100000 for n in (start - 1, start)}
        assert [p.name for p in root.iterdir() if "tmp" in p.name] == []
