from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest

import topsideas
from topsideas.errors import WorkspaceError
from topsideas.workspace import Workspace

Open = Callable[..., Workspace]
Print = dict[str, object]


def _refusal(root: Path, fingerprint: Print, *, clean: bool = False) -> str:
    with pytest.raises(WorkspaceError) as caught:
        Workspace.open(root, fingerprint, clean=clean)
    return str(caught.value)


def test_a_new_folder_and_its_parents(tmp_path: Path, fingerprint: Print) -> None:
    root = tmp_path / "a" / "b"
    with Workspace.open(root, fingerprint) as workspace:
        assert workspace.root == root
    private = root / ".topsideas"
    marker = json.loads((private / "workspace.json").read_text())
    assert marker["format"] == 1
    assert marker["tool"] == f"topsideas {topsideas.__version__}"
    assert marker["fingerprint"] == fingerprint
    assert len(marker["sha256"]) == 64
    assert (private / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f068")
    assert (private / ".gitignore").read_text() == "*\n"


def test_a_relative_path_survives_a_change_of_folder(
    tmp_path: Path, fingerprint: Print, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Workspace.open("ws", fingerprint) as workspace:
        monkeypatch.chdir("/")
        workspace.write_atomic("a.txt", b"a")
    assert (tmp_path / "ws" / "a.txt").exists()


def test_the_same_fingerprint_in_any_order(root: Path, fingerprint: Print) -> None:
    with Workspace.open(root, fingerprint) as workspace:
        workspace.put("verdict", "k", 1)
    with Workspace.open(root, dict(reversed(fingerprint.items()))) as workspace:
        assert workspace.get("verdict", "k") == 1


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"model": "def"}, 'model was "abc", is "def"'),
        ({"extra": [1]}, "extra was not set, is [1]"),
        (
            {"engine": {"name": "emulator", "options": {"level": 2}}},
            "engine.options.level was 1, is 2",
        ),
        (
            {"engine": {"name": "emulator", "options": {}}},
            "engine.options.level was 1, is not set",
        ),
        ({"model": "x" * 200}, '"' + "x" * 79 + "..."),
        ({"engine": 1.0}, "engine was not set, is 1.0"),
    ],
)
def test_another_fingerprint(root: Path, fingerprint: Print, change: Print, part: str) -> None:
    Workspace.open(root, fingerprint).close()
    message = _refusal(root, fingerprint | change)
    assert message.startswith(f"{root}: the workspace belongs to another model or other options:")
    assert part in message
    assert "pass --clean to empty it or use another --workspace" in message


def test_a_refusal_changes_nothing_and_frees_the_lock(root: Path, fingerprint: Print) -> None:
    with Workspace.open(root, fingerprint) as workspace:
        workspace.put("verdict", "k", 1)
    _refusal(root, {})
    with Workspace.open(root, fingerprint) as workspace:
        assert workspace.get("verdict", "k") == 1


def test_clean_takes_a_workspace_over(root: Path, fingerprint: Print) -> None:
    with Workspace.open(root, fingerprint) as workspace:
        workspace.put("verdict", "k", 1)
    with Workspace.open(root, {"model": "def"}, clean=True) as workspace:
        assert workspace.get("verdict", "k") is None
    assert 'model was "def"' in _refusal(root, fingerprint)


def test_a_folder_with_the_users_files_is_accepted(root: Path, fingerprint: Print) -> None:
    root.mkdir()
    (root / "notes.txt").write_text("mine")
    Workspace.open(root, fingerprint, clean=True).close()
    assert (root / "notes.txt").read_text() == "mine"


def test_in_use_by_this_process(root: Path, fingerprint: Print) -> None:
    with Workspace.open(root, fingerprint):
        for clean in (False, True):
            message = _refusal(root, fingerprint, clean=clean)
            assert f"{root}: the workspace is in use by another run" in message
            assert "wait until it ends or use another --workspace" in message
    Workspace.open(root, fingerprint).close()


def test_in_use_by_another_process_until_it_is_killed(root: Path, fingerprint: Print) -> None:
    code = (
        "import json, sys, time; from topsideas.workspace import Workspace\n"
        "workspace = Workspace.open(sys.argv[1], json.loads(sys.argv[2]))\n"
        "print('open', flush=True); time.sleep(60)"
    )
    arguments = [sys.executable, "-c", code, str(root), json.dumps(fingerprint)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        assert "in use by another run" in _refusal(root, fingerprint)
        process.kill()
        process.wait()
        Workspace.open(root, fingerprint).close()


def test_a_file_instead_of_a_folder(root: Path, fingerprint: Print) -> None:
    root.touch()
    assert f"{root}: is a file, expected a folder" in _refusal(root, fingerprint)
    assert "cannot open the workspace: Not a directory" in _refusal(root / "below", fingerprint)


def test_where_nothing_can_be_written(fingerprint: Print) -> None:
    root = Path("/proc/topsideas")
    message = _refusal(root, fingerprint)
    assert f"{root}: cannot open the workspace: No such file or directory" in message
    assert "expected a folder on a disk with free space that this user may write to" in message


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may")
def test_a_folder_of_another_user(fingerprint: Print) -> None:
    """Opened as nobody, whom a read-only folder stops; root is stopped by none."""
    code = (
        "import json, os, sys; from topsideas.errors import WorkspaceError\n"
        "from topsideas.workspace import Workspace; os.setuid(65534)\n"
        "try: Workspace.open(sys.argv[1], json.loads(sys.argv[2]))\n"
        "except WorkspaceError as error: print(error)"
    )
    # Not in tmp_path, which lies in a folder that nobody may enter.
    with tempfile.TemporaryDirectory() as name:
        Workspace.open(name, fingerprint).close()
        Path(name).chmod(0o755)
        arguments = [sys.executable, "-c", code, name, json.dumps(fingerprint)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert f"{name}: cannot open the workspace: Permission denied; expected" in done.stdout


def test_a_file_system_without_locks(
    root: Path, fingerprint: Print, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    assert "has no file locks; use a --workspace on another disk" in _refusal(root, fingerprint)


def test_a_full_disk(root: Path, fingerprint: Print, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        message = _refusal(root, fingerprint)
    assert "cannot open the workspace: No space left on device; expected" in message
    Workspace.open(root, fingerprint).close()


def test_a_newer_format_is_refused_even_for_cleaning(root: Path, fingerprint: Print) -> None:
    Workspace.open(root, fingerprint).close()
    marker = root / ".topsideas" / "workspace.json"
    marker.write_text(json.dumps(json.loads(marker.read_text()) | {"format": 2}))
    for clean in (False, True):
        message = _refusal(root, fingerprint, clean=clean)
        assert f"{marker}: the workspace has format 2, expected at most 1" in message
        assert "upgrade topsideas or use another --workspace" in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"format": 1}',
        b'{"format": 1, "fingerprint": {"model": NaN}, "sha256": ""}',
        b'{"format": 1, "fingerprint": {"model": "other"}, "sha256": "abc"}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_marker(root: Path, fingerprint: Print, content: bytes) -> None:
    Workspace.open(root, fingerprint).close()
    marker = root / ".topsideas" / "workspace.json"
    marker.write_bytes(content)
    message = _refusal(root, fingerprint)
    assert f"{marker}: the workspace's record is damaged, expected a fingerprint" in message
    assert "pass --clean to start it afresh" in message
    Workspace.open(root, fingerprint, clean=True).close()


def test_results_without_a_marker_are_not_trusted(root: Path, fingerprint: Print) -> None:
    Workspace.open(root, fingerprint).close()
    (root / ".topsideas" / "workspace.json").unlink()
    message = _refusal(root, fingerprint)
    assert "workspace.json: is missing although results are there" in message
    assert "pass --clean to remove them" in message
    Workspace.open(root, fingerprint, clean=True).close()


def test_an_unfinished_start_is_taken_up(root: Path, fingerprint: Print) -> None:
    private = root / ".topsideas"
    private.mkdir(parents=True)
    leftover = private / ".topsideas-tmp.workspace.json"
    leftover.write_text("{")
    Workspace.open(root, fingerprint).close()
    assert not leftover.exists()


def test_a_fingerprint_that_is_not_json(root: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        Workspace.open(root, {"model": b"abc"})
    Workspace.open(root, {}).close()


def test_usage_counts_the_tools_files_only(root: Path, open_workspace: Open) -> None:
    root.mkdir()
    (root / "mine").write_bytes(bytes(1 << 20))
    workspace = open_workspace()
    before = workspace.usage()
    workspace.write_atomic("deploy.onnx", bytes(1000))
    manifest = (root / ".topsideas" / "manifest.json").stat().st_size
    assert workspace.usage() == before + 1000 + manifest
    assert before < 1 << 20
