"""ONNX Runtime's profile, read back: which provider ran which op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from topsideas.engines.typed import TypedModel

_KERNEL = "_kernel_time"


@dataclass(frozen=True, slots=True)
class Placed:
    """One kernel that ran.

    Attributes:
        kind: Its operator.
        provider: Who ran it.
        ops: The ops of the model that its name tells of; a fused kernel tells of one at most.
    """

    kind: str
    provider: str
    ops: tuple[int, ...]


def placed_nodes(events: Sequence[Mapping[str, Any]], typed: TypedModel) -> list[Placed]:
    """The kernels of a profile, in the order in which they ran, each once.

    Args:
        events: The parsed profile.
        typed: The model that was profiled.
    """
    found = {}
    for event in events:
        name, args = str(event.get("name", "")), event.get("args", {})
        if event.get("cat") != "Node" or not name.endswith(_KERNEL) or "provider" not in args:
            continue
        op = typed.op_of(name.removesuffix(_KERNEL))
        placed = Placed(args.get("op_name", "?"), args["provider"], () if op is None else (op,))
        found[name] = placed
    return list(found.values())
