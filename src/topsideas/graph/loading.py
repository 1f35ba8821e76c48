"""Reading a user's model: bytes to a typed, function-free graph whose every node has an op id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from topsideas.errors import EngineError, ModelError
from topsideas.graph.dense import densify_sparse
from topsideas.graph.external_data import external_files
from topsideas.graph.inference import complete_types, inline_and_infer
from topsideas.graph.lifting import FIRST_WITH_BF16, lift, lift_ir_version, liftable_to
from topsideas.graph.ops import Op, enumerate_ops, op_id
from topsideas.graph.portable import take_in
from topsideas.graph.schemas import Target, target_of
from topsideas.precision import FP16, Precision

_CHUNK = 1 << 24
_DEFAULT_OPSET = 17

# Weights in external files from this size on stay there and are mapped when they are used.
_STAYS_OUTSIDE = 1 << 20


_Stamp = tuple[int, int, int] | None

# No model that anybody runs has more; a file of 2 kB can say so.
_MOST_NODES = 1_000_000


@dataclass(frozen=True)
class Model:
    """A loaded model, ready to be analysed and executed.

    Attributes:
        graph_model: The onnx-ir model: functions inlined, types inferred, nodes numbered.
            Weights in external files stay there and are mapped on use.
        digest: sha256 over the model's bytes and its external data.
        path: Where it came from, if from a file.
        files: The files of its external data.
        inlined: Whether local functions were inlined, so that ids index the inlined model.
        ops: Every op in id order; which are candidates holds for one low format.
        target: That format, and the opset the model may be lifted to for it.
        notes: What had to be changed for it.
        stamps: Size and time of the files when they were read; see :meth:`check_unchanged`.
    """

    graph_model: ir.Model
    digest: str
    path: Path | None
    files: tuple[Path, ...]
    inlined: bool
    ops: tuple[Op, ...]
    target: Target
    notes: tuple[str, ...]
    stamps: tuple[tuple[Path, _Stamp], ...] = ()

    def check_unchanged(self) -> None:
        """Raise ModelError if a file is not what it was: large weights are read when needed."""
        for file, stamp in self.stamps:
            if _stamp(file) != stamp:
                raise ModelError(
                    f"{file}: changed during the run, so that its results may be of neither "
                    "model and were dropped; expected the file that was read at the start. Run "
                    "again when nothing writes to it any more"
                )

    @property
    def graph(self) -> ir.Graph:
        """The main graph."""
        return self.graph_model.graph

    @property
    def opset(self) -> int:
        """The version of the default ONNX opset."""
        return self.graph_model.opset_imports.get("", 1)

    @property
    def candidates(self) -> frozenset[int]:
        """Ids of the ops that may run low."""
        return frozenset(op.id for op in self.ops if op.candidate)

    def inexpressible(self, precision: Precision) -> frozenset[int]:
        """Candidates that cannot run in ``precision``; none in the one it was loaded for."""
        if precision is self.target.precision:
            return frozenset()
        target, slots = target_of(self.graph_model, precision), {o.id: o.slots for o in self.ops}
        return frozenset(
            op_id(node)
            for graph in self.graph_model.graphs()
            for node in graph
            if op_id(node) in self.candidates and not target.allows(node, slots[op_id(node)])
        )

    def inputs(self) -> list[ir.Value]:
        """The inputs a caller must feed (initializers listed as inputs are optional)."""
        return [v for v in self.graph.inputs if v.name not in self.graph.initializers]


def load_model(source: str | Path | onnx.ModelProto, precision: Precision = FP16) -> Model:
    """Load a model from a file or from memory.

    Args:
        source: The file, or the model; the latter is left unchanged.
        precision: The low format, which decides what ops are candidates.

    Raises:
        ModelError: The file is missing, is not ONNX, is invalid, or its external data is
            missing or lies outside the model's folder.
        EngineError: The model's opset knows nothing of the low format and cannot be lifted.
    """
    if isinstance(source, onnx.ModelProto):
        proto, path = onnx.ModelProto(), None
        proto.CopyFrom(source)
        read = []
    else:
        path = Path(source)
        read = [(path, _stamp(path))]
        proto = _read_proto(path)
    _check_not_empty(proto, path)
    _check_inlined_size(proto, path)
    files = external_files(proto, path)
    stamps = (*read, *((file, _stamp(file)) for file in files))
    _check_valid(proto, path)
    digest = _digest(proto, files)
    densify_sparse(proto)
    _name_default_domain(proto)
    _import_default_opset(proto)
    return _build(proto, path, tuple(files), digest, precision, stamps)


def _build(
    proto: onnx.ModelProto,
    path: Path | None,
    files: tuple[Path, ...],
    digest: str,
    precision: Precision,
    stamps: tuple[tuple[Path, _Stamp], ...],
) -> Model:
    inlined = bool(proto.functions)
    try:
        model = ir.serde.deserialize_model(inline_and_infer(proto))
    except Exception as error:  # onnx-ir raises many kinds on malformed graphs
        raise ModelError(
            f"{_name(path)}: not a usable ONNX graph: {_root_cause(error)}"
        ) from error
    _check_defined(model, path)
    _check_devices(model, path)
    if path is not None:
        ir.external_data.set_base_dir(model.graph, path.parent.resolve())
        take_in(model.graph, _STAYS_OUTSIDE)
    _open_sizes(model)
    complete_types(model)
    notes = _lift(model, precision)
    target = target_of(model, precision)
    ops = enumerate_ops(model, target)
    _tell_nodes_apart(model)
    return Model(model, digest, path, files, inlined, ops, target, notes, stamps)


def _check_defined(model: ir.Model, path: Path | None) -> None:
    """Every value that is read must come from somewhere; the checker skips functions' outputs."""
    for graph in model.graphs():
        read = [value for node in graph for value in node.inputs if value is not None]
        for value in (*read, *graph.outputs):
            made = value.producer() or value.is_graph_input() or value.is_initializer()
            if not made:
                raise ModelError(
                    f"{_name(path)}: not a valid ONNX model: nothing makes the value "
                    f"{value.name!r}; expected a node, an input or a weight of that name"
                )


def _check_devices(model: ir.Model, path: Path | None) -> None:
    """What says on which of several devices an op runs must name them, or nothing can write it."""
    for node in (node for graph in model.graphs() for node in graph):
        for found in getattr(node, "device_configurations", ()):  # of newer versions of onnx-ir
            if found.configuration is None:
                raise ModelError(
                    f"{_name(path)}: not a valid ONNX model: an op {node.op_type} has a device "
                    "configuration without a name; expected one of the model's, or none"
                )


def _open_sizes(model: ir.Model) -> None:
    """Some exporters write a size of -1 where they mean that any will do."""
    for graph in model.graphs():
        for value in (*graph.inputs, *(v for node in graph for v in node.outputs)):
            if value.shape is not None and any(isinstance(d, int) and d < 0 for d in value.shape):
                sizes = (d if not isinstance(d, int) or d >= 0 else None for d in value.shape)
                value.shape = ir.Shape(sizes)


def _stamp(file: Path) -> _Stamp:
    """What changes when somebody writes to a file; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _lift(model: ir.Model, precision: Precision) -> tuple[str, ...]:
    """Lift a model that is older than its low format, if no op changes its meaning on the way."""
    old = model.opset_imports.get("", 1)
    if precision is FP16 or old >= FIRST_WITH_BF16:
        return ()
    nodes = [node for graph in model.graphs() for node in graph]
    bound = {n.op_type for n in nodes if liftable_to([n], old, FIRST_WITH_BF16) < FIRST_WITH_BF16}
    if bound:
        ops = ", ".join(sorted(bound)[:5])
        raise EngineError(
            f"{precision.name} needs opset {FIRST_WITH_BF16} or newer, the model has {old} and "
            f"cannot be lifted as it is: {ops} changed on the way. Remedy: "
            f"onnx.version_converter.convert_version(model, {FIRST_WITH_BF16})"
        )
    lift(model, FIRST_WITH_BF16)
    line = f"opset {old} lifted to {FIRST_WITH_BF16}, before which {precision.name} does not exist"
    return line, *lift_ir_version(model)


def _tell_nodes_apart(model: ir.Model) -> None:
    """ONNX allows nodes of one name, ONNX Runtime does not. Ops keep the name that users know."""
    for graph in model.graphs():
        taken = {node.name for node in graph}
        seen: set[str | None] = set()
        for node in graph:
            if node.name and node.name in seen:
                name = f"{node.name}_{op_id(node)}"
                while name in taken:
                    name += "_"
                node.name = name
                taken.add(name)
            seen.add(node.name)


def _name_default_domain(proto: onnx.ModelProto) -> None:
    """Imports may call the default domain ``ai.onnx``; afterwards it has one name."""
    for imports in (proto.opset_import, *(f.opset_import for f in proto.functions)):
        for entry in imports:
            if entry.domain == "ai.onnx":
                entry.domain = ""


def _import_default_opset(proto: onnx.ModelProto) -> None:
    """A model may use other domains only; what the tool inserts is of the default one."""
    if not any(entry.domain == "" for entry in proto.opset_import):
        proto.opset_import.append(onnx.helper.make_opsetid("", _DEFAULT_OPSET))


def _read_proto(path: Path) -> onnx.ModelProto:
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "a device or a pipe"
        raise ModelError(f"{path}: is {what}, expected the path of an .onnx file")
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; expected the path of an .onnx file")
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise ModelError(f"{path}: cannot be read as ONNX ({_root_cause(error)})") from error


def _check_not_empty(proto: onnx.ModelProto, path: Path | None) -> None:
    if not proto.graph.node and not proto.graph.output:
        raise ModelError(
            f"{_name(path)}: holds no graph; expected an ONNX model with nodes and outputs"
        )
    if not proto.graph.output:
        raise ModelError(
            f"{_name(path)}: the graph has no outputs; expected at least one to compare"
        )


def _check_inlined_size(proto: onnx.ModelProto, path: Path | None) -> None:
    """Functions that call functions several times over can make a small file endless."""
    sizes: dict[tuple[str, str], int] = {}
    # A function's size is known once those of all it calls are; after so many rounds all are.
    for _ in range(len(proto.functions)):
        known = dict(sizes)
        for function in proto.functions:
            key = function.domain, function.name
            sizes[key] = min(_inlined_size(function.node, known), _MOST_NODES + 1)
        if sizes == known:
            break
    if _inlined_size(proto.graph.node, sizes) > _MOST_NODES:
        raise ModelError(
            f"{_name(path)}: its local functions are more than {_MOST_NODES} nodes when inlined; "
            "expected a model that can be held in memory"
        )


def _inlined_size(nodes: Iterable[onnx.NodeProto], sizes: Mapping[tuple[str, str], int]) -> int:
    total = 0
    for node in nodes:
        total += sizes.get((node.domain, node.op_type), 1)
        for attr in node.attribute:
            for body in [attr.g] if attr.HasField("g") else attr.graphs:
                total += _inlined_size(body.node, sizes)
    return total


def _check_valid(proto: onnx.ModelProto, path: Path | None) -> None:
    try:
        onnx.checker.check_model(str(path) if path is not None else proto)
    except Exception as error:  # ValidationError, and InferenceError on malformed functions
        why = _root_cause(error).rstrip(".")
        if "topologically sorted" in str(error):
            why += ". Remedy: sort them, as onnx_ir.passes.common.TopologicalSortPass does"
        raise ModelError(f"{_name(path)}: not a valid ONNX model: {why}") from error


def _digest(proto: onnx.ModelProto, files: list[Path]) -> str:
    digest = hashlib.sha256()
    try:
        digest.update(proto.SerializeToString(deterministic=True))
    except Exception as error:
        raise ModelError(
            "the ModelProto is larger than 2 GB; save it with external data and pass the path"
        ) from error
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _name(path: Path | None) -> str:
    return "the model" if path is None else str(path)


def _root_cause(error: BaseException) -> str:
    """The first sentence of the innermost error: onnx-ir wraps each level in its whole graph."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # The ONNX checker goes on in the next lines, with the node.
    first = " ".join(lines[:3]) if lines[0].rstrip().endswith(":") else lines[0]
    return " ".join(first.split())[:300]
