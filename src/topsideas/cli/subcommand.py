"""What all subcommands have in common: the look of their help, and the module that runs them."""

from __future__ import annotations

import argparse
from typing import Any

from rich_argparse import RawDescriptionRichHelpFormatter


def add_subcommand(
    commands: argparse._SubParsersAction[Any],
    name: str,
    *,
    module: str,
    summary: str,
    description: str,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    """Add a subcommand; returns its parser.

    Args:
        commands: Where it is added.
        name: What the user types.
        module: The module whose ``run`` is called.
        summary: Its line in the help of ``commands``.
        description: Begins its own help.
        epilog: Ends it.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=RawDescriptionRichHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(module=module)
    return parser
