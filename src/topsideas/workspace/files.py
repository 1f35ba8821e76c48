"""Writing files so that a reader sees the old content or the new, and nothing in between."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from topsideas.errors import WorkspaceError, reason

Content = bytes | Callable[[Path], object]

# A fixed name per target: what a killed run left behind can be found again and removed.
_TEMPORARY = ".topsideas-tmp."


@contextlib.contextmanager
def os_errors(path: Path, action: str) -> Iterator[None]:
    """Turn an OSError into a WorkspaceError that names the path and the system's reason."""
    try:
        yield
    except OSError as error:
        raise WorkspaceError(
            f"{path}: cannot {action}: {reason(error)}; expected a folder on a disk "
            "with free space that this user may write to"
        ) from error


def temporary_of(target: Path) -> Path:
    """Where the new content of ``target`` is written first; the suffix stays the same."""
    return target.with_name(_TEMPORARY + target.name)


def replace_file(target: Path, content: Content, *, durable: bool = True) -> None:
    """Give ``target`` new content in one step.

    Args:
        target: The file.
        content: Its bytes, or a function that writes them to the path it is called with.
        durable: Wait until the disk has them, so that they survive a power cut.
    """
    temporary = temporary_of(target)
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content)
        if durable:
            _sync(temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what killed runs were writing into a folder. Nobody else may be writing there."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        remove_file(path)


def remove_leftovers_of(target: Path) -> None:
    """Remove what killed runs were writing to replace ``target``; see :func:`remove_leftovers`."""
    for path in target.parent.glob(f"{glob.escape(_TEMPORARY + target.name)}*"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        remove_file(path)


def remove_file(path: Path) -> None:
    """Remove a file if it is there; a link is removed, not what it points to."""
    if path.is_symlink() or not path.is_dir():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()


def size_of(path: Path) -> int:
    """Bytes in a file; 0 if it is gone by now."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def remove_empty(folder: Path) -> None:
    """Remove a folder if it is there and empty."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _sync(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())
