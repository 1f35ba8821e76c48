"""The SDK profile: what Enflame's public documents do not say, written down by who knows it.

Nothing here is guessed. A field that is empty switches off what needs it, and the error names
the field. ``topsideas gcu probe`` writes down what an installed SDK offers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from topsideas.errors import EngineError

STRATEGIES = ("compile_option", "layer_precision", "onnx_fp16")
_CHOICES = {
    "argument_style": ("auto", "strings", "lists"),
    "options_style": ("auto", "json", "dict"),
    "run_method": ("auto", "run", "runV2", "run_with_batch"),
    "fp32_format": ("list", "csv", "json"),
    "statistics_parser": ("json",),
}


@dataclass(frozen=True, slots=True)
class SdkProfile:
    """One SDK version's ways. ``{folder}`` in a text stands for the run's own folder.

    Attributes:
        strategies: How ops are kept in fp32, the first that is available is taken:
            ``compile_option``, ``layer_precision``, ``onnx_fp16``.
        fp32_key: ``compile_option``: the compile option that takes the ids of fp32 ops.
        fp32_format: How it takes them: a ``list``, ``csv`` text, or ``json`` text.
        allow_onnx_fp16: Whether ``onnx_fp16`` may be taken: the model itself is typed, and built
            without the compiler's own mixed precision. Ids are then those of the ONNX nodes.
        compare_options: Compile options that make fp32 and fp16 builds comparable op by op;
            dropped by ``--finalize``.
        statistics_options: Compile options that switch the SDK's op statistics on; ``{le}`` and
            ``{ge}`` in them stand for the thresholds.
        statistics_files: Where their results are, a pattern relative to the folder.
        statistics_parser: What reads them.
        dump_options: Compile options that make a run write every op's outputs.
        dump_pattern: A regular expression for the files' names with the groups ``id`` and,
            where an op has several outputs, ``output``.
        ir_files: The dumps of the compiled graph, a pattern relative to the folder.
        ir_id: The attribute of an op in the dump that holds its id; ``order`` where its place
            among the ops is the id.
        environment: Variables that are set before the SDK is imported.
        argument_style: Names, shapes and dtypes as comma separated ``strings`` or as ``lists``.
        options_style: Compile options as ``json`` text or as a ``dict``.
        run_method: What runs an executable.
        dynamic_batch: Whether axis 0 may be among the sizes that move.
        enable_graph_builder: Whether the parser's call of that name is made.
    """

    strategies: tuple[str, ...] = STRATEGIES
    fp32_key: str = ""
    fp32_format: str = "list"
    allow_onnx_fp16: bool = False
    compare_options: Mapping[str, Any] = field(default_factory=dict)
    statistics_options: Mapping[str, Any] = field(default_factory=dict)
    statistics_files: str = ""
    statistics_parser: str = "json"
    dump_options: Mapping[str, Any] = field(default_factory=dict)
    dump_pattern: str = ""
    ir_files: str = "irdump/tops_ir_dump_*.log"
    ir_id: str = ""
    environment: Mapping[str, str] = field(
        default_factory=lambda: {
            "COMPILE_OPTIONS_MLIR_DBG": "-print-ir-after=hlir-last-pass "
            "-mlir-elide-elementsattrs-if-larger=8 -log-output-path={folder}/irdump/"
        }
    )
    argument_style: str = "auto"
    options_style: str = "auto"
    run_method: str = "auto"
    dynamic_batch: bool = False
    enable_graph_builder: bool = False


def filled(value: Any, **known: Any) -> Any:
    """``value`` with ``{name}`` filled in, inside lists and objects too.

    A text that is nothing but ``{name}`` becomes the value itself, so that numbers stay numbers.
    """
    if isinstance(value, str):
        if value.startswith("{") and value[1:-1] in known:
            return known[value[1:-1]]
        for name, text in known.items():
            value = value.replace("{" + name + "}", str(text))
        return value
    if isinstance(value, Mapping):
        return {key: filled(inner, **known) for key, inner in value.items()}
    return [filled(inner, **known) for inner in value] if isinstance(value, list) else value


def read_profile(source: str | Mapping[str, Any] | None) -> SdkProfile:
    """A profile from a JSON file's path, from an object, or the default.

    Raises:
        EngineError: It cannot be read, or a field is unknown or of another kind.
    """
    if source is None:
        return SdkProfile()
    where = source if isinstance(source, str) else "sdk_profile"
    data = _read(source) if isinstance(source, str) else source
    if not isinstance(data, Mapping):
        raise EngineError(f"{where}: expected an object of SDK profile fields")
    known = {f.name: getattr(SdkProfile(), f.name) for f in fields(SdkProfile)}
    for name, value in data.items():
        if name not in known:
            raise EngineError(f"{where}: unknown field {name!r}; expected {', '.join(known)}")
        _check(where, name, value, known[name])
    fields_: dict[str, Any] = dict(data)
    if "strategies" in fields_:
        fields_["strategies"] = tuple(fields_["strategies"])
    return SdkProfile(**fields_)


def _read(path: str) -> Any:
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EngineError(f"cannot read the SDK profile {path}: {error}") from error


def _check(where: str, name: str, value: Any, default: Any) -> None:
    if name == "strategies":
        if not (isinstance(value, list) and value and all(v in STRATEGIES for v in value)):
            raise EngineError(f"{where}: strategies is {value!r}; expected some of {STRATEGIES}")
        return
    kind = Mapping if isinstance(default, Mapping) else type(default)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise EngineError(f"{where}: {name} is {value!r}; expected {_kind(default)}")
    if name in _CHOICES and value not in _CHOICES[name]:
        raise EngineError(f"{where}: {name} is {value!r}; expected one of {_CHOICES[name]}")


def _kind(default: Any) -> str:
    names = {str: "a text", bool: "true or false", int: "a whole number"}
    return names.get(type(default), "an object")
