"""The plan as a list: for people, for scripts, and for ``--fp32_nodes @FILE``."""

from __future__ import annotations

import json
from typing import Any

from topsideas.formats.base import Order, Written


def write(order: Order) -> Written:
    """Write the list as JSON.

    ``fp32_nodes`` holds the ids of the plan; ``fp32_ops`` describes them, and ``pinned_ops`` the
    ops that stay fp32 under every plan.
    """
    document = json.dumps(_document(order), indent=2, allow_nan=False)
    order.path.write_text(document + "\n", encoding="utf-8")
    return Written((order.path,), ("read by --fp32_nodes @FILE",))


def _document(order: Order) -> dict[str, Any]:
    model, kept = order.model, order.plan.kept & order.model.candidates
    fp32 = order.fp32_ids
    rows = {
        op.id: {"id": op.id, "path": op.path, "name": op.name, "type": op.type} for op in model.ops
    }
    return {
        "model": {"path": str(model.path) if model.path else None, "sha256": model.digest},
        "functions_inlined": model.inlined,
        "precision": order.numerics.precision.name,
        "fp32_nodes": sorted(kept),
        "fp32_ops": [rows[i] for i in sorted(kept)],
        "pinned_ops": [rows[i] for i in sorted(fp32 - kept)],
    }
