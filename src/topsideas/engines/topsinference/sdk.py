"""The calls of ``TopsInference``, in every spelling that public code shows.

Two argument styles are seen, comma and colon separated texts and Python lists, and two of compile
options, JSON text and a dict. Which versions take which is not documented: the first one that is
not refused is remembered.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from topsideas.engines.foreign import brief
from topsideas.engines.topsinference.profile import SdkProfile, filled
from topsideas.errors import EngineError

NAME = "topsinference"
MODULE = "TopsInference"

# By ONNX element type: the constants that FlagPerf's adapter and Enflame's samples use.
DTYPES = {
    1: "DT_FLOAT32",
    2: "DT_UINT8",
    3: "DT_INT8",
    6: "DT_INT32",
    7: "DT_INT64",
    9: "DT_BOOL",
    10: "DT_FLOAT16",
}
_FLAGS = {"mixed": ("KFP16_MIX", "TIF_KTYPE_MIX_FP16"), "fp32": ("KDEFAULT", "TIF_KTYPE_DEFAULT")}
_HOST = "TIF_ENGINE_RSC_IN_HOST_OUT_HOST"
_RANGES = {
    "max": ("set_max_shape_range", "setMaxShapeRange"),
    "min": ("set_min_shape_range", "setMinShapeRange"),
}


@dataclass(frozen=True, slots=True)
class Signature:
    """What the parser is told of a model.

    Attributes:
        names: The inputs' names.
        shapes: Their shapes; -1 where a size moves.
        dtypes: Their ONNX element types.
        outputs: The outputs' names.
    """

    names: Sequence[str]
    shapes: Sequence[Sequence[int]]
    dtypes: Sequence[int]
    outputs: Sequence[str]


class Sdk:
    """The vendor's module, with its exceptions and refusals mapped.

    Args:
        profile: The SDK's ways.
        folder: The run's own folder.
        card: Card id.
        cluster: Cluster ids; ``(-1,)`` means all.

    Raises:
        EngineError: The module cannot be imported.
    """

    def __init__(
        self, profile: SdkProfile, folder: Path, card: int, cluster: Sequence[int]
    ) -> None:
        self.profile, self.folder = profile, folder
        self._card, self._cluster = card, list(cluster)
        os.environ.update(filled(profile.environment, folder=str(folder)))
        self.module = _import()
        self.style = profile.argument_style
        self.options_style = profile.options_style

    @property
    def version(self) -> str:
        """The SDK's version, without the blanks that it may hold."""
        return "".join(str(getattr(self.module, "__version__", "unknown")).split())

    @property
    def device_name(self) -> str:
        """The card and clusters, for reports."""
        return f"GCU card {self._card} cluster {','.join(map(str, self._cluster))}"

    @contextmanager
    def device(self) -> Iterator[None]:
        """The scope in which everything is built and run.

        ``device`` takes one cluster; -1 and lists are only seen with ``set_device``.
        """
        one = self._cluster[0] if len(self._cluster) == 1 and self._cluster[0] >= 0 else None
        if one is not None and hasattr(self.module, "device"):
            scope = _asked("device", lambda: self.module.device(self._card, one))
            with _Entered(scope):
                yield
            return
        given: Any = self._cluster[0] if len(self._cluster) == 1 else self._cluster
        handler = _asked("set_device", lambda: self.module.set_device(self._card, given))
        try:
            yield
        finally:
            _asked("release_device", lambda: self.module.release_device(handler))

    def read(self, path: Path, signature: Signature) -> Any:
        """Parse a model; returns the network. Raises EngineError."""
        parser = _asked(
            "create_parser", lambda: self.module.create_parser(self.constant("ONNX_MODEL"))
        )
        if self.profile.enable_graph_builder:
            _asked("enable_graph_builder", lambda: parser.enable_graph_builder())
        shapes = [list(shape) for shape in signature.shapes]
        dtypes = [DTYPES[t] for t in signature.dtypes]
        constants = [self.constant(name) for name in dtypes]
        comma, colon = ",".join, ":".join
        as_text = colon(comma(map(str, shape)) for shape in shapes)
        self._tell(parser.set_input_names, comma(signature.names), list(signature.names))
        self._tell(parser.set_input_dtypes, comma(dtypes), constants)
        self._tell(parser.set_input_shapes, as_text, shapes)
        self._tell(parser.set_output_names, comma(signature.outputs), list(signature.outputs))
        return _asked("read", lambda: parser.read(str(path)), needed=True)

    def build(
        self, network: Any, options: Mapping[str, Any], flag: str, ranges: Mapping[str, Any]
    ) -> Any:
        """Compile a network; returns the SDK's engine.

        Args:
            network: What :meth:`read` returned.
            options: Compile options.
            flag: ``mixed`` or ``fp32``.
            ranges: ``min`` and ``max`` shapes per input; empty for fixed shapes.

        Raises:
            EngineError: The compiler refuses.
        """
        optimizer = _asked("create_optimizer", self.module.create_optimizer)
        if options:
            self._set_options(optimizer, options)
        value = self.constant(*_FLAGS[flag])
        _asked("set_build_flag", lambda: optimizer.set_build_flag(value))
        for which in ("max", "min") if ranges else ():
            self._set_range(optimizer, which, ranges[which])
        return _asked("build", lambda: optimizer.build(network), needed=True)

    def load(self, path: Path) -> Any:
        """Open a saved executable. Raises EngineError."""
        if hasattr(self.module, "load"):
            return _asked("load", lambda: self.module.load(str(path)), needed=True)
        engine = _asked("PyEngine", self.module.PyEngine)
        _asked("load_tops_executable", lambda: engine.load_tops_executable(str(path)))
        return engine

    def save(self, engine: Any, path: Path) -> None:
        """Write an executable. Raises EngineError."""
        _asked("save_executable", lambda: engine.save_executable(str(path)))

    def run(self, engine: Any, arrays: list[np.ndarray], *, moving: bool) -> list[Any]:
        """The outputs in the engine's order. Raises EngineError.

        Args:
            engine: What :meth:`build` or :meth:`load` returned.
            arrays: The inputs in the parser's order.
            moving: Whether it was built for a range of shapes, which only ``runV2`` is seen with.
        """
        method = self.profile.run_method
        if method == "auto":
            known = (
                ("runV2", "run", "run_with_batch")
                if moving
                else ("run", "runV2", "run_with_batch")
            )
            method = next((m for m in known if hasattr(engine, m)), "run")
        inputs = [np.asarray(a, order="C") for a in arrays]
        if method == "runV2":
            stream = _asked("create_stream", self.module.create_stream)
            future = _asked("runV2", lambda: engine.runV2(inputs, py_stream=stream), needed=True)
            found = _asked("get", lambda: future.get(), needed=True)
        else:
            found = self._run_into_list(engine, inputs, method)
        return [np.copy(a) for a in found]

    def _run_into_list(self, engine: Any, inputs: list[np.ndarray], method: str) -> Any:
        """``run`` and ``run_with_batch`` fill a list, or return a future."""
        host, outputs = self.constant(_HOST), []  # type: ignore[var-annotated]
        if method == "run":
            result = _asked("run", lambda: engine.run(inputs, outputs, host))
        else:
            result = _asked(
                "run_with_batch",
                lambda: engine.run_with_batch(
                    1, inputs, output_list=outputs, buffer_type=host, py_stream=None
                ),
            )
        if outputs:
            return outputs
        if hasattr(result, "get"):
            return _asked("get", lambda: result.get(), needed=True)
        raise EngineError(
            f"{MODULE} {method} gave no outputs; name another way in the SDK profile's run_method"
        )

    def constant(self, *names: str) -> Any:
        """A constant of the module, by the first of its names that there is."""
        for name in names:
            if hasattr(self.module, name):
                return getattr(self.module, name)
        raise EngineError(f"{MODULE} {self.version} has no constant {' or '.join(names)}")

    def _tell(self, method: Callable[[Any], Any], text: str, listed: list[Any]) -> None:
        """Call with a text or a list, whichever is taken; remember which."""
        name = getattr(method, "__name__", "the parser")
        # A comma inside a name can only be told apart in a list.
        split = name.endswith("names") and any("," in str(part) for part in listed)
        styles = {"strings": text, "lists": listed}
        if self.style != "auto" or split:
            wanted = "lists" if split else self.style
            _asked(name, lambda: method(styles[wanted]))
            return
        for style, value in styles.items():
            if _taken(name, method, value):
                self.style = style
                return
        raise EngineError(f"{MODULE} {name} takes neither texts nor lists")

    def _set_options(self, optimizer: Any, options: Mapping[str, Any]) -> None:
        styles = {"json": json.dumps(dict(options)), "dict": dict(options)}
        if self.options_style != "auto":
            value = styles[self.options_style]
            _asked("set_compile_options", lambda: optimizer.set_compile_options(value))
            return
        for style, value in styles.items():
            if _taken("set_compile_options", optimizer.set_compile_options, value):
                self.options_style = style
                return
        raise EngineError(f"{MODULE} set_compile_options takes neither JSON text nor a dict")

    def _set_range(self, optimizer: Any, which: str, shapes: Sequence[Sequence[int]]) -> None:
        owners = [optimizer]
        owners += [
            getattr(optimizer, n)() for n in ("get_config", "getConfig") if hasattr(optimizer, n)
        ]
        found = [getattr(o, n) for o in owners for n in _RANGES[which] if hasattr(o, n)]
        if not found:
            raise EngineError(
                f"{MODULE} {self.version} shows no setter for a range of shapes "
                f"({', '.join(_RANGES[which])}); leave --min_shapes and --max_shapes out"
            )
        value = [{"main": [",".join(map(str, shape)) for shape in shapes]}]
        for form in (json.dumps(value), value):
            if _taken(f"the {which} shape range", found[0], form):
                return
        raise EngineError(f"{MODULE} refuses the {which} shape range {value}")


def _import() -> Any:
    try:
        return import_module(MODULE)
    except Exception as error:  # a vendor's module may fail in its own ways when it starts
        raise EngineError(
            f"cannot import {MODULE}: {brief(error)}. Remedy: install the TopsInference wheel of "
            "Enflame's SDK (TopsRider) into this Python"
        ) from error


def _asked(what: str, call: Callable[[], Any], *, needed: bool = False) -> Any:
    """The result of a call of the SDK. Raises EngineError.

    ``False`` is a refusal (C++ returns bool), None is one where a result is needed (C++ returns
    a null pointer).
    """
    try:
        result = call()
    except EngineError:
        raise
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # samples of the vendor's own expect BaseException
        raise EngineError(f"{MODULE} failed in {what}: {brief(error)}") from error
    if result is False or (needed and result is None):
        raise EngineError(f"{MODULE} refused {what}: it returned {result}")
    return result


def _taken(what: str, method: Callable[[Any], Any], value: Any) -> bool:
    """Whether a call takes a value of this type; every failure but TypeError is one. Raises."""
    try:
        result = method(value)
    except TypeError:
        return False
    except Exception as error:
        raise EngineError(f"{MODULE} failed in {what}: {brief(error)}") from error
    if result is False:
        raise EngineError(f"{MODULE} refused {what}: it returned False")
    return True


class _Entered:
    """A context of the SDK whose entry and exit are mapped like any call."""

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        _asked("entering the device", lambda: self._scope.__enter__())

    def __exit__(self, *error: object) -> None:
        _asked("leaving the device", lambda: self._scope.__exit__(None, None, None) or True)
