"""The record of the files the tool wrote for the user, so that cleaning touches no others."""

from __future__ import annotations

import json
import logging
from pathlib import Path, PurePosixPath, PureWindowsPath

from topsideas.errors import WorkspaceError
from topsideas.workspace.files import (
    remove_empty,
    remove_file,
    remove_leftovers_of,
    replace_file,
)
from topsideas.workspace.keys import key_of

PRIVATE = ".topsideas"
"""The tool's own folder inside the workspace."""

_log = logging.getLogger("topsideas.workspace")


class Manifest:
    """Which names in a workspace are the tool's.

    A name is recorded before anything is written under it: a killed run leaves no file that
    cleaning would miss.

    Args:
        root: The workspace.
        path: Where the record is kept.
    """

    def __init__(self, root: Path, path: Path) -> None:
        self._root = root
        self._path = path
        self._names = {name for name in self._load() if self._is_safe(name)}
        for name in self._names:
            remove_leftovers_of(root / name)

    def claim(self, name: str) -> Path:
        """The path of an artefact, now recorded as the tool's; its folders are made.

        Raises:
            WorkspaceError: The name leaves the workspace, or is a file of the user's.
        """
        target = self._contained(name)
        name = target.relative_to(self._root).as_posix()
        if name not in self._names:
            if target.is_symlink() or (target.exists() and not _is_empty_folder(target)):
                raise WorkspaceError(
                    f"{target}: exists and was not written by topsideas, so it is not "
                    "overwritten; move it away or use another --workspace"
                )
            self._record([name, *self._missing_folders(target)])
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def claim_tree(self, name: str) -> None:
        """Record every file that now lies in a claimed folder."""
        folder = self.claim(name)
        self._record([p.relative_to(self._root).as_posix() for p in folder.rglob("*")])

    def files(self) -> list[Path]:
        """The recorded files that exist."""
        paths = [self._root / name for name in self._names]
        return [path for path in paths if path.is_file() and not path.is_symlink()]

    def clean(self) -> None:
        """Remove what is recorded: files, then the folders that this leaves empty."""
        # Deepest first, so that a folder is looked at after what it holds.
        for name in sorted(self._names, key=lambda name: name.count("/"), reverse=True):
            remove_file(self._root / name)
            remove_empty(self._root / name)
        self._names = set()
        remove_file(self._path)

    def _is_safe(self, name: str) -> bool:
        """Whether a recorded name may be removed: links may have been laid since."""
        try:
            self._contained(name)
        except WorkspaceError as error:
            _log.warning("the record of written files is not followed: %s", error)
            return False
        return True

    def _contained(self, name: str) -> Path:
        parts = PurePosixPath(name).parts
        foreign = PureWindowsPath(name).is_absolute() or PurePosixPath(name).is_absolute()
        target = self._root.joinpath(*parts) if not foreign else self._root
        if (
            target == self._root
            or ".." in parts
            or parts[0].casefold() == PRIVATE
            or not target.parent.resolve().is_relative_to(self._root.resolve())
        ):
            raise WorkspaceError(
                f"{name!r} is not a name for a file in the workspace {self._root}; expected a "
                f"relative path that stays inside it and outside {PRIVATE}"
            )
        return target

    def _missing_folders(self, target: Path) -> list[str]:
        """The folders that claiming ``target`` will make."""
        parents = [p for p in target.parents if p.is_relative_to(self._root) and p != self._root]
        return [p.relative_to(self._root).as_posix() for p in parents if not p.exists()]

    def _record(self, names: list[str]) -> None:
        if not self._names.issuperset(names):
            self._names.update(names)
            listed = sorted(self._names)
            content = {"names": listed, "sha256": key_of(*listed)}
            replace_file(self._path, json.dumps(content, indent=1).encode())

    def _load(self) -> set[str]:
        try:
            content = json.loads(self._path.read_bytes())
            names = content["names"] if isinstance(content, dict) else content
            # One letter that a disk changed would make a file of the user's one to be cleaned
            # away. Earlier versions wrote the list alone.
            sound = content is names or content.get("sha256") == key_of(*names)
            if sound and isinstance(names, list) and all(isinstance(name, str) for name in names):
                return set(names)
        except FileNotFoundError:
            return set()
        except (ValueError, RecursionError, KeyError, TypeError):
            pass
        _log.warning(
            "%s: the list of written files is damaged; files written earlier now count as the "
            "user's and are neither overwritten nor cleaned",
            self._path,
        )
        return set()


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
