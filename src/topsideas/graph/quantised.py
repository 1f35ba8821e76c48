"""Parts of a model that its user quantised: a low precision must leave them as they are."""

from __future__ import annotations

import onnx_ir as ir

_Q, _DQ = "QuantizeLinear", "DequantizeLinear"


def in_quantised_part(node: ir.Node) -> bool:
    """Whether a node computes on quantised activations, or is one of the pair that makes them.

    Compilers recognise ``Q -> DQ -> op`` and compute ``op`` in integers. A cast between the three
    would hide the pattern, and a rounded scale would change it. Weights that are stored quantised
    and only widened for their reader (a ``DequantizeLinear`` of a constant) are no such part.
    """
    if _is(node, _Q):
        return any(_is(use.node, _DQ) for use in node.outputs[0].uses())
    if _is(node, _DQ):
        return _dequantises_activations(node)
    producers = (value.producer() for value in node.inputs if value is not None)
    return any(p is not None and _dequantises_activations(p) for p in producers)


def _dequantises_activations(node: ir.Node) -> bool:
    value = node.inputs[0] if _is(node, _DQ) else None
    producer = value.producer() if value is not None else None
    return producer is not None and _is(producer, _Q)


def _is(node: ir.Node, op_type: str) -> bool:
    return node.op_type == op_type and node.domain in ("", "com.microsoft")
