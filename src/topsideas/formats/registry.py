"""Which formats a plan can be written in: one line each. Listing them imports none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from topsideas.errors import EngineError

if TYPE_CHECKING:
    from topsideas.formats.base import Order, Written

ONNX = "onnx"
"""The mixed-precision model itself, which is no writer's work."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Attributes:
        target: ``module:function`` that writes it: ``(Order) -> Written``.
        summary: What it is, for help texts.
        suffix: How its files are called behind the plan's name.
        from_mixed: Whether it starts from the mixed-precision ONNX model.
    """

    target: str
    summary: str
    suffix: str
    from_mixed: bool = False


_FORMATS = {
    "oplist": Format(
        "topsideas.formats.op_list:write",
        "ids, paths and names of the fp32 ops, as JSON",
        ".ops.json",
    ),
    "tensorrt": Format(
        "topsideas.formats.tensorrt:write",
        "arguments of trtexec, for TensorRT up to 10",
        ".trtexec.txt",
    ),
    "onnxconverter": Format(
        "topsideas.formats.onnxconverter:write",
        "arguments of onnxconverter-common's fp16 converter",
        ".onnxconverter.json",
    ),
    "openvino": Format(
        "topsideas.formats.openvino_ir:write",
        "OpenVINO IR (.xml and .bin)",
        ".xml",
        from_mixed=True,
    ),
}

FORMATS: Mapping[str, Format] = MappingProxyType(_FORMATS)


def write(name: str, order: Order) -> Written:
    """Write a plan in a format.

    Raises:
        EngineError: What the format needs is not installed, or refuses the plan.
    """
    module, function = FORMATS[name].target.split(":")
    writer: Any = getattr(import_module(module), function)
    try:
        written: Written = writer(order)
    except ImportError as error:
        raise EngineError(
            f"format {name!r} needs a package that is missing: {error}. Remedy: pip install "
            f"'topsideas[{name}]'"
        ) from error
    return written
