"""The environments that tools run in: made on demand from ``requirements-NAME.txt``."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
_FOLDER = HERE / ".venvs"


class NoEnvironment(Exception):  # noqa: N818 - it becomes a row of the table
    """An environment could not be made; the message is the reason."""


def interpreter(name: str) -> str:
    """The Python that a tool runs in; an empty name is the project's own.

    Raises:
        NoEnvironment: Its packages could not be installed.
    """
    if not name:
        return sys.executable
    requirements, folder = HERE / f"requirements-{name}.txt", _FOLDER / name
    python, stamp = folder / "bin" / "python", folder / "installed"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != digest:
        print(f"making the environment {name!r} from {requirements.name}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        _install(python, requirements)
        stamp.write_text(digest, encoding="utf-8")
    return str(python)


def _install(python: Path, requirements: Path) -> None:
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run = subprocess.run(
        [*pip, "--requirement", str(requirements)], capture_output=True, text=True, check=False
    )
    if run.returncode:
        lines = run.stderr.strip().splitlines() or [f"pip ended with {run.returncode}"]
        raise NoEnvironment(lines[-1])
