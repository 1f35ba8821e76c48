"""A plan with fixed precisions, run as one session or, where that is too large, as a few."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from topsideas.engines.base import Arrays
from topsideas.engines.emulator import runtime
from topsideas.engines.emulator.compiled import Compiler
from topsideas.engines.emulator.segments import Segment, releases, segments
from topsideas.engines.emulator.store import Tensor
from topsideas.errors import EngineError
from topsideas.graph.constants import constant
from topsideas.graph.portable import portable
from topsideas.graph.switched import Switched

# Marks the emulator's executables, so that a plain model is not taken for one.
STAMP = "topsideas.numerics"

# Opening one session takes three times its weights for a while. From this size on a model is run
# in parts. This must not depend on the machine: fusions change last bits, and end at the parts.
_LARGE = 1 << 29


class Rooms(Protocol):
    """Gives compilers what memory there is for them."""

    def __call__(self, *, fused: bool) -> Compiler:
        """A compiler."""
        ...


def open_plan(model: ir.Model, rooms: Rooms, *, fused: bool) -> WholeModel | StagedModel:
    """An emulated model ready to run; it is changed, so pass a copy. Raises EngineError.

    Args:
        model: The model.
        rooms: Where it is to be run in parts, gives the compiler for them.
        fused: Let the runtime fuse neighbours.
    """
    tensors = (v.const_value for v in model.graph.initializers.values())
    if sum(t.nbytes for t in tensors if t is not None) < _LARGE:
        return WholeModel.open(model, fused=fused)
    parts = segments(Switched(model.graph, {}, {}, {}), length=math.inf)
    return StagedModel(model.graph, parts, rooms(fused=fused))


@dataclass(frozen=True)
class WholeModel:
    """A whole emulated model in one session.

    Attributes:
        session: The session.
        weights: Kept alive because the session refers to them.
    """

    session: ort.InferenceSession
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def open(cls, model: ir.Model, *, fused: bool = False) -> WholeModel:
        """A session of a model that nobody else holds. Raises EngineError."""
        return cls.of(*portable(model), fused=fused)

    @classmethod
    def of(
        cls, proto: bytes, weights: Mapping[str, np.ndarray], *, fused: bool = False
    ) -> WholeModel:
        """A session of a serialised model and its external weights. Raises EngineError."""
        session = runtime.session(proto, weights, fused=fused)
        return cls(session, {} if runtime.copies_weights() else weights)

    @classmethod
    def load(cls, path: Path) -> WholeModel:
        """Open an executable that was saved.

        Raises:
            EngineError: The file is missing or is no executable of the emulator.
        """
        if not path.is_file():
            raise EngineError(f"{path}: no such executable")
        loaded = cls(runtime.session(str(path)))
        if STAMP not in loaded.session.get_modelmeta().custom_metadata_map:
            raise EngineError(
                f"{path}: an ONNX model but no executable of the emulator; expected a file that "
                "save_executable wrote"
            )
        return loaded

    def run(self, feeds: Arrays) -> dict[str, Any]:
        """The outputs by name. Raises EngineError."""
        names = [o.name for o in self.session.get_outputs()]
        return dict(zip(names, runtime.run(self.session, feeds, "the whole model"), strict=True))


@dataclass(frozen=True)
class StagedModel:
    """A large emulated model in parts, run one after the other; as many as fit stay open.

    Attributes:
        graph: Its graph.
        parts: The parts.
        compiler: Opens their sessions.
    """

    graph: ir.Graph
    parts: Sequence[Segment]
    compiler: Compiler

    def run(self, feeds: Arrays) -> dict[str, Any]:
        """The outputs by name. Raises EngineError."""
        env: dict[ir.Value, Tensor] = {
            v: feeds[str(v.name)] for v in self.graph.inputs if v.name in feeds
        }
        for part, released in zip(self.parts, releases(self.parts, self.graph), strict=True):
            runner = self.compiler.get(part, frozenset())
            results = runner.run(frozenset(), [env[v] for v in part.reads])
            env.update(zip(part.writes, results, strict=True))
            for value in released:
                env.pop(value, None)
        return {str(o.name): _result(o, env) for o in self.graph.outputs}


def _result(output: ir.Value, env: Mapping[ir.Value, Tensor]) -> Any:
    if output in env:
        return env[output]
    tensor = constant(output)
    assert tensor is not None, output.name
    return tensor.numpy()
