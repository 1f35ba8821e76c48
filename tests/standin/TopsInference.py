"""A stand-in for Enflame's ``TopsInference``, for tests only: the documented calls, and no GCU.

It mirrors the calls that public code shows (parser, optimizer, engine, device scopes, both
argument styles, both kinds of compile options) and executes with ONNX Runtime and emulated
rounding that saturates. What is not public it invents, and only a test's SDK profile knows of it:
the compile options ``fp32_op_ids``, ``op_compare``, ``op_statistic`` and ``op_dump``, the
attribute ``op_id`` in the dumped graph, and the layers' ``set_precision``.

The variable ``STANDIN`` holds JSON: ``style`` (strings, lists, both), ``options`` (json, dict,
both), ``layers``, ``ranges``, ``offset`` of ids, ``crash`` and ``hang`` (``build`` or ``run``),
``when_kept`` (only for plans that keep exactly these ids), ``ignore`` (the ids are ignored).
"""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.engines.emulator.whole import WholeModel
from topsideas.graph.loading import load_model
from topsideas.graph.ops import op_id
from topsideas.plan import PrecisionPlan
from topsideas.precision import FP16, Numerics, Overflow

CONFIG = {"style": "both", "options": "both", "offset": 0} | json.loads(
    os.environ.get("STANDIN", "{}")
)

__version__ = CONFIG.get("version", "0.0 standin")

ONNX_MODEL, TF_MODEL = 0, 1
KDEFAULT, KFP16, KFP16_MIX = 1, 2, 4
TIF_ENGINE_RSC_IN_HOST_OUT_HOST, TIF_ENGINE_RSC_IN_DEVICE_OUT_DEVICE = 0, 1
DT_FLOAT32, DT_FLOAT16, DT_INT64, DT_INT32, DT_INT8, DT_UINT8, DT_BOOL = range(100, 107)

_NUMERICS = Numerics(FP16, Overflow.SATURATE)
_NO_ID = {"Constant"}
_FLOATS = {onnx.TensorProto.FLOAT: "f32", onnx.TensorProto.FLOAT16: "f16"}
_KINDS = _FLOATS | {onnx.TensorProto.INT64: "i64", onnx.TensorProto.INT32: "i32"}
_scopes: list[tuple[int, Any]] = []


def _styled(value: Any) -> Any:
    """A list of parts, whichever style was used; TypeError for the style that is not taken."""
    if isinstance(value, str):
        if CONFIG["style"] == "lists":
            raise TypeError("incompatible function arguments: expected a list")
        return value
    if CONFIG["style"] == "strings":
        raise TypeError("incompatible function arguments: expected str")
    return list(value)


@contextmanager
def device(card: int, cluster: int) -> Any:
    if not isinstance(cluster, int):
        raise TypeError("device(card_id: int, cluster_id: int)")
    _scopes.append((card, cluster))
    try:
        yield
    finally:
        _scopes.pop()


def set_device(card: int, clusters: Any) -> object:
    _scopes.append((card, clusters))
    return len(_scopes)


def release_device(handler: object) -> None:
    _scopes.pop()


def create_parser(kind: int) -> _Parser:
    if kind != ONNX_MODEL:
        raise RuntimeError("TIF_PARSER_UNSUPPORTED_MODEL")
    return _Parser()


def create_optimizer() -> _Optimizer:
    return _Optimizer()


def create_stream() -> object:
    return object()


def load(path: str) -> PyEngine:
    engine = PyEngine()
    engine.load_tops_executable(path)
    return engine


def _require_device() -> None:
    if not _scopes:
        raise RuntimeError("no device was claimed")


class _Parser:
    def __init__(self) -> None:
        self._names: list[str] | None = None
        self._shapes: list[list[int]] | None = None
        self._dtypes: list[Any] | None = None
        self._outputs: list[str] | None = None

    def set_input_names(self, names: Any) -> None:
        names = _styled(names)
        self._names = names.split(",") if isinstance(names, str) else names

    def set_output_names(self, names: Any) -> None:
        names = _styled(names)
        self._outputs = names.split(",") if isinstance(names, str) else names

    def set_input_dtypes(self, dtypes: Any) -> None:
        dtypes = _styled(dtypes)
        if isinstance(dtypes, str):
            dtypes = [globals()[name] for name in dtypes.split(",")]
        assert all(d in range(100, 107) for d in dtypes), dtypes
        self._dtypes = dtypes

    def set_input_shapes(self, shapes: Any) -> None:
        shapes = _styled(shapes)
        if isinstance(shapes, str):
            shapes = [[int(d) for d in s.split(",")] if s else [] for s in shapes.split(":")]
        self._shapes = shapes

    def enable_graph_builder(self) -> None:
        pass

    def read(self, path: str) -> _Network | None:
        if not Path(path).is_file():
            return None
        proto = onnx.load(path)
        names = [i.name for i in proto.graph.input]
        if self._names is not None:
            assert sorted(self._names) == sorted(names), (self._names, names)
        return _Network(proto, self._names or names, self._shapes or [], self._outputs)


class _Network:
    def __init__(self, proto: Any, names: list[str], shapes: Any, outputs: Any) -> None:
        self.proto, self.names, self.shapes, self.outputs = proto, names, shapes, outputs
        self.layers: dict[int, _Layer] = {}

    def dump(self) -> None:
        print(onnx.printer.to_text(self.proto.graph))

    if CONFIG.get("layers"):

        def get_layer_num(self) -> int:
            return len(self.proto.graph.node)

        def get_layer(self, index: int) -> _Layer:
            node = self.proto.graph.node[index]
            return self.layers.setdefault(index, _Layer(node.op_type, node.name))


class _Layer:
    def __init__(self, kind: str, name: str) -> None:
        self._kind, self._name, self.precision = kind, name, None

    def get_type(self) -> str:
        return self._kind

    def get_name(self) -> str:
        return self._name

    def set_precision(self, precision: Any) -> bool:
        self.precision = precision
        return True


class _Optimizer:
    def __init__(self) -> None:
        self._options: dict[str, Any] = {}
        self._flag = KDEFAULT
        self._range: dict[str, Any] = {}

    def set_compile_options(self, options: Any) -> None:
        wanted = {"json": str, "dict": dict}.get(CONFIG["options"], (str, dict))
        if not isinstance(options, wanted):
            raise TypeError(f"incompatible function arguments: {type(options).__name__}")
        options = json.loads(options) if isinstance(options, str) else options
        known = {
            "fp32_op_ids",
            "op_compare",
            "op_statistic",
            "op_dump",
            "resource_mode",
            "hlir_options",
        }
        if options.keys() - known:
            raise RuntimeError(f"unknown compile options {sorted(options.keys() - known)}")
        self._options = options

    def set_build_flag(self, flag: int) -> bool:
        self._flag = flag
        return True

    if CONFIG.get("ranges"):

        def set_max_shape_range(self, value: Any) -> None:
            self._range["max"] = json.loads(value)[0]["main"]

        def set_min_shape_range(self, value: Any) -> None:
            self._range["min"] = json.loads(value)[0]["main"]

    def build(self, network: _Network) -> PyEngine | None:
        _require_device()
        offset = CONFIG["offset"]
        kept = {i - offset for i in self._options.get("fp32_op_ids", [])}
        kept |= {i for i, layer in network.layers.items() if layer.precision == DT_FLOAT32}
        _misbehave("build", kept)
        return PyEngine(
            _Compiled(network, self._flag, frozenset(kept), self._options, self._range)
        )


def _misbehave(where: str, kept: Any) -> None:
    only = CONFIG.get("when_kept")
    if only is not None and sorted(kept) != sorted(only):
        return
    if CONFIG.get("crash") == where:
        print(f"stand-in: the {where} dies of a failed assertion", file=sys.stderr, flush=True)
        os.abort()
    if CONFIG.get("hang") == where:
        print(f"stand-in: the {where} waits for ever", file=sys.stderr, flush=True)
        time.sleep(3600)


class _Compiled:
    """A network compiled: plain data, so that it can be saved."""

    def __init__(
        self, network: _Network, flag: int, kept: frozenset[int], options: Any, limits: Any
    ) -> None:
        self.proto = network.proto.SerializeToString()
        self.names, self.options, self.limits = network.names, options, limits
        self.shapes = network.shapes
        model = load_model(onnx.load_from_string(self.proto))
        mixed = flag == KFP16_MIX
        kept = frozenset() if CONFIG.get("ignore") else kept
        self.kept = sorted(kept) if mixed else sorted(model.candidates)
        if flag == KFP16:
            self.kept = []
        self.typed = any(
            t.data_type == onnx.TensorProto.FLOAT16 for t in network.proto.graph.initializer
        ) or any(
            n.op_type == "Cast" and any(a.name == "to" and a.i == 10 for a in n.attribute)
            for n in network.proto.graph.node
        )
        _write_ir(model, PrecisionPlan.of(self.kept))


class _Future:
    def __init__(self, outputs: list[np.ndarray]) -> None:
        self._outputs = outputs

    def get(self) -> list[np.ndarray]:
        return self._outputs


class PyEngine:
    def __init__(self, compiled: _Compiled | None = None) -> None:
        self._compiled = compiled
        self._opened: Any = None

    def save_executable(self, path: str) -> None:
        Path(path).write_bytes(b"STANDIN" + pickle.dumps(self._compiled))

    def load_tops_executable(self, path: str) -> None:
        data = Path(path).read_bytes()
        if not data.startswith(b"STANDIN"):
            raise RuntimeError("TIF_EXECUTABLE_CRC_VERIFY_FAILED")
        self._compiled, self._opened = pickle.loads(data[7:]), None

    def run(self, inputs: Any, outputs: list[Any], buffer_type: int, stream: Any = None) -> None:
        if buffer_type != TIF_ENGINE_RSC_IN_HOST_OUT_HOST:
            raise RuntimeError("this stand-in has no device memory")
        outputs.extend(self._run(inputs))

    def run_with_batch(
        self,
        sample_nums: int,
        input_list: Any,
        output_list: Any = None,
        buffer_type: Any = None,
        py_stream: Any = None,
    ) -> _Future:
        found = self._run(input_list)
        if output_list is not None:
            output_list.extend(found)
        return _Future(found)

    def runV2(self, input_list: Any, py_stream: Any = None) -> _Future:  # noqa: N802
        return _Future(self._run(input_list))

    def _run(self, inputs: Any) -> list[np.ndarray]:
        _require_device()
        own = self._compiled
        assert own is not None
        _misbehave("run", own.kept)
        arrays = list(inputs)
        assert all(a.flags.c_contiguous for a in arrays)
        self._check_shapes(arrays)
        feeds = dict(zip(own.names, arrays, strict=True))
        if self._opened is None:
            self._opened = _open(own)
        engine, plan, runner = self._opened
        outputs = list(runner.run(feeds).values())
        if "op_statistic" in own.options:
            _write_statistics(engine, plan, feeds, own.options["op_statistic"])
        if "op_dump" in own.options:
            _write_dump(engine, plan, feeds, Path(own.options["op_dump"]))
        return outputs

    def _check_shapes(self, arrays: list[np.ndarray]) -> None:
        own = self._compiled
        assert own is not None
        for at, (array, shape) in enumerate(zip(arrays, own.shapes, strict=False)):
            for axis, (size, wanted) in enumerate(zip(array.shape, shape, strict=True)):
                if wanted == -1:
                    low, high = (int(own.limits[k][at].split(",")[axis]) for k in ("min", "max"))
                    if not low <= size <= high:
                        raise RuntimeError(f"shape {array.shape} is out of range")
                elif wanted != size:
                    raise RuntimeError(f"compiled for {shape}, given {array.shape}")


def _open(own: _Compiled) -> tuple[EmulatorEngine, PrecisionPlan, Any]:
    proto = onnx.load_from_string(own.proto)
    if own.typed:
        return None, None, _Typed(_with_roundings(proto))  # type: ignore[return-value]
    model = load_model(proto)
    engine, plan = EmulatorEngine(model, _NUMERICS), PrecisionPlan.of(own.kept)
    # Without the option that makes builds comparable, low ops are fused and round less.
    compare = own.options.get("op_compare", False)
    whole = engine.whole(plan.low(model.candidates), between=bool(compare))
    return engine, plan, WholeModel.open(whole)


class _Typed:
    def __init__(self, proto: Any) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(
            proto.SerializeToString(), providers=["CPUExecutionProvider"]
        )

    def run(self, feeds: Any) -> dict[str, Any]:
        names = [o.name for o in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, feeds), strict=True))


def _with_roundings(proto: Any) -> Any:
    """A typed model in float32, with a saturating rounding behind whatever was fp16."""
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    inferred = onnx.shape_inference.infer_shapes(proto)
    values = (*inferred.graph.value_info, *inferred.graph.output)
    low = {v.name for v in values if v.type.tensor_type.elem_type == half}
    del proto.graph.value_info[:]
    for tensor in proto.graph.initializer:
        if tensor.data_type == half:
            array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    limits = [
        onnx.numpy_helper.from_array(np.float32(v), n)
        for v, n in ((-65504, "_lo"), (65504, "_hi"))
    ]
    proto.graph.initializer.extend(limits)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == half:
                attribute.i = single
        rounded = []
        for at, name in enumerate(node.output):
            if name in low:
                node.output[at] = f"{name}_raw"
                helper = onnx.helper.make_node
                rounded += [
                    helper("Clip", [f"{name}_raw", "_lo", "_hi"], [f"{name}_cut"]),
                    helper("Cast", [f"{name}_cut"], [f"{name}_half"], to=half),
                    helper("Cast", [f"{name}_half"], [name], to=single),
                ]
        proto.graph.node.extend([node, *rounded])
    return proto


def _snake(node: Any) -> str:
    if node.op_type == "Conv" and len(node.inputs) == 3:
        return "conv_bias"
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.op_type).lower()


def _write_ir(model: Any, plan: PrecisionPlan) -> None:
    match = re.search(r"-log-output-path=(\S+)", os.environ.get("COMPILE_OPTIONS_MLIR_DBG", ""))
    if match is None:
        return
    folder = Path(match[1])
    folder.mkdir(parents=True, exist_ok=True)
    low, lines = plan.low(model.candidates), []
    nodes = {op_id(n): n for graph in model.graph_model.graphs() for n in graph}
    for op in model.ops:
        node = nodes[op.id]
        if node.op_type in _NO_ID:
            lines.append(f"    %{op.id} = dtu_hlir.constant dense<...> : tensor<f32>")
            continue
        results = ", ".join(_tensor(v, op.id in low) for v in node.outputs)
        number = op.id + CONFIG["offset"]
        attributes = f'{{op_id = {number} : i64, op_name = "{node.name}"}}'
        operands = ", ".join(_tensor(v, False) for v in node.inputs if v is not None)
        signature = f"({operands}) -> ({results})"
        lines.append(f'    %{op.id} = "dtu_hlir.{_snake(node)}"() {attributes} : {signature}')
    text = "\n".join(
        ["module {", "  func @main() {", *lines, '    "dtu_hlir.return"() : () -> ()', "  }", "}"]
    )
    (folder / f"tops_ir_dump_{time.time_ns()}.log").write_text(text + "\n")


def _tensor(value: Any, low: bool) -> str:
    kind = _KINDS.get(int(value.dtype) if value.dtype is not None else 0, "i32")
    kind = "f16" if low and kind == "f32" else kind
    sizes = [str(d) if isinstance(d, int) else "?" for d in value.shape or ()]
    return f"tensor<{'x'.join([*sizes, kind])}>"


def _records(engine: EmulatorEngine, plan: PrecisionPlan, feeds: Any) -> Any:
    return engine.compile(plan).trace(feeds)


def _write_statistics(engine: Any, plan: Any, feeds: Any, asked: Any) -> None:
    found = []
    for record in _records(engine, plan, feeds):
        whole = plan.kept >= engine._model.candidates
        raws = record.raw or (record.outputs if whole else [None] * len(record.outputs))
        pairs = zip(record.outputs, raws, strict=True)
        outputs = [_statistic(o, r, asked) for o, r in pairs if o.dtype == np.float32]
        found.append({"id": record.id + CONFIG["offset"], "outputs": outputs})
    folder = Path(asked["dir"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "op_statistic_0.json").write_text(json.dumps(found))


def _statistic(stored: Any, raw: Any, asked: Any) -> dict[str, Any]:
    magnitude = np.abs(stored)
    clipped = np.abs(raw) > 65504 if raw is not None else np.zeros(1, bool)
    return {
        "ge_ratio": float(np.mean(magnitude >= asked["ge"])),
        "le_ratio": float(np.mean(magnitude <= asked["le"])),
        "clip_ratio": float(np.mean(clipped)),
        "check_nan": bool(np.isnan(stored).any()),
    }


def _write_dump(engine: Any, plan: Any, feeds: Any, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    low = plan.low(engine._model.candidates)
    for record in _records(engine, plan, feeds):
        for at, output in enumerate(record.outputs):
            stored = (
                output.astype(np.float16)
                if record.id in low and output.dtype == np.float32
                else output
            )
            np.save(folder / f"op_{record.id + CONFIG['offset']}_out_{at}.npy", stored)
