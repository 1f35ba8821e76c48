"""Questions to a process of its own, which an engine may crash: JSON goes in, JSON comes out."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from topsideas.engines.isolated.process import how_it_ended
from topsideas.errors import EngineError

_LINES = 5


def ask(
    module: str, question: dict[str, Any], seconds: float, python: str | None = None
) -> dict[str, Any]:
    """What a module answers: the last JSON object that it prints, whatever else is printed.

    Args:
        module: Run with ``-m``; its first argument is the question.
        question: JSON values.
        seconds: How long it may take.
        python: The Python that runs it; None for this one.

    Raises:
        EngineError: It cannot start, gives no answer in time, or ends without one.
    """
    command = [python or sys.executable, "-m", module, json.dumps(question)]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"its process gave no answer within {seconds:g} s") from error
    except OSError as error:
        raise EngineError(f"{command[0]}: {error.strerror}") from error
    for line in reversed(done.stdout.decode("utf-8", "replace").splitlines()):
        found = _object(line)
        if found is not None:
            return found
    log = done.stderr.decode("utf-8", "replace").strip().splitlines()[-_LINES:]
    end = f"; its log ends: {' | '.join(log)}" if log else ""
    raise EngineError(f"its process ended without an answer: {how_it_ended(done.returncode)}{end}")


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
