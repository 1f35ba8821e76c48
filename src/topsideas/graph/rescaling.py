"""Powers of two that keep a part of a network within the range of a low format.

A value that is scaled by ``2**-e`` is followed through ops that hand a factor on; where the
original fits the range again, it is scaled back. A power of two costs no accuracy as long as
nothing becomes subnormal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from topsideas.graph.constants import constant
from topsideas.graph.ops import op_id
from topsideas.graph.repairs import NotApplicable, Workbench

# Ops whose output has the factor of their first input.
_SAME = {"Relu", "LeakyRelu", "Neg", "Abs", "Identity", "Dropout", "Reshape", "Transpose"}
_SAME |= {"Flatten", "Squeeze", "Unsqueeze", "Slice", "Expand", "Tile", "Pad", "Gather"}
_SAME |= {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "DepthToSpace"}
_SAME |= {f"Reduce{kind}" for kind in ("Mean", "Sum", "Max", "Min", "L1", "L2")}
# Ops all of whose inputs must have the same factor, which the output then has.
_TOGETHER = frozenset(["Add", "Sub", "Sum", "Max", "Min", "Concat", "Clip", "Mean"])
# Ops that multiply their first two inputs; a third is added to that.
_PRODUCT = frozenset(["Mul", "MatMul", "Conv", "ConvTranspose", "Gemm"])
_POWERS: Mapping[str, float] = {"Sqrt": 0.5, "Reciprocal": -1.0, "ReduceSumSquare": 2.0}


@dataclass(frozen=True, slots=True)
class Rescale:
    """What one op writes is made smaller, and what follows is led back.

    Attributes:
        source: The op.
        exponent: What it reads is multiplied by ``2**-exponent``.
        most: For each op the largest magnitude that it writes.
        limit: The largest magnitude of the low format.
    """

    source: int
    exponent: int
    most: Mapping[int, float]
    limit: float

    def __call__(self, bench: Workbench) -> list[str]:
        """Change the model. Raises NotApplicable."""
        return _Rescaling(bench, self.most, self.limit).run(self.source, self.exponent)


@dataclass
class _Rescaling:
    """One rescaling in place; ``factors`` are the exponents of the values that are scaled."""

    bench: Workbench
    most: Mapping[int, float]
    limit: float
    factors: dict[ir.Value, float] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)

    def run(self, source: int, exponent: int) -> list[str]:
        node = self.bench.node(source)
        self._begin(node, exponent)
        nodes = list(self.bench.graph)
        for later in nodes[nodes.index(node) :]:
            if any(v in self.factors for v in later.inputs if v is not None):
                self._lead(later)
            elif any(v in self.factors for b in later.attributes.values() for v in _captured(b)):
                raise NotApplicable("a body reads what is scaled")
        if any(v.is_graph_output() for v in self.factors):
            raise NotApplicable("an output of the model would be scaled")
        return self.changes

    def _begin(self, node: ir.Node, exponent: int) -> None:
        """Scale a weight of the op if it has one, else what it reads."""
        if node.op_type in _PRODUCT:
            for index, value in enumerate(node.inputs[:2]):
                tensor = constant(value) if value is not None else None
                if value is not None and tensor is not None:
                    self._scale_constant(node, index, exponent)
                    self._add_bias(node, exponent)
                    self.changes.append(f"weight of op {op_id(node)} times 2^-{exponent}")
                    self._finish(node, exponent)
                    return
        value = node.inputs[0]
        if value is None or constant(value) is not None:
            raise NotApplicable("the op reads nothing that could be scaled")
        factor = self.bench.constant(np.array(2.0**-exponent, np.float32), "factor")
        scaled = self.bench.insert_after(value, "Mul", factor, only={node})
        self.changes.append(f"what op {op_id(node)} reads times 2^-{exponent}")
        self.factors[scaled] = exponent
        self._lead(node)
        del self.factors[scaled]

    def _lead(self, node: ir.Node) -> None:
        """Lead the factor of what a node reads to what it writes."""
        if node.op_type == "Log" and not node.domain:
            return self._through_log(node)
        rule = self._rule(node)
        if rule is None:
            raise NotApplicable(f"{node.op_type} hands no factor on")
        return self._finish(node, rule(node))

    def _rule(self, node: ir.Node) -> Callable[[ir.Node], float] | None:
        if node.domain or len(node.outputs) != 1:
            return None
        if node.op_type in _SAME:
            return lambda n: self._factor(n.inputs[0])
        if node.op_type in _POWERS:
            return lambda n: self._factor(n.inputs[0]) * _POWERS[n.op_type]
        rules = {"Pow": self._power, "Div": self._quotient}
        rules |= dict.fromkeys(_PRODUCT, self._product) | dict.fromkeys(_TOGETHER, self._together)
        return rules.get(node.op_type)

    def _factor(self, value: ir.Value | None) -> float:
        return self.factors.get(value, 0.0) if value is not None else 0.0

    def _product(self, node: ir.Node) -> float:
        factor = self._factor(node.inputs[0]) + self._factor(node.inputs[1])
        self._add_bias(node, factor)
        return factor

    def _quotient(self, node: ir.Node) -> float:
        return self._factor(node.inputs[0]) - self._factor(node.inputs[1])

    def _power(self, node: ir.Node) -> float:
        tensor = constant(node.inputs[1]) if node.inputs[1] is not None else None
        if tensor is None or tensor.numpy().size != 1:
            raise NotApplicable("Pow by what is computed hands no factor on")
        return self._factor(node.inputs[0]) * float(tensor.numpy().reshape(()))

    def _together(self, node: ir.Node) -> float:
        """Bring all inputs to one factor, the largest."""
        factor = max((self._factor(v) for v in node.inputs), key=abs)
        for index, value in enumerate(node.inputs):
            if value is None or self._factor(value) == factor:
                continue
            if constant(value) is not None:
                self._scale_constant(node, index, factor)
                continue
            missing = np.array(2.0 ** (self._factor(value) - factor), np.float32)
            step = self.bench.constant(missing, "factor")
            self.bench.insert_after(value, "Mul", step, only={node})
        return factor

    def _add_bias(self, node: ir.Node, factor: float) -> None:
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        if bias is None:
            return
        if constant(bias) is None:
            raise NotApplicable("a bias is computed")
        self._scale_constant(node, 2, factor)

    def _scale_constant(self, node: ir.Node, index: int, factor: float) -> None:
        value = node.inputs[index]
        assert value is not None
        tensor = constant(value)
        assert tensor is not None
        scaled = np.asarray(tensor.numpy() * np.float32(2.0**-factor), np.float32)
        node.replace_input_with(index, self.bench.constant(scaled, value.name or ""))

    def _through_log(self, node: ir.Node) -> None:
        """``log(x)`` is ``log(x * 2**-e) + e * log(2)``."""
        step = np.array(self._factor(node.inputs[0]) * math.log(2), np.float32)
        value = node.outputs[0]
        if value.is_graph_output():
            raise NotApplicable("an output of the model would be shifted")
        self.bench.insert_after(value, "Add", self.bench.constant(step, "shift"))
        self.changes.append(f"what op {op_id(node)} writes plus {float(step):.4g}")

    def _finish(self, node: ir.Node, factor: float) -> None:
        """Scale the output back if it fits, else remember its factor."""
        value, most = node.outputs[0], self.most.get(op_id(node), math.inf)
        if not factor:
            return
        if not float(factor).is_integer():
            raise NotApplicable("a factor is no power of two")
        if most * 2.0**-factor > self.limit / 2:
            raise NotApplicable("the factor does not bring it into range")
        if most > self.limit:
            self.factors[value] = factor
            return
        if value.is_graph_output():
            raise NotApplicable("an output of the model would be scaled")
        step = self.bench.constant(np.array(2.0**factor, np.float32), "factor")
        self.bench.insert_after(value, "Mul", step)
        self.changes.append(f"what op {op_id(node)} writes times 2^{factor:.0f}")


def _captured(attribute: ir.Attr) -> list[ir.Value]:
    """What the nodes of a body read."""
    if attribute.type != ir.AttributeType.GRAPH:
        return []
    body = attribute.as_graph()
    graphs = [body, *body.subgraphs()]
    return [v for g in graphs for n in g for v in n.inputs if v is not None]
