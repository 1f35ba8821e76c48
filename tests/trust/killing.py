"""Kills a search at random moments and looks at what the next run makes of it.

``python -m tests.trust.killing --kills 200`` records figures; the tests run a few. Each kill has a
workspace of its own. Between the kill and the next run a trigger is laid into the journal that
counts rows written again, so that a repeated evaluation cannot go unseen.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PLATE_READER = Path(__file__).parents[2] / "examples" / "plate_reader"

# Tight enough that the search asks some fifty questions of every kind.
TIGHT = ("--rtol", "2e-3", "--atol", "2e-3")
# What a search ended with is written each time it ends; all other kinds are measured once.
_REWRITTEN = "answer"
_WATCH = f"""
CREATE TABLE repeats (kind TEXT, key TEXT);
CREATE TRIGGER repeated BEFORE INSERT ON results
WHEN NEW.kind != '{_REWRITTEN}'
    AND EXISTS (SELECT 1 FROM results WHERE kind = NEW.kind AND key = NEW.key)
BEGIN INSERT INTO repeats VALUES (NEW.kind, NEW.key); END;
"""

Rows = dict[tuple[str, str], bytes]


@dataclass
class Search:
    """A search on the demo model, in folders of its own.

    Args:
        folder: Where workspace and report are.
        words: What is asked besides.
    """

    folder: Path
    words: tuple[str, ...] = TIGHT

    def __post_init__(self) -> None:
        self.workspace, self.json = self.folder / "workspace", self.folder / "report.json"
        self.journal = self.workspace / ".topsideas" / "journal.sqlite"

    def start(self) -> subprocess.Popen[str]:
        """Start the command."""
        given = {
            "--input_onnx": PLATE_READER / "lprnet-pt-op13-fp32-N.onnx",
            "--sample_dir": PLATE_READER / "lprnet-samples",
            "--workspace": self.workspace,
            "--output_json": self.json,
        }
        words = [str(word) for pair in given.items() for word in pair]
        return subprocess.Popen(
            [sys.executable, "-m", "topsideas", "gcu", "mix_precision", *words, *self.words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self) -> dict[str, Any]:
        """Run to the end; returns the report."""
        _, err = (process := self.start()).communicate()
        assert (process.returncode, err) == (0, ""), err
        report: dict[str, Any] = json.loads(self.json.read_text("utf-8"))
        return report

    def watched(self, process: subprocess.Popen[str], until: float = math.inf) -> int:
        """Wait for so many changes of the journal, or the process's end; how many there were."""
        log, seen, changes = self.journal.with_name(f"{self.journal.name}-wal"), 0, 0
        while changes < until and process.poll() is None:
            with contextlib.suppress(FileNotFoundError):
                last, seen = seen, log.stat().st_mtime_ns
                changes += seen != last
            time.sleep(0.001)
        return changes

    def killed(self, changes: int, seconds: float) -> bool:
        """Start and kill so long after so many changes; whether it had not ended before."""
        process = self.start()
        self.watched(process, changes)
        time.sleep(seconds)
        process.kill()
        process.communicate()
        return process.returncode == -signal.SIGKILL

    def rows(self) -> Rows:
        """What is on record."""
        with closing(sqlite3.connect(self.journal)) as database:
            found = database.execute("SELECT kind, key, value FROM results").fetchall()
        return {(kind, key): value for kind, key, value in found}

    def watch(self) -> None:
        """Count from now on what is written again."""
        with closing(sqlite3.connect(self.journal)) as database:
            database.executescript(_WATCH)

    def repeats(self) -> list[str]:
        """The kinds of rows that were written again."""
        with closing(sqlite3.connect(self.journal)) as database:
            return [kind for (kind,) in database.execute("SELECT kind FROM repeats")]


def lasting(report: dict[str, Any]) -> dict[str, Any]:
    """What of a report must not depend on how often the search was killed on its way."""
    search = {k: v for k, v in report["search"].items() if k not in ("seconds", "evaluations")}
    search["trace"] = [
        {k: v for k, v in question.items() if k not in ("seconds", "recalled")}
        for question in search["trace"]
    ]
    varying = ("options", "output_files", "next_command", "search")
    return {k: v for k, v in report.items() if k not in varying} | {"search": search}


@dataclass
class Figures:
    """What became of the kills."""

    kills: int = 0
    ended_before: int = 0
    rows_kept: int = 0
    recalled: int = 0
    repeats: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)


class Killer:
    """Kills searches and compares what follows with an undisturbed one.

    Args:
        folder: Where the workspaces are made.
        seed: Of the moments.
    """

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self._folder, self._random = folder, random.Random(seed)
        self.figures, self._searches = Figures(), 0
        whole = self._search("whole")
        process = whole.start()
        self._changes = whole.watched(process)
        process.communicate()
        self._expected = lasting(json.loads(whole.json.read_text("utf-8")))
        self._files = _names(whole.workspace)

    def _search(self, name: str) -> Search:
        (folder := self._folder / name).mkdir()
        return Search(folder)

    def kill(self) -> None:
        """Kill one search, one in four twice, and let the next run end."""
        search = self._search(f"search{self._searches}")
        self._searches += 1
        for _ in range(1 + (self._random.random() < 0.25)):
            changes = self._random.randrange(1, self._changes + 1)
            # The last rows are followed by the executables and the report.
            last = changes > 0.9 * self._changes
            if search.killed(changes, self._random.uniform(0, 0.5 if last else 0.02)):
                self.figures.kills += 1
            else:
                self.figures.ended_before += 1
        before = search.rows()
        search.watch()
        report = search.run()
        self._compare(search, before, report)

    def _compare(self, search: Search, before: Rows, report: dict[str, Any]) -> None:
        figures, after, name = self.figures, search.rows(), search.folder.name
        figures.rows_kept += len(before)
        figures.repeats += search.repeats()
        figures.recalled += sum(q["recalled"] for q in report["search"]["trace"])
        lost = [k for k, v in before.items() if after.get(k) != v and k[0] != _REWRITTEN]
        figures.changed += [f"{name}: row {kind}" for kind, _ in lost]
        found = lasting(report)
        different = [k for k in self._expected if found[k] != self._expected[k]]
        figures.changed += [f"{name}: {key}" for key in different]
        extra = _names(search.workspace) ^ self._files
        figures.left_over += [f"{name}: {file}" for file in sorted(extra)]


def _names(folder: Path) -> set[str]:
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*")}
    return {n for n in found if not n.startswith(".topsideas/arrays/") and "sqlite-" not in n}


def main() -> None:
    """Kill so many and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killer = Killer(Path(folder), args.seed)
        while killer.figures.kills < args.kills:
            killer.kill()
            print(killer.figures, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
