"""``--list_ops``: every op, and whether it may run low."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from topsideas.graph.loading import Model
from topsideas.graph.ops import Op
from topsideas.report.output import standard_output
from topsideas.report.text import printable


def list_ops(model: Model) -> None:
    """Print the ops of a model in id order."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("id", "path", "name", "type", "output shapes", "precision"):
        table.add_column(heading, justify="right" if heading == "id" else "left", overflow="fold")
    for op in model.ops:
        low = "candidate" if op.candidate else f"pinned: {op.reason}"
        cells = (str(op.id), op.path, op.name, op.type, _shapes(op), low)
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console = standard_output()
    console.print(table)
    console.print(f"{len(model.ops)} ops, {len(model.candidates)} candidates")


def _shapes(op: Op) -> str:
    return " ".join(
        "?" if s is None else "[" + ",".join("?" if d is None else str(d) for d in s) + "]"
        for s in op.shapes
    )
