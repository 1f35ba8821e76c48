"""Op ids carried over from a model in memory to the same model read from a file."""

from __future__ import annotations

import onnx_ir as ir

from topsideas.errors import ModelError
from topsideas.graph.ops import number, op_id


def carry_over(numbered: ir.Model, read: ir.Model) -> None:
    """Give the nodes of ``read`` the ids that the same nodes of ``numbered`` bear.

    Nodes are matched by their outputs' names within their graph; constants may have become
    initializers on the way.

    Raises:
        ModelError: ``read`` is not the same model.
    """
    pairs = list(zip(numbered.graphs(), read.graphs(), strict=False))
    if len(list(numbered.graphs())) != len(list(read.graphs())):
        raise ModelError("the file holds another number of graphs than the model written to it")
    for before, after in pairs:
        ids = {_key(node): op_id(node) for node in before}
        for node in after:
            if _key(node) not in ids:
                raise ModelError(f"the file holds a node {node.name!r} that was not written")
            number(node, ids[_key(node)])
        missing = {k for k in ids if k[0] != "Constant"} - {_key(node) for node in after}
        if missing:
            raise ModelError(f"the file lacks {len(missing)} nodes that were written to it")


def _key(node: ir.Node) -> tuple[str, str, tuple[str | None, ...]]:
    return node.op_type, node.domain, tuple(output.name or "" for output in node.outputs)
