"""Kills a search at random moments and looks at what the next run makes of it.

``python -m tests.trust.killing --kills 200`` records figures; the tests run a few. Each kill has a
workspace of its own. Runs are forked from this process, so that imports are not what is killed
most of the time; ``--anew`` starts the program anew, and ``--demo`` does so on the demo model.
Between the kill and the next run a trigger is laid into the journal that counts rows written
again, so that a repeated evaluation cannot go unseen.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import topsideas.cli.mix_precision
import topsideas.engines.emulator.engine  # noqa: F401 - read here once, not in every run
from topsideas.cli import main
from topsideas.workspace import journal

PLATE_READER = Path(__file__).parents[2] / "examples" / "plate_reader"

# Tight enough that the search asks some fifty questions of every kind.
_DEMO_WORDS = ("--rtol", "2e-3", "--atol", "2e-3")
_WORDS = ("--rtol", "1e-3", "--atol", "0")
# What a search ended with is written each time it ends; all other kinds are measured once.
_REWRITTEN = "answer"
_PAIRS = 15
_WATCH = f"""
CREATE TABLE repeats (kind TEXT, key TEXT);
CREATE TRIGGER repeated BEFORE INSERT ON results
WHEN NEW.kind != '{_REWRITTEN}'
    AND EXISTS (SELECT 1 FROM results WHERE kind = NEW.kind AND key = NEW.key)
BEGIN INSERT INTO repeats VALUES (NEW.kind, NEW.key); END;
"""

Rows = dict[tuple[str, str], bytes]


@dataclass
class Process:
    """A run of the command.

    Args:
        pid: Of the process.
        log: What it prints.
    """

    pid: int
    log: Path
    status: int | None = None

    def ended(self) -> bool:
        """Whether it has ended."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = status if pid else None
        return self.status is not None

    def kill(self) -> None:
        """Kill it, if it has not ended."""
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Wait for the end; the exit code, negative for a signal."""
        if self.status is None:
            _, self.status = os.waitpid(self.pid, 0)
        return os.waitstatus_to_exitcode(self.status)


@dataclass
class Search:
    """A search in folders of its own.

    Args:
        folder: Where workspace and report are.
        model: The model.
        samples: Its samples.
        words: What is asked besides.
        anew: Start the program, instead of forking this one.
    """

    folder: Path
    model: Path
    samples: Path
    words: tuple[str, ...]
    anew: bool

    def __post_init__(self) -> None:
        self.workspace, self.json = self.folder / "workspace", self.folder / "report.json"
        self.journal = self.workspace / ".topsideas" / "journal.sqlite"

    def start(self) -> Process:
        """Start the command."""
        given = {"--input_onnx": self.model, "--sample_dir": self.samples}
        given |= {"--workspace": self.workspace, "--output_json": self.json}
        words = [str(word) for pair in given.items() for word in pair]
        words = ["gcu", "mix_precision", *words, *self.words]
        log = self.folder / "log"
        process = Process(os.fork(), log)
        if not process.pid:
            os.nice(5)  # whoever is to kill it must not be late
            with log.open("ab", buffering=0) as stream:
                os.dup2(stream.fileno(), 1)
                os.dup2(stream.fileno(), 2)
            if self.anew:
                os.execv(sys.executable, [sys.executable, "-c", _PROGRAM, *words])
            journal._check_structure = lambda _: None
            os._exit(main(words))
        return process

    def run(self) -> dict[str, Any]:
        """Run to the end; returns the report."""
        process = self.start()
        assert process.wait() == 0, process.log.read_text()
        report: dict[str, Any] = json.loads(self.json.read_text("utf-8"))
        return report

    def watched(self, process: Process, until: float = math.inf) -> int:
        """Wait for so many changes of the journal, or the process's end; how many there were."""
        log, seen, changes = self.journal.with_name(f"{self.journal.name}-wal"), 0, 0
        while changes < until and not process.ended():
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
        return process.wait() == -signal.SIGKILL

    def rows(self) -> Rows:
        """What is on record."""
        with closing(sqlite3.connect(self.journal)) as database:
            if not _has(database, "results"):
                return {}
            found = database.execute("SELECT kind, key, value FROM results").fetchall()
        return {(kind, key): value for kind, key, value in found}

    def watch(self) -> None:
        """Count from now on what is written again."""
        with closing(sqlite3.connect(self.journal)) as database:
            if _has(database, "results"):
                database.executescript(_WATCH)

    def repeats(self) -> list[str]:
        """The kinds of rows that were written again."""
        with closing(sqlite3.connect(self.journal)) as database:
            if not _has(database, "repeats"):
                return []
            return [kind for (kind,) in database.execute("SELECT kind FROM repeats")]


# A journal with a trigger is a foreign one, and would be replaced.
_PROGRAM = """
import sys
from topsideas.cli import main
from topsideas.workspace import journal
journal._check_structure = lambda _: None
sys.exit(main(sys.argv[1:]))
"""


def _has(database: sqlite3.Connection, table: str) -> bool:
    query = "SELECT 1 FROM sqlite_master WHERE name = ?"
    return database.execute(query, (table,)).fetchone() is not None


def _write_inputs(folder: Path) -> None:
    """A chain whose ops round a little each, one that overflows, and samples of all sizes."""
    nodes = "".join(
        f"[up{i}] a{i} = Mul({f'b{i - 1}' if i else 'x'}, c) [down{i}] b{i} = Mul(a{i}, d)\n"
        for i in range(_PAIRS)
    )
    text = f"""<ir_version: 8, opset_import: ["": 17]> chain (float[N,4] x) => (float[N,4] y)
        <float c = {{1.1}}, float d = {{0.9090909}}, float big = {{1e5}}> {{
        {nodes} s = Mul(b{_PAIRS - 1}, big) y = Div(s, big) }}"""
    onnx.save(onnx.parser.parse_model(text), folder / "model.onnx")
    (folder / "samples").mkdir()
    generator = np.random.default_rng(0)
    for number in range(6):
        x = generator.uniform(0.5, 2, (1 + number, 4)).astype(np.float32)
        np.savez(folder / "samples" / f"sample{number}_inputs.npz", x=x)


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
        demo: Kill the program, started anew each time, on the demo model.
        anew: Kill the program, started anew each time.
    """

    def __init__(
        self, folder: Path, seed: int = 0, *, demo: bool = False, anew: bool = False
    ) -> None:
        self._folder, self._random, self._demo, self._anew = (
            folder,
            random.Random(seed),
            demo,
            anew,
        )
        self.figures, self._searches = Figures(), 0
        if not demo:
            _write_inputs(folder)
        whole = self._search("whole")
        process = whole.start()
        self._changes = whole.watched(process)
        assert process.wait() == 0, process.log.read_text()
        self._expected = lasting(json.loads(whole.json.read_text("utf-8")))
        self._files = _names(whole.workspace)

    def _search(self, name: str) -> Search:
        (folder := self._folder / name).mkdir()
        if self._demo:
            model = PLATE_READER / "lprnet-pt-op13-fp32-N.onnx"
            samples = PLATE_READER / "lprnet-samples"
            return Search(folder, model, samples, _DEMO_WORDS, anew=True)
        inputs = self._folder / "model.onnx", self._folder / "samples"
        return Search(folder, *inputs, _WORDS, anew=self._anew)

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


def _main() -> None:
    """Kill so many and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--anew", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        killer = Killer(Path(folder), args.seed, demo=args.demo, anew=args.anew)
        while killer.figures.kills < args.kills:
            killer.kill()
            print(json.dumps(asdict(killer.figures)), flush=True)  # noqa: T201


if __name__ == "__main__":
    _main()
