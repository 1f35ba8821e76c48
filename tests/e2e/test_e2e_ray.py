"""Real workers on Ray: the command line, a cluster that loses workers, and a restart."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from e2e_bench import Bench, read_report

from topsideas.calibration.dispatch import Crew
from topsideas.calibration.journal import MemoryStore
from topsideas.calibration.progress import Silent
from topsideas.calibration.result import SearchResult
from topsideas.engines.base import Arrays
from topsideas.executors.ray_pool import RayExecutor, RayPool
from topsideas.testing.null_engine import Needed, NullEngine, NullExecutable, null_search
from topsideas.workspace.journal import Journal

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'topsideas[ray]'")

# Ray leaves files and sockets open when it shuts down.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

# Each start of Ray takes seconds of processor time.
full_only = pytest.mark.skipif(
    os.environ.get("TOPSIDEAS_FULL") != "1", reason="starts Ray once more; set TOPSIDEAS_FULL=1"
)

_NEEDED = frozenset({3, 57, 90, 91, 142})
_SMALL = {"object_store_memory": 100 << 20, "num_cpus": 2}


def _way(found: SearchResult) -> list[Any]:
    ledger = [(q.phase, q.items, q.verdict) for q in found.ledger]
    return [found.plan, found.witnesses, found.evaluations, ledger]


class _Watched(RayExecutor):
    """Keeps the pool it opened."""

    pools: list[RayPool] = []  # noqa: RUF012 - frozen instances cannot keep it

    def open(self, make: Any) -> RayPool:
        self.pools.append(super().open(make))
        return self.pools[-1]


class _Happening(Silent):
    """Does something once so many plans were judged, beside the search."""

    def __init__(self, after: int, what: Callable[[], None]) -> None:
        self._after, self._what = after, what
        self.crews: list[Crew] = []
        self.thread: Thread | None = None

    def measured(self, done: int, total: int) -> None:
        if done >= self._after and self.thread is None:
            self.thread = Thread(target=self._what)
            self.thread.start()

    def crew(self, crew: Crew) -> None:
        self.crews.append(crew)


def _pids() -> list[int]:
    pool = _Watched.pools[-1]
    refs = [actor.ready.remote() for actor in pool._actors.values()]
    ready, _ = ray.wait(refs, num_returns=len(refs), timeout=1)
    return [int(ray.get(ref).rsplit(" ", 1)[1]) for ref in ready]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster of two machines, both of which are this one."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**_SMALL, "include_dashboard": False})
    made.second = made.add_node(**_SMALL)
    ray.init(address=made.address, log_to_driver=False, logging_level="FATAL")
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_search_outlives_its_workers_and_a_machine(cluster: Any) -> None:
    """A worker is killed, then a machine goes with all its workers; the answer is the same."""
    alone, store = MemoryStore(), MemoryStore()
    expected = null_search(NullEngine(160, Needed(_NEEDED)), store=alone)

    def mishap() -> None:
        os.kill(random.Random(0).choice(_pids()), signal.SIGKILL)
        time.sleep(1)
        cluster.remove_node(cluster.second, allow_graceful=False)

    happening = _Happening(after=12, what=mishap)
    engine = NullEngine(160, Needed(_NEEDED), build=0.1)
    found = null_search(engine, _Watched("auto", 4), store=store, progress=happening)
    assert happening.thread is not None
    happening.thread.join()
    assert _way(found) == _way(expected)
    assert vars(store) == vars(alone)
    assert found.crew is not None
    assert found.crew.lost >= 1
    assert max(crew.workers for crew in happening.crews) >= 2


class _Forgetful(NullEngine):
    """Runs out of memory, hangs, or is slow, each once: where a file says it did not yet."""

    def compile(self, plan: Any) -> Any:
        return _Careless(self, plan.kept)


class _Careless(NullExecutable):
    def run(self, feeds: Arrays) -> dict[str, Any]:
        folder = Path(os.environ["TOPSIDEAS_TEST_FOLDER"])
        for mishap in ("memory", "exit", "slow"):
            with contextlib.suppress(FileNotFoundError):
                (folder / mishap).unlink()
                if mishap == "memory":
                    raise MemoryError("no memory is left")
                if mishap == "exit":
                    os._exit(9)
                time.sleep(900)
        return super().run(feeds)


@full_only
def test_memory_that_runs_out_a_crash_and_a_straggler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each hits one task of a local Ray; the search does not wait for the slow one."""
    monkeypatch.setenv("TOPSIDEAS_TEST_FOLDER", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))  # for the engine above
    for mishap in ("memory", "exit", "slow"):
        (tmp_path / mishap).touch()
    expected = null_search(NullEngine(60, Needed(frozenset({3, 50}))))
    start = time.monotonic()
    engine = _Forgetful(60, Needed(frozenset({3, 50})), build=0.05)
    found = null_search(engine, RayExecutor("local", 3))
    assert _way(found) == _way(expected)
    assert not list(tmp_path.iterdir())
    assert time.monotonic() - start < 300
    assert found.crew is not None
    assert (found.crew.lost, found.crew.again >= 3) == (2, True)


_DRIVER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from topsideas.executors.ray_pool import RayExecutor
    from topsideas.testing.null_engine import Needed, NullEngine, null_search
    from topsideas.workspace.journal import Journal

    class Told(Journal):
        def put(self, kind, key, value):
            super().put(kind, key, value)
            print(kind, key, flush=True)

    engine = NullEngine(160, Needed(frozenset({3, 57, 90, 91, 142})), build=0.1)
    null_search(engine, RayExecutor("local", 2), store=Told(Path(sys.argv[1])))
    """
)


@full_only
def test_a_search_that_was_killed_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    """The process that searches is killed; its workers end, and the next one resumes."""
    path = tmp_path / "journal.sqlite"
    first = subprocess.Popen(
        [sys.executable, "-c", _DRIVER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    for _ in range(30):
        assert first.stdout.readline()
    first.kill()
    first.wait()
    with contextlib.closing(sqlite3.connect(path)) as database:
        recorded = set(database.execute("SELECT kind, key FROM results").fetchall())
    store = _Counting(path)
    engine = NullEngine(160, Needed(_NEEDED))
    found = null_search(engine, store=store)
    assert found.plan.kept == _NEEDED
    complete = MemoryStore()
    expected = null_search(engine, store=complete)
    assert found.witnesses == expected.witnesses
    assert len(recorded) >= 30
    assert not recorded & store.written
    assert recorded | store.written == vars(complete)["_values"].keys()


class _Counting(Journal):
    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.written: set[tuple[str, str]] = set()

    def put(self, kind: str, key: str, value: object) -> None:
        super().put(kind, key, value)
        assert (kind, key) not in self.written
        self.written.add((kind, key))


def _without_time(report: dict[str, Any]) -> dict[str, Any]:
    search = {k: v for k, v in report["search"].items() if k != "seconds"}
    search["trace"] = [{k: v for k, v in q.items() if k != "seconds"} for q in search["trace"]]
    kept = {k: v for k, v in report.items() if k not in ("options", "notes", "next_command")}
    return kept | {"search": search}


def test_the_command_line_gives_the_same_report(squares: Bench) -> None:
    reports = []
    for extra in ([], ["--workers", "2"], ["--threads", "1", "--workers", "2"]):
        outcome = squares.run("--clean", *extra)
        assert outcome.code == 0, outcome.error
        reports.append(outcome.found)
    assert _without_time(reports[0]) == _without_time(reports[1]) == _without_time(reports[2])
    assert any(note.startswith("workers: ") for note in reports[1]["notes"])
    assert not any(note.startswith("workers: ") for note in reports[0]["notes"])
    assert "--workers" not in reports[1]["next_command"]


_RULE = """
import time
from pathlib import Path

CALLS, GO_ON = Path(__file__).with_name("calls"), Path(__file__).with_name("go_on")

def check(reference, outputs):
    with CALLS.open("a") as file:
        file.write("x")
    while CALLS.stat().st_size > 3 and not GO_ON.exists():
        time.sleep(0.02)
    return abs(outputs[0] - reference[0]).max() < 1e-3 * abs(reference[0]).max()
"""


def _session_of(folder: Path) -> list[str]:
    """What runs of the keeper that a search with this temporary folder started, and of Ray."""
    mark = f"RAY_TMPDIR={folder}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it is over, or somebody else's
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return [words for words in found if "mix_precision --" not in words]


def _until(true: Callable[[], bool], seconds: float) -> float:
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds
        time.sleep(0.02)
    return time.monotonic() - start


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=full_only)], ids=str
)
def test_who_is_interrupted_while_ray_starts_ends_at_once(
    squares: Bench, tmp_path: Path, number: int
) -> None:
    """It reports the best plan so far, and leaves nothing of Ray's behind."""
    ray_folder = Path(tempfile.mkdtemp(dir="/tmp"))  # short: Ray's sockets are in it
    rule = squares.file("rule.py", _RULE)
    words = ["--val_func", f"{rule}:check", "--threads", "1", "--workers", "2", "--clean"]
    process = subprocess.Popen(
        [sys.executable, "-m", "topsideas", *squares.words(*words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_TMPDIR": str(ray_folder)},
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        _until(lambda: any("gcs_server" in words for words in _session_of(ray_folder)), 60)
        _until(lambda: (squares.folder / "calls").exists(), 60)
        process.send_signal(number)
        (squares.folder / "go_on").touch()
        start = time.monotonic()
        out, err = process.communicate(timeout=60)
        seconds = time.monotonic() - start
    finally:
        process.kill()
        shutil.rmtree(ray_folder, ignore_errors=True)
    assert (process.returncode, err) == (130, "")
    assert read_report(squares.json)["search"]["stopped"] == "interrupted"
    assert "interrupted" in out
    assert seconds < 10  # a search without workers takes 1 s for that here, on a busy machine more
    _until(lambda: not _session_of(ray_folder), 5)


@full_only
def test_ray_ends_with_a_search_that_is_killed(tmp_path: Path) -> None:
    """Also while it starts."""
    for line in (0, 30):
        folder = Path(tempfile.mkdtemp(dir="/tmp"))
        process = subprocess.Popen(
            [sys.executable, "-c", _DRIVER, str(tmp_path / f"{line}.sqlite")],
            stdout=subprocess.PIPE,
            env={**os.environ, "RAY_TMPDIR": str(folder)},
        )
        assert process.stdout is not None
        for _ in range(line):
            assert process.stdout.readline()
        _until(lambda f=folder: any("gcs_server" in w for w in _session_of(f)), 60)  # type: ignore[misc]
        process.kill()
        process.wait()
        _until(lambda f=folder: not _session_of(f), 20)  # type: ignore[misc]
        shutil.rmtree(folder, ignore_errors=True)


@full_only
def test_a_local_ray_listens_on_the_loopback_device_only() -> None:
    """Whoever reaches a port of Ray may run code: nobody on another machine may."""
    code = textwrap.dedent(
        """
        import re, subprocess
        from pathlib import Path
        from topsideas.executors.ray_pool import RayExecutor
        from topsideas.testing.null_engine import NullEngine, Needed
        from topsideas.calibration.team import Team
        import os

        def listening():
            for name in ("tcp", "tcp6"):
                for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                    fields = line.split()
                    if fields[3] == "0A":
                        yield fields[1].rsplit(":", 1)[0], fields[9]

        def sockets(pid):
            try:
                links = [os.readlink(f) for f in Path(f"/proc/{pid}/fd").iterdir()]
            except OSError:
                return set()
            return {m[1] for l in links if (m := re.fullmatch(r"socket:\\[(\\d+)\\]", l))}

        def family(pid):
            found, parents = {pid}, {}
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    try:
                        stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                        parents[int(entry.name)] = int(stat[1])
                    except OSError:
                        pass
            for _ in parents:
                found |= {p for p, parent in parents.items() if parent in found}
            return found

        pool = RayExecutor("local", 1).open(lambda seat: None)
        pool.wait(60)
        own = set().union(*(sockets(pid) for pid in family(os.getpid())))
        print(sorted({address for address, inode in listening() if inode in own}))
        pool.close()
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    addresses = json.loads(done.stdout.splitlines()[-1].replace("'", '"'))
    loopback = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
    assert addresses
    assert set(addresses) <= loopback
