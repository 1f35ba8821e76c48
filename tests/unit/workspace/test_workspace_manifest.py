from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from topsideas.errors import WorkspaceError
from topsideas.workspace import Workspace

Open = Callable[..., Workspace]


def _tree(root: Path) -> set[str]:
    """What is in the workspace beside the tool's own folder."""
    names = {path.relative_to(root).as_posix() for path in root.rglob("*")}
    return {name for name in names if not name.startswith(".topsideas")}


def test_a_path_lies_in_the_workspace_and_its_folder_exists(
    root: Path, open_workspace: Open
) -> None:
    path = open_workspace().path("irdump/fp16/graph.txt")
    assert path == root / "irdump" / "fp16" / "graph.txt"
    assert path.parent.is_dir()
    assert not path.exists()


def test_write_atomic(root: Path, open_workspace: Open) -> None:
    workspace = open_workspace()
    path = workspace.write_atomic("a/deploy.onnx", b"one")
    assert path.read_bytes() == b"one"
    seen: list[Path] = []

    def write(temporary: Path) -> None:
        seen.append(temporary)
        assert path.read_bytes() == b"one"
        temporary.write_bytes(b"two")

    assert workspace.write_atomic("a/deploy.onnx", write) == path
    assert path.read_bytes() == b"two"
    assert (seen[0].parent, seen[0].suffix) == (path.parent, ".onnx")
    assert _tree(root) == {"a", "a/deploy.onnx"}


def test_a_failed_write_leaves_the_old_content(root: Path, open_workspace: Open) -> None:
    workspace = open_workspace()
    workspace.write_atomic("a", b"one")

    def fail(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.write_atomic("a", fail)
    assert (root / "a").read_bytes() == b"one"
    assert _tree(root) == {"a"}


def test_a_write_that_the_system_refuses(root: Path, open_workspace: Open) -> None:
    def full(temporary: Path) -> None:
        with Path("/dev/full").open("wb", buffering=0) as stream:
            stream.write(b"x")

    with pytest.raises(WorkspaceError) as caught:
        open_workspace().write_atomic("a", full)
    assert f"{root / 'a'}: cannot write: No space left on device; expected" in str(caught.value)


def test_clean_removes_what_the_tool_wrote_and_nothing_else(
    root: Path, open_workspace: Open
) -> None:
    root.mkdir()
    (root / "mine.txt").touch()
    (root / "common").mkdir()
    (root / "common" / "mine.txt").touch()
    (root / "empty").mkdir()
    workspace = open_workspace()
    for name in ("fp16.executable", "irdump/a/b.txt", "common/ours.txt", "both/ours.txt"):
        workspace.write_atomic(name, b"x")
    (root / "both" / "mine.txt").touch()
    (root / ".topsideas" / "stray.txt").touch()
    workspace.put("verdict", "k", 1)
    workspace.put_arrays("trace", "k", {})
    open_workspace(clean=True)
    assert _tree(root) == {
        "mine.txt",
        "common",
        "common/mine.txt",
        "empty",
        "both",
        "both/mine.txt",
    }
    assert (root / ".topsideas" / "stray.txt").exists()
    assert not (root / ".topsideas" / "arrays").exists()


def test_clean_of_a_workspace_that_lost_files(root: Path, open_workspace: Open) -> None:
    workspace = open_workspace()
    workspace.write_atomic("a/b/c", b"x")
    (root / "a" / "b" / "c").unlink()
    (root / "a" / "b").rmdir()
    (root / "a" / "b").write_text("mine now, under a name that was a folder of the tool's")
    workspace.path("d")
    (root / "d").mkdir()
    (root / "d" / "mine").touch()
    open_workspace(clean=True)
    assert "d/mine" in _tree(root)


def test_a_killed_write_is_cleared_away(root: Path, open_workspace: Open) -> None:
    leftover = open_workspace().path("a/deploy.onnx").with_name(".topsideas-tmp.deploy.onnx")
    leftover.write_bytes(b"half")
    open_workspace()
    assert not leftover.exists()


def test_a_folder_that_an_engine_fills(root: Path, open_workspace: Open) -> None:
    workspace = open_workspace()
    folder = workspace.path("irdump")
    (folder / "fp16").mkdir(parents=True)
    (folder / "fp16" / "1.txt").touch()
    workspace.adopt("irdump")
    (folder / "mine.txt").touch()
    assert open_workspace().path("irdump") == folder
    open_workspace(clean=True)
    assert _tree(root) == {"irdump", "irdump/mine.txt"}


def test_the_users_file_is_not_overwritten(root: Path, open_workspace: Open) -> None:
    workspace = open_workspace()
    (root / "deploy.onnx").write_text("mine")
    (root / "irdump").mkdir()
    (root / "irdump" / "mine").touch()
    (root / "link").symlink_to("nowhere")
    for name in ("deploy.onnx", "irdump", "link"):
        with pytest.raises(WorkspaceError) as caught:
            workspace.write_atomic(name, b"x")
        assert f"{root / name}: exists and was not written by topsideas" in str(caught.value)
        assert "move it away or use another --workspace" in str(caught.value)
    assert (root / "deploy.onnx").read_text() == "mine"


def test_the_tools_file_may_be_overwritten_by_later_runs(open_workspace: Open) -> None:
    open_workspace().write_atomic("a", b"one")
    assert open_workspace().write_atomic("a", b"two").read_bytes() == b"two"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../a",
        "a/../../b",
        "a/..",
        "/etc/passwd",
        "C:\\a",
        ".topsideas/journal.sqlite",
        ".Topsideas/x",
        "out/a",
    ],
)
def test_names_that_leave_the_workspace(
    root: Path, tmp_path: Path, open_workspace: Open, name: str
) -> None:
    workspace = open_workspace()
    (root / "out").symlink_to(tmp_path)
    with pytest.raises(WorkspaceError) as caught:
        workspace.path(name)
    assert f"{name!r} is not a name for a file in the workspace {root}" in str(caught.value)
    assert "expected a relative path that stays inside it" in str(caught.value)


def test_a_file_where_a_folder_is_needed(root: Path, open_workspace: Open) -> None:
    workspace = open_workspace()
    (root / "a").write_text("mine")
    with pytest.raises(WorkspaceError, match="cannot make room for a/b in the workspace: "):
        workspace.path("a/b")
    open_workspace(clean=True)
    assert (root / "a").read_text() == "mine"


def test_a_forged_manifest_removes_nothing_outside(
    root: Path, tmp_path: Path, open_workspace: Open, caplog: pytest.LogCaptureFixture
) -> None:
    open_workspace().write_atomic("a/ours", b"x")
    for victim in ("victim", "linked"):
        (tmp_path / victim).mkdir()
        (tmp_path / victim / "ours").touch()
    (root / "b").symlink_to(tmp_path / "linked")
    names = ["a/ours", "../victim/ours", str(tmp_path / "victim" / "ours"), "b/ours", ""]
    (root / ".topsideas" / "manifest.json").write_text(json.dumps(names))
    with caplog.at_level(logging.WARNING, "topsideas.workspace"):
        open_workspace(clean=True)
    assert not (root / "a" / "ours").exists()
    assert (tmp_path / "victim" / "ours").exists()
    assert (tmp_path / "linked" / "ours").exists()
    assert "'../victim/ours' is not a name for a file in the workspace" in caplog.text


@pytest.mark.parametrize("content", ["{", "{}", "[1]", "[" * 100_000])
def test_a_damaged_manifest_protects_all_files(
    root: Path, open_workspace: Open, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    open_workspace().write_atomic("a", b"x")
    (root / ".topsideas" / "manifest.json").write_text(content)
    with caplog.at_level(logging.WARNING, "topsideas.workspace"):
        workspace = open_workspace()
    assert "the list of written files is damaged; files written earlier now" in caplog.text
    with pytest.raises(WorkspaceError, match="was not written by topsideas"):
        workspace.path("a")
