from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from topsideas.workspace import Workspace, arrays
from topsideas.workspace.arrays import ArrayCache

Open = Callable[..., Workspace]

_ARRAYS = {
    "/conv/Conv_output_0": np.arange(6, dtype=np.float32).reshape(2, 3),
    "file": np.array(3),
    "allow_pickle": np.zeros((0, 4), np.float16),
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "transposed": np.arange(6).reshape(2, 3).T,
    "nan": np.array([np.nan, np.inf, -0.0]),
    "brain": np.array([[1.5], [-2]], ml_dtypes.bfloat16),
    "tiny": np.array([1, 2], ml_dtypes.float8_e5m2),
    "int4": np.array([-8, 7], ml_dtypes.int4),
    "words": np.array([["a", "längere"], ["", "\0"]], dtype=object),
    "no_words": np.zeros((0, 2), dtype=object),
    "one_word": np.array("a", dtype=object),
    "fixed": np.array(["a", "bcd"]),
    "flags": np.array([True, False]),
    "": np.zeros(1, np.complex64),
}


def _file(root: Path, kind: str = "trace", key: str = "k") -> Path:
    return root / ".topsideas" / "arrays" / kind / f"{key}.npz"


def test_round_trip(open_workspace: Open) -> None:
    open_workspace().put_arrays("trace", "k", _ARRAYS)
    found = open_workspace().get_arrays("trace", "k")
    assert found is not None
    assert list(found) == list(_ARRAYS)
    for name, array in found.items():
        assert (array.dtype, array.shape) == (_ARRAYS[name].dtype, _ARRAYS[name].shape), name
        assert array.tolist() == _ARRAYS[name].tolist() or name == "nan"
    assert found["nan"].tobytes() == _ARRAYS["nan"].tobytes()


def test_missing_and_replaced(open_workspace: Open) -> None:
    workspace = open_workspace()
    assert workspace.get_arrays("trace", "k") is None
    workspace.put_arrays("trace", "k", {"x": np.zeros(2)})
    workspace.put_arrays("trace", "k", {})
    assert workspace.get_arrays("trace", "k") == {}
    assert workspace.get_arrays("felt", "k") is None


def _flip(content: bytes) -> bytes:
    place = content.index(np.float64(7).tobytes())
    return content[:place] + np.float64(8).tobytes() + content[place + 8 :]


@pytest.mark.parametrize(
    "damage",
    [
        _flip,
        lambda content: b"",
        lambda content: content[:-30],
        lambda content: content[:100],
        lambda content: b"\x93NUMPY" + content,
        lambda content: b"garbage" * 100,
        lambda content: content.replace(b"header.npy", b"hEader.npy"),
    ],
)
def test_a_damaged_file_is_a_miss(
    root: Path,
    open_workspace: Open,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
) -> None:
    workspace = open_workspace()
    workspace.put_arrays("trace", "k", {"x": np.full(100, 7.0)})
    path = _file(root)
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING, "topsideas.workspace"):
        assert workspace.get_arrays("trace", "k") is None
    assert f"{path}: is damaged and dropped (" in caplog.text
    assert not path.exists()
    workspace.put_arrays("trace", "k", {"x": np.ones(1)})
    assert workspace.get_arrays("trace", "k") == {"x": 1}


def test_a_file_with_sound_crc_but_other_content(root: Path, open_workspace: Open) -> None:
    """The zip's own checksum does not see arrays that were exchanged."""
    workspace = open_workspace()
    workspace.put_arrays("trace", "k", {"x": np.zeros(2)})
    with np.load(_file(root)) as members:
        content = dict(members)
    np.savez(_file(root), **content | {"a0": np.ones(2)})
    assert workspace.get_arrays("trace", "k") is None


def test_the_file_of_another_key(root: Path, open_workspace: Open) -> None:
    workspace = open_workspace()
    workspace.put_arrays("trace", "k", {"x": np.zeros(2)})
    workspace.put_arrays("trace", "other", {"x": np.ones(2)})
    _file(root).write_bytes(_file(root, key="other").read_bytes())
    assert workspace.get_arrays("trace", "k") is None
    assert workspace.get_arrays("trace", "other") is not None


def test_the_longest_unused_go_first(root: Path, open_workspace: Open) -> None:
    workspace = open_workspace(array_limit=30_000)
    for number in range(3):
        workspace.put_arrays("trace", f"k{number}", {"x": np.zeros(1000)})
        os.utime(_file(root, key=f"k{number}"), (number + 1, number + 1))
    assert workspace.get_arrays("trace", "k0") is not None
    workspace = open_workspace(array_limit=30_000)  # the order is kept over runs
    workspace.put_arrays("trace", "k3", {"x": np.zeros(1000)})
    kept = [workspace.get_arrays("trace", f"k{n}") is not None for n in range(4)]
    assert kept == [True, False, True, True]
    workspace = open_workspace(array_limit=10_000)
    kept = [workspace.get_arrays("trace", f"k{n}") is not None for n in range(4)]
    assert kept == [False, False, False, True]


def test_what_exceeds_the_limit_is_not_kept(root: Path, open_workspace: Open) -> None:
    workspace = open_workspace(array_limit=5_000)
    workspace.put_arrays("trace", "small", {"x": np.zeros(100)})
    workspace.put_arrays("trace", "k", {"x": np.zeros(1000)})
    assert workspace.get_arrays("trace", "k") is None
    assert workspace.get_arrays("trace", "small") is not None


def test_the_total_stays_under_the_limit(tmp_path: Path) -> None:
    cache, random = ArrayCache(tmp_path, 50_000), np.random.default_rng(0)
    for _ in range(60):
        key = f"k{random.integers(20)}"
        cache.put("trace", key, {"x": np.zeros(random.integers(2000))})
        on_disk = sum(path.stat().st_size for path in tmp_path.rglob("*.npz"))
        assert cache.usage == on_disk <= 50_000


def test_objects_are_not_pickled(root: Path, open_workspace: Open) -> None:
    with pytest.raises(TypeError, match="holds objects; expected numbers or str"):
        open_workspace().put_arrays("trace", "k", {"x": np.array([{}], dtype=object)})
    assert not _file(root).exists()


@pytest.mark.parametrize(
    ("kind", "key"),
    [("../x", "k"), ("", "k"), ("Trace", "k"), ("t", "../k"), ("t", ""), ("t", "K"), ("t", "a/b")],
)
def test_names_that_make_no_file(open_workspace: Open, kind: str, key: str) -> None:
    workspace = open_workspace()
    with pytest.raises(ValueError, match="become file names; expected small letters"):
        workspace.put_arrays(kind, key, {})
    with pytest.raises(ValueError, match="become file names"):
        workspace.get_arrays(kind, key)


def test_a_full_disk(
    root: Path,
    open_workspace: Open,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    workspace = open_workspace()
    workspace.put_arrays("trace", "k", {"x": np.zeros(2)})

    def full(target: Path, members: object) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(arrays, "_save", full)
    with caplog.at_level(logging.WARNING, "topsideas.workspace"):
        workspace.put_arrays("trace", "k", {"x": np.ones(2)})
    assert "cannot cache arrays in the workspace: No space" in caplog.text
    found = workspace.get_arrays("trace", "k")
    assert found is not None
    assert found["x"].tolist() == [0, 0]
    assert [path.name for path in _file(root).parent.iterdir()] == ["k.npz"]


def test_a_killed_write_is_cleared_away(root: Path, open_workspace: Open) -> None:
    open_workspace().put_arrays("trace", "k", {})
    leftover = _file(root).with_name(".topsideas-tmp.k.npz")
    leftover.write_bytes(b"half")
    assert open_workspace().get_arrays("trace", "k") == {}
    assert not leftover.exists()
