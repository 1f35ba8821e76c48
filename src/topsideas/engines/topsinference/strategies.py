"""How ops are kept in fp32: three ways, the first that the SDK and its profile allow is taken.

Only the layers' ``setPrecision`` of the C++ header is public, and nobody has shown it in Python.
So each way says why it is not available, and none available is an error: a plan that is quietly
ignored would be the worst answer of all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from topsideas.engines.topsinference.profile import SdkProfile
from topsideas.engines.topsinference.sdk import Sdk
from topsideas.errors import EngineError
from topsideas.graph.ops import Op
from topsideas.graph.schemas import NO_SLOTS

_LAYERS = ("get_layer", "getLayer")
_COUNT = ("get_layer_num", "getLayerNum")
_PRECISION = ("set_precision", "setPrecision")
_FP32 = ("DT_FLOAT32", "TIF_FP32")
_TYPE, _NAME = ("get_type", "getType"), ("get_name", "getName")


class Strategy(Protocol):
    """One way of telling the compiler which ops are fp32."""

    @property
    def name(self) -> str:
        """Its name in the SDK profile."""
        ...

    @property
    def numbering(self) -> str:
        """Whose numbers the ids are: ``hlir``, ``layers`` or ``onnx``."""
        ...

    def options(self, kept: frozenset[int]) -> Mapping[str, Any]:
        """Compile options for a plan."""
        ...

    def mark(self, network: Any, kept: frozenset[int]) -> None:
        """Change a parsed network for a plan. Raises EngineError."""
        ...


@dataclass(frozen=True)
class CompileOption:
    """Ids of the compiled graph in a compile option."""

    key: str
    format: str
    name: str = "compile_option"
    numbering: str = "hlir"

    def options(self, kept: frozenset[int]) -> Mapping[str, Any]:
        """The option, if there is anything to keep."""
        ids = sorted(kept)
        forms: Mapping[str, Any] = {
            "list": ids,
            "csv": ",".join(map(str, ids)),
            "json": json.dumps(ids),
        }
        return {self.key: forms[self.format]} if ids else {}

    def mark(self, network: Any, kept: frozenset[int]) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class LayerPrecision:
    """``setPrecision`` of the parser's layers; ids are their indices."""

    sdk: Sdk
    name: str = "layer_precision"
    numbering: str = "layers"

    def options(self, kept: frozenset[int]) -> Mapping[str, Any]:
        """None."""
        return {}

    def mark(self, network: Any, kept: frozenset[int]) -> None:
        """Set each layer to fp32. Raises EngineError."""
        fp32 = self.sdk.constant(*_FP32)
        for index in sorted(kept):
            layer = _method(network, _LAYERS)(index)
            if layer is None or _method(layer, _PRECISION)(fp32) is False:
                raise EngineError(f"TopsInference refuses to keep layer {index} in fp32")

    def ops(self, network: Any) -> tuple[Op, ...]:
        """The layers as ops. Raises EngineError."""
        count = int(_method(network, _COUNT)())
        return tuple(_layer_op(_method(network, _LAYERS)(i), i) for i in range(count))


@dataclass(frozen=True)
class OnnxFp16:
    """The typed model itself, built without the compiler's own mixed precision."""

    name: str = "onnx_fp16"
    numbering: str = "onnx"

    def options(self, kept: frozenset[int]) -> Mapping[str, Any]:
        """None."""
        return {}

    def mark(self, network: Any, kept: frozenset[int]) -> None:
        """Nothing to do."""


def choose_strategy(sdk: Sdk, network: Callable[[], Any]) -> Strategy:
    """The first strategy of the profile that is available.

    Args:
        sdk: The SDK with its profile.
        network: Parses the model.

    Raises:
        EngineError: None is; the message says why each is not.
    """
    reasons = []
    for name in sdk.profile.strategies:
        found = _available(name, sdk, sdk.profile, network)
        if not isinstance(found, str):
            return found
        reasons.append(f"{name}: {found}")
    raise EngineError(
        "the SDK profile leaves no way of keeping ops in fp32 (" + "; ".join(reasons) + "). "
        "Remedy: 'topsideas gcu probe' shows what the SDK offers; write a profile and name it in "
        '--compile_options \'{"sdk_profile": "profile.json"}\''
    )


def _available(
    name: str, sdk: Sdk, profile: SdkProfile, network: Callable[[], Any]
) -> Strategy | str:
    """The strategy, or why it is not available."""
    if name == "compile_option":
        empty = [f for f in ("fp32_key", "ir_id") if not getattr(profile, f)]
        if empty:
            return (
                f"{' and '.join(empty)} of the profile {'is' if len(empty) == 1 else 'are'} empty"
            )
        return CompileOption(profile.fp32_key, profile.fp32_format)
    if name == "layer_precision":
        parsed = network()
        if not any(hasattr(parsed, n) for n in _LAYERS) or not any(
            hasattr(parsed, n) for n in _COUNT
        ):
            return f"the network has no {' or '.join(_LAYERS)}"
        return LayerPrecision(sdk)
    if not profile.allow_onnx_fp16:
        return "allow_onnx_fp16 of the profile is false"
    return OnnxFp16()


def _method(owner: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        if hasattr(owner, name):
            return getattr(owner, name)
    raise EngineError(f"TopsInference's {type(owner).__name__} has no {' or '.join(names)}")


def _layer_op(layer: Any, index: int) -> Op:
    kind = next((str(getattr(layer, n)()) for n in _TYPE if hasattr(layer, n)), "layer")
    name = next((str(getattr(layer, n)()) for n in _NAME if hasattr(layer, n)), "")
    return Op(index, f"layers/{kind}_{index}", name, kind, NO_SLOTS, True, "", (), (), ())
