from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from topsideas.workspace import Workspace

FINGERPRINT = {"model": "abc", "engine": {"name": "emulator", "options": {"level": 1}}}


@pytest.fixture
def fingerprint() -> dict[str, object]:
    return dict(FINGERPRINT)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "ws"


@pytest.fixture
def open_workspace(root: Path) -> Iterator[Callable[..., Workspace]]:
    """Open the test's workspace; the one opened before is closed."""
    opened: list[Workspace] = []

    def _open(**options: object) -> Workspace:
        while opened:
            opened.pop().close()
        opened.append(Workspace.open(root, options.pop("fingerprint", FINGERPRINT), **options))
        return opened[-1]

    yield _open
    while opened:
        opened.pop().close()
