"""The script for the shell knows the whole command line, and the shell takes it."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from topsideas.cli import main
from topsideas.cli.arguments import build_parser

# Sources the script in $1, and completes the words that follow.
_COMPLETE = """set -e
source "./$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
_shtab_topsideas topsideas "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def _script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["completion", shell]) == 0
    return capsys.readouterr().out


def _commands(parser: argparse.ArgumentParser, *path: str) -> Iterator[tuple[str, list[str]]]:
    yield " ".join(path), [flag for action in parser._actions for flag in action.option_strings]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from _commands(child, *path, name)


COMMANDS = dict(_commands(build_parser()))


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_shell_parses_the_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    script = _script(shell, capsys)
    subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_bash_names_every_flag_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    script = _script("bash", capsys)
    assert len(COMMANDS) > 10
    for path, flags in COMMANDS.items():
        name = "_".join(["_shtab_topsideas", *path.split()])
        assert f"{name}_option_strings=({' '.join(flags)})" in script


def test_zsh_names_every_flag_and_command(capsys: pytest.CaptureFixture[str]) -> None:
    script = _script("zsh", capsys)
    for path, flags in COMMANDS.items():
        assert "_".join(["_shtab_topsideas", *path.split()]) in script
        assert [flag for flag in flags if flag not in script] == []


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["onnx", ""], {"mix_precision", "convert", "export", "verify", "report", "compare"}),
        (["gcu", "mix_precision", "--mod"], {"--mode"}),
        (["gcu", "mix_precision", "--mode", ""], {"RAW", "CALC"}),
        (["onnx", "convert", "--input_onnx", "mod"], {"model.onnx"}),
    ],
)
def test_bash_completes(
    typed: list[str], offered: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    (tmp_path / "model.onnx").touch()
    (tmp_path / "completion.sh").write_text(_script("bash", capsys), encoding="utf-8")
    done = subprocess.run(
        [bash, "--norc", "-c", _COMPLETE, "bash", "completion.sh", "topsideas", *typed],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == offered
