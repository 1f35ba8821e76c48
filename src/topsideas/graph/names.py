"""Names for what the tool inserts."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir


class Names:
    """Gives out names that no value and no node bears.

    Args:
        graphs: A main graph and all its bodies, however deep.
    """

    def __init__(self, graphs: Iterable[ir.Graph]) -> None:
        self._taken: set[str | None] = set()
        for graph in graphs:
            self._taken |= {v.name for v in (*graph.inputs, *graph.initializers.values())}
            for node in graph:
                self._taken |= {node.name, *(v.name for v in node.outputs)}

    def fresh(self, wish: str) -> str:
        """``wish``, with a number behind it if it is taken."""
        name, count = wish, 0
        while name in self._taken:
            count += 1
            name = f"{wish}_{count}"
        self._taken.add(name)
        return name
