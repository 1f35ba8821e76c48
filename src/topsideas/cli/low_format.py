"""``--precision`` and ``--overflow``, as every command that has them takes them."""

from __future__ import annotations

import argparse

from topsideas.precision import PRECISIONS, Overflow

# What a value beyond the range becomes on each target, where nobody says.
OVERFLOW_OF_TARGET = {"gcu": "saturate", "onnx": "inf"}


def add_low_format(
    group: argparse._ActionsContainer,
    *,
    precision: str | None = None,
    overflow: str | None = None,
    of_precision: str = "",
    of_overflow: str = "",
    what: str = "a value",
) -> None:
    """Add the two flags.

    Args:
        group: A parser, or a group of its arguments.
        precision: The default; None where it is found out later.
        overflow: The same.
        of_precision: What the default is then, for the help.
        of_overflow: The same.
        what: What overflows.
    """
    group.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        default=precision,
        help=f"the low precision (default: {precision or of_precision})",
    )
    group.add_argument(
        "--overflow",
        choices=tuple(kind.value for kind in Overflow),
        default=overflow,
        help=f"what {what} beyond the low format becomes (default: {overflow or of_overflow})",
    )
