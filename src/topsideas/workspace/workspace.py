"""The folder that runs on one model and one set of options share."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import filelock

from topsideas.errors import WorkspaceError
from topsideas.workspace.arrays import Array, ArrayCache
from topsideas.workspace.files import (
    Content,
    os_errors,
    remove_file,
    remove_leftovers,
    replace_file,
    size_of,
)
from topsideas.workspace.journal import Journal
from topsideas.workspace.manifest import PRIVATE, Manifest
from topsideas.workspace.marker import check_fingerprint, check_format, write_marker

_log = logging.getLogger("topsideas.workspace")

ARRAY_LIMIT = 4 << 30
"""Bytes that cached arrays may take on disk."""

_MARKER = "workspace.json"
_MANIFEST = "manifest.json"
_JOURNAL = "journal.sqlite"
_ARRAYS = "arrays"
_LOCK = "lock"
# Backup tools skip folders with such a tag; see https://bford.info/cachedir/.
_TAGS = {
    "CACHEDIR.TAG": b"Signature: 8a477f597d28d172789f06886806bc55\n# A cache of topsideas.\n",
    ".gitignore": b"*\n",
}


class Workspace:
    """An open workspace: locked against other runs, and made for one fingerprint.

    The tool's own files are in ``.topsideas``; artefacts for the user lie beside it.
    Use :meth:`open`, best as a context manager.
    """

    def __init__(
        self, root: Path, manifest: Manifest, journal: Journal, arrays: ArrayCache
    ) -> None:
        self.root = root
        self._manifest = manifest
        self._journal = journal
        self._arrays = arrays
        self._closing = contextlib.ExitStack()

    @classmethod
    def open(
        cls,
        path: str | Path,
        fingerprint: Mapping[str, object],
        *,
        clean: bool = False,
        array_limit: int = ARRAY_LIMIT,
    ) -> Workspace:
        """Open a workspace; the folder is made if it is missing.

        Args:
            path: The folder. It may hold files of the user's, which are never touched.
            fingerprint: JSON values by name that must be the same for all runs that share it.
            clean: Remove all that earlier runs wrote there first.
            array_limit: Bytes that cached arrays may take on disk.

        Raises:
            WorkspaceError: It belongs to something else, is in use, damaged, of a newer
                version, or cannot be written.
        """
        if not str(path):  # of a shell's variable that is not set
            raise WorkspaceError("the path of the workspace is empty; expected a folder")
        root = Path(path).absolute()
        private = root / PRIVATE
        with os_errors(root, "open the workspace"), contextlib.ExitStack() as undo:
            _make_folder(root)
            _refuse_links(private)
            undo.callback(_locked(root).release)
            manifest = _prepared(root, fingerprint, clean=clean)
            journal = Journal(private / _JOURNAL)
            undo.callback(journal.close)
            workspace = cls(root, manifest, journal, ArrayCache(private / _ARRAYS, array_limit))
            workspace._closing = undo.pop_all()
            return workspace

    def close(self) -> None:
        """Let other runs in."""
        self._closing.close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def get(self, kind: str, key: str) -> object | None:
        """The JSON value on record; None if there is none or it is damaged."""
        return self._journal.get(kind, key)

    def put(self, kind: str, key: str, value: object) -> None:
        """Record a JSON value, for good once this returns.

        Raises:
            TypeError: The value is not JSON.
            ValueError: The value is None or holds NaN or infinity.
        """
        self._journal.put(kind, key, value)

    def forget(self) -> None:
        """Drop all values and cached arrays: they turned out not to be what they were kept as."""
        self._journal.clear()
        self._arrays.clean()

    def get_arrays(self, kind: str, key: str) -> dict[str, Array] | None:
        """Cached arrays by name; None if they are not there or damaged."""
        return self._arrays.get(kind, key)

    def put_arrays(self, kind: str, key: str, arrays: Mapping[str, Array]) -> None:
        """Cache arrays. They may be evicted later, and are not kept where the disk is full."""
        try:
            with os_errors(self.root, "cache arrays in the workspace"):
                self._arrays.put(kind, key, arrays)
        except WorkspaceError as error:  # what is missing in a cache is computed again
            _log.warning("%s", error)

    def path(self, name: str) -> Path:
        """Where an artefact belongs, now recorded as the tool's.

        Raises:
            WorkspaceError: The name leaves the workspace, or a file of the user's is there.
        """
        with os_errors(self.root, f"make room for {name} in the workspace"):
            return self._manifest.claim(name)

    def adopt(self, name: str) -> None:
        """Record the files that an engine wrote into the folder ``name`` as the tool's."""
        with os_errors(self.root, f"record {name} in the workspace"):
            self._manifest.claim_tree(name)

    def write_atomic(self, name: str, content: Content) -> Path:
        """Write an artefact: readers see the old content or the new, never a part.

        Args:
            name: Relative to the workspace.
            content: Bytes, or a function that writes them to the path it is called with.
        """
        target = self.path(name)
        with os_errors(target, "write"):
            replace_file(target, content)
        return target

    def usage(self) -> int:
        """Bytes on disk: the tool's own files and its artefacts."""
        own = [p for p in (self.root / PRIVATE).rglob("*") if p.is_file()]
        return sum(size_of(path) for path in [*own, *self._manifest.files()])


def _make_folder(root: Path) -> None:
    if root.exists() and not root.is_dir():
        raise WorkspaceError(f"{root}: is a file, expected a folder for the workspace")
    (root / PRIVATE).mkdir(parents=True, exist_ok=True)


def _refuse_links(private: Path) -> None:
    """A link that came with somebody's folder would lead what is written here to elsewhere."""
    for path in (private, *private.rglob("*")):
        if path.is_symlink():
            raise WorkspaceError(
                f"{path}: is a link, and nothing is written outside the workspace; expected the "
                "tool's own files; remove the link or use another --workspace"
            )


def _locked(root: Path) -> filelock.BaseFileLock:
    # Not bound to a thread: the run may end in another one than it began in.
    lock = filelock.FileLock(root / PRIVATE / _LOCK, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise WorkspaceError(
            f"{root}: the workspace is in use by another run; wait until it ends or use another "
            "--workspace"
        ) from error
    except NotImplementedError as error:
        raise WorkspaceError(
            f"{root}: the file system has no file locks; use a --workspace on another disk"
        ) from error
    return lock


def _prepared(root: Path, fingerprint: Mapping[str, object], *, clean: bool) -> Manifest:
    """Bring the folder into the state that ``fingerprint`` asks for, or refuse."""
    private = root / PRIVATE
    marker = private / _MARKER
    if marker.exists():
        check_format(marker)
    manifest = Manifest(root, private / _MANIFEST)
    if clean:
        _clean(private, manifest)
    if marker.exists():
        check_fingerprint(marker, fingerprint)
    elif (private / _JOURNAL).is_file() or any((private / _ARRAYS).glob("*/*.npz")):
        raise WorkspaceError(
            f"{marker}: is missing although results are there, so they may belong to another "
            "model; pass --clean to remove them or use another --workspace"
        )
    else:
        write_marker(marker, fingerprint)
    remove_leftovers(private)
    for name, content in _TAGS.items():
        if not (private / name).exists():
            (private / name).write_bytes(content)
    return manifest


def _clean(private: Path, manifest: Manifest) -> None:
    """Remove what the tool wrote, by name: a stray file of the user's stays even in here."""
    manifest.clean()
    ArrayCache(private / _ARRAYS, limit=0).clean()
    for path in [*private.glob(f"{_JOURNAL}*"), private / _MARKER]:
        remove_file(path)
