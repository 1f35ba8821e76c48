"""``topsideas completion``: what a shell needs to complete this command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from topsideas.cli.subcommand import add_subcommand

_DESCRIPTION = """\
Prints a script with which the shell completes commands, flags, choices, and
the names of files.
"""

_EPILOG = """\
examples:
  bash, for one session; and for all that follow:
    source <(topsideas completion bash)
    topsideas completion bash > \\
        ~/.local/share/bash-completion/completions/topsideas
  zsh, into a folder of $fpath:
    topsideas completion zsh > ~/.zfunc/_topsideas
"""

_FILES = {"PATH", "FILE", "REPORT", "A", "B"}
_FOLDERS = {"DIR"}


def add_completion(
    commands: argparse._SubParsersAction[Any], whole: argparse.ArgumentParser
) -> None:
    """Add the command to a parser's subcommands.

    Args:
        commands: Where it is added.
        whole: The parser that the script completes.
    """
    parser = add_subcommand(
        commands,
        "completion",
        module=__name__,
        summary="a script with which bash or zsh completes this command",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.set_defaults(whole=whole)
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell")


def run(args: argparse.Namespace, words: Sequence[str]) -> int:
    """Print the script; always 0.

    Args:
        args: Parsed arguments.
        words: The command line as typed.
    """
    import shtab

    for action in _actions(args.whole):
        if action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    print(shtab.complete(args.whole, args.shell))  # noqa: T201
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Of a command and of all below it."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _actions(child)
