"""Names by which other tools know ops: where the user's do not tell them apart, a renamed copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from topsideas.formats.base import Order
from topsideas.graph.conversion_files import write_model
from topsideas.graph.ops import op_id


@dataclass(frozen=True)
class Naming:
    """Names of ops.

    Attributes:
        names: By op id; unique.
        model: The copy of the model in which ops bear these names; None if the user's model
            serves.
        files: The files of the copy.
    """

    names: dict[int, str]
    model: Path | None
    files: tuple[Path, ...]

    def note(self) -> tuple[str, ...]:
        """What the reader must know of a copy."""
        if self.model is None:
            return ()
        line = (
            "that tool knows ops by name, and yours are missing, repeated or cannot be written: "
            f"give it {self.model.name}, the same model with other names"
        )
        return (line,)


def unique_names(order: Order, writable: Callable[[str], bool]) -> Naming:
    """A name for each op, and a renamed copy of the model beside ``order.path`` if one is needed.

    Args:
        order: The plan and its model.
        writable: Whether the format can hold a name.
    """
    model = order.model
    given = Counter(op.name for op in model.ops)
    names = {op.id: op.name for op in model.ops}
    good = all(name and given[name] == 1 and writable(name) for name in names.values())
    if good and not model.inlined:
        return Naming(names, None, ())
    names = _fresh(names, given, writable)
    copy = model.graph_model.clone()
    for graph in copy.graphs():
        for node in graph:
            node.name = names[op_id(node)]
    path = order.path.with_name(f"{order.path.stem}.named.onnx")
    return Naming(names, path, tuple(write_model(copy, path)))


def _fresh(
    names: dict[int, str], given: Counter[str], writable: Callable[[str], bool]
) -> dict[int, str]:
    """Names that were good stay, so that the user still knows them."""
    taken = set(names.values())
    found = {}
    for identity, name in names.items():
        if not name or given[name] > 1 or not writable(name):
            safe = "".join(c if c.isalnum() else "_" for c in name) or "op"
            name = f"{safe}_{identity}"
            while name in taken:
                name += "_"
            taken.add(name)
        found[identity] = name
    return found
