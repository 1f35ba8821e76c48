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


def add_engine_python(to: argparse._ActionsContainer, implies: str = "") -> None:
    """Add the flag that says which Python an engine's own process runs.

    Args:
        to: Where it is added.
        implies: What else it asks for.
    """
    to.add_argument(
        "--engine_python",
        metavar="PATH",
        help="the Python that runs the engine's process, with this topsideas and the engine's "
        f"packages installed, where that is another one{implies}",
    )
