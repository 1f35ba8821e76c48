"""A question to another process: what it answers, and how one that does not answer is told."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from topsideas.cli.asking import ask
from topsideas.errors import EngineError

_CASES = {
    "answers": ("print('{\"a\": 1}')", ""),
    "noise_around": ("print('hello'); print('{\"a\": 1}'); print('3'); print('bye \\udcff')", ""),
    "dies": (
        "import os, sys; print('no licence', file=sys.stderr, flush=True); os.abort()",
        "ended without an answer: killed by SIGABRT; its log ends: no licence",
    ),
    "says_nothing": ("pass", "ended without an answer: exit code 0"),
    "hangs": ("import time; time.sleep(60)", "gave no answer within 3 s"),
}


@pytest.mark.parametrize("name", _CASES)
def test_the_last_object_is_the_answer(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, error = _CASES[name]
    (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:surrogateescape")
    seconds = 3 if name == "hangs" else 60
    if not error:
        assert ask(name, {}, seconds) == {"a": 1}
        assert ask(name, {}, seconds, sys.executable) == {"a": 1}
        return
    with pytest.raises(EngineError, match=error):
        ask(name, {}, seconds)


def test_a_python_that_is_not_there() -> None:
    with pytest.raises(EngineError, match="/no/such/python: No such file"):
        ask("json", {}, 60, "/no/such/python")
