"""Does a provider compute in the low format? A planted model is run on it: what it gives decides.

Providers that compute on the host's processor, and those that leave an op to the CPU provider,
take a low model and compute it in fp32, rounding only where a tensor changes hands. Two products
in a row show that: no compiler computes them as one, and what is between them overflows in fp16
and is rounded in both formats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import numpy as np
from onnx import parser

from topsideas.engines.foreign import mapped
from topsideas.engines.onnxruntime.providers import (
    CPU,
    WHO,
    Chosen,
    open_session,
    possible_providers,
)
from topsideas.engines.options import EngineOptions
from topsideas.errors import EngineError
from topsideas.precision import FP16, PRECISIONS

_FLOAT = 1  # of ONNX's types
_SIZE = 16  # smaller products have kernels of their own on some devices

_MODEL = """<ir_version: 9, opset_import: ["": 17]>
planted (float[{n},{n}] x, float[{n},{n}] a, float[{n},{n}] b) => (float[{n},{n}] y) {{
    low_x = Cast <to = {low}> (x)
    low_a = Cast <to = {low}> (a)
    low_b = Cast <to = {low}> (b)
    between = MatMul (low_x, low_a)
    low_y = MatMul (between, low_b)
    y = Cast <to = 1> (low_y)
}}"""

CPU_REASON = (
    "onnxruntime's CPU provider computes fp16 models in fp32 and rounds only in between, so that "
    "300*300/300 gives 300 and not infinity: that is no evidence. "
)
_REMEDY = (
    "Remedy: name a device's provider in --compile_options "
    '\'{"provider": "CUDAExecutionProvider"}\', or take --engine emulator'
)

# How fp32 products are made exact again where that is known, by provider.
_EXACT = {
    "CUDAExecutionProvider": 'the compile option "provider_options": {"use_tf32": "0"}, which '
    "onnxruntime must be given wherever the model runs",
    "TensorrtExecutionProvider": "NVIDIA_TF32_OVERRIDE=0 in the environment, here and wherever "
    "the model runs",
}

# 300 * 300 is beyond fp16. A small part beside 1 is lost in the low format, and not in fp32.
_LARGE = 300.0
_SMALL = {"fp16": 2.0**-12, "bf16": 2.0**-9}


def refusal(chosen: Chosen, precision: str) -> str:
    """Why low ops of a format are no evidence on a provider; empty where they are.

    Args:
        chosen: The provider with its options.
        precision: ``fp16`` or ``bf16``.
    """
    if chosen.name == CPU:
        return CPU_REASON + _REMEDY
    found = _measured(chosen.name, _items(chosen.options), _items(chosen.session), precision)
    return f"{found}. {_REMEDY}" if found else ""


def chosen_provider(options: EngineOptions) -> Chosen:
    """The provider that is asked for, or the first whose low format is real.

    A build lists providers whose libraries need not be there. If none is real, it is the first.

    Raises:
        EngineError: It is not in this build of onnxruntime, or an option is unknown.
    """
    possible, precision = possible_providers(options), options.numerics.precision.name
    real = (chosen for chosen in possible if len(possible) == 1 or not refusal(chosen, precision))
    return next(real, possible[0])


def shortfall(chosen: Chosen) -> str:
    """What a provider lacks that computes fp32 products less exactly; empty if it does not.

    GPUs from NVIDIA's Ampere on read them with 10 bits of mantissa, which is called TF32, unless
    they are told otherwise. Whether single products do so depends on their sizes.
    """
    found = _rounding_of_fp32(chosen.name, _items(chosen.options), _items(chosen.session))
    if found == _SMALL[FP16.name]:
        return ""
    remedy = _EXACT.get(chosen.name)
    return (
        f"{chosen.name} computes products of fp32 in less than fp32: in a self-test 1 + "
        f"{_SMALL[FP16.name]:.3g} - 1 gave {found:.3g}. So do ops that are kept in fp32"
    ) + (f". For all of fp32: {remedy}" if remedy else "")


@cache
def _rounding_of_fp32(
    name: str, options: tuple[tuple[str, str], ...], session: tuple[tuple[str, str], ...]
) -> float:
    return _tried(Chosen(name, dict(options), dict(session)), _FLOAT, FP16.name)[1]


def _items(options: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(options.items())


@cache
def _measured(
    name: str,
    options: tuple[tuple[str, str], ...],
    session: tuple[tuple[str, str], ...],
    precision: str,
) -> str:
    return measured(Chosen(name, dict(options), dict(session)), precision)


def measured(chosen: Chosen, precision: str) -> str:
    """What speaks against a provider's low format once it was tried; empty if nothing does."""
    try:
        overflow, rounding = _tried(chosen, PRECISIONS[precision].onnx_type, precision)
    except EngineError as error:
        return f"{chosen.name} does not run a small {precision} model: {error}"
    tried = f"{WHO} computes {precision} models in fp32 on {chosen.name}: "
    if precision == FP16.name and not _overflowed(overflow):
        return tried + (
            f"in a self-test 300*300/300 gave {overflow:.4g}, expected infinity, or "
            "218 after saturation. That is no evidence"
        )
    if rounding != 0:
        part = _SMALL[precision]
        return tried + (
            f"in a self-test 1 + {part:.3g} - 1 gave {rounding:.3g}, expected 0 after rounding. "
            "That is no evidence"
        )
    return ""


def _overflowed(found: float) -> bool:
    """Infinite, or what is left where the device saturates."""
    return not math.isfinite(found) or math.isclose(found, FP16.max / _LARGE, rel_tol=0.05)


def _tried(chosen: Chosen, onnx_type: int, precision: str) -> tuple[float, float]:
    """What the planted model gives in a type, on a precision's values. Raises EngineError."""
    text = _MODEL.format(n=_SIZE, low=onnx_type)
    opened = open_session(chosen, parser.parse_model(text).SerializeToString())
    with mapped(WHO, f"the self-test on {chosen.name}"):
        return _look(np.asarray(opened.run(None, _feeds(precision))[0]))


def _feeds(precision: str) -> dict[str, np.ndarray]:
    """First row: 300 * 300 / 300. Second row: 1 + small, of which the second product takes 1."""
    x, a, b = (np.zeros((_SIZE, _SIZE), np.float32) for _ in range(3))
    x[0, 0], a[0, 0], b[0, 0] = _LARGE, _LARGE, 1 / _LARGE
    x[1, 1:4] = 1, _SMALL[precision], 1
    a[1:3, 1] = 1
    a[3, 2] = 1
    b[1:3, 1] = 1, -1
    return {"x": x, "a": a, "b": b}


def _look(found: np.ndarray) -> tuple[float, float]:
    """What the two rows give."""
    return float(found[0, 0]), float(found[1, 1])
