"""Flags that say who runs the plans of a search."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
from argparse import Namespace
from typing import TYPE_CHECKING

from topsideas.cli.values import positive
from topsideas.errors import UsageError

if TYPE_CHECKING:
    from topsideas.executors.base import Executor


def add_device(group: argparse._ArgumentGroup) -> None:
    """Add ``--device``."""
    group.add_argument(
        "--device",
        type=_devices,
        default=0,
        metavar="ID[,ID...]",
        help="device (card) id; of several, each worker owns one (default: 0)",
    )


def add_cluster(group: argparse._ActionsContainer) -> None:
    """Add ``--cluster``."""
    group.add_argument(
        "--cluster",
        type=int,
        nargs="*",
        default=[-1],
        metavar="ID",
        help="cluster ids (default: -1, all)",
    )


def add_workers(group: argparse._ArgumentGroup) -> None:
    """Add the flags of a search by several workers."""
    add = group.add_argument
    add(
        "--ray_address",
        metavar="ADDRESS",
        help="search on Ray: local starts it on this machine, auto joins the cluster that this "
        "machine belongs to, ray://HOST:PORT one elsewhere; needs topsideas[ray]",
    )
    add(
        "--workers",
        type=positive,
        metavar="N",
        help="how many workers judge plans (default: one per --device, else one per processor; "
        "implies --ray_address local)",
    )
    add(
        "--worker_resources",
        default="{}",
        metavar="JSON",
        help='what Ray must set aside for a worker, like {"GPU": 1} (default: {})',
    )


def devices(args: Namespace) -> list[int]:
    """The cards that were named."""
    return list(args.device) if isinstance(args.device, list) else [args.device]


def executor(args: Namespace) -> Executor | None:
    """Who runs plans: Ray's workers where they are asked for, else this process.

    Raises UsageError.
    """
    from topsideas.executors.ray_pool import RayExecutor
    from topsideas.executors.ray_start import LOCAL

    cards, resources = devices(args), _resources(args.worker_resources)
    if args.ray_address is None and args.workers is None:
        if len(cards) > 1 or resources:
            flag = "--worker_resources" if resources else f"--device {','.join(map(str, cards))}"
            raise UsageError(f"{flag} is for several workers; expected --ray_address too")
        return None
    several = cards if len(cards) > 1 else ()
    return RayExecutor(args.ray_address or LOCAL, args.workers, several, resources)


def _resources(text: str) -> dict[str, float]:
    """What a worker needs, by name. Raises UsageError."""
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict) and all(_amount(value) for value in found.values()):
            return found
    raise UsageError(
        f'--worker_resources {text!r}: expected a JSON object of numbers, like {{"GPU": 1}}'
    )


def _amount(value: object) -> bool:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain and 0 <= value < math.inf  # type: ignore[operator]


def _devices(text: str) -> int | list[int]:
    """One id, or several that differ."""
    parts = text.split(",")
    if all(part.isascii() and part.isdigit() for part in parts):
        ids = [int(part) for part in parts]
        if len(set(ids)) == len(ids):
            return ids if len(ids) > 1 else ids[0]
    raise argparse.ArgumentTypeError(
        f"{text!r}: expected a whole number of at least 0, or several with commas between them"
    )
