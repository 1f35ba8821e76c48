"""OpenVINO's devices, what they really compute in, and how a model is compiled for one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import openvino as ov

from topsideas.engines.foreign import mapped
from topsideas.engines.options import EngineOptions
from topsideas.errors import EngineError

NAME = "openvino"
CAPABILITY = {"fp16": "FP16", "bf16": "BF16"}
TYPE = {"fp16": "f16", "bf16": "bf16"}
_DEVICE = "device"

# With this hint an op of a typed model computes in its own type, and with the other all ops in the
# type that the device likes best.
_ACCURACY = {"EXECUTION_MODE_HINT": "ACCURACY", "PERFORMANCE_HINT": "LATENCY"}


@dataclass(frozen=True)
class Target:
    """One device and how to compile for it.

    Attributes:
        device: ``CPU``, ``GPU.0``, …
        config: What ``compile_model`` is given.
    """

    device: str
    config: Mapping[str, Any]

    def full_name(self) -> str:
        """What the maker calls the device. Raises EngineError."""
        with mapped(NAME, f"asking {self.device} for its name"):
            return f"{self.device} ({core().get_property(self.device, 'FULL_DEVICE_NAME')})"

    def capabilities(self) -> list[str]:
        """What the device computes in. Raises EngineError."""
        with mapped(NAME, f"asking {self.device} for its capabilities"):
            return list(core().get_property(self.device, "OPTIMIZATION_CAPABILITIES"))

    def refusal(self, precision: str) -> str:
        """Why low ops of this format are no evidence on the device; empty where they are."""
        found = self.capabilities()
        wanted = CAPABILITY[precision]
        if wanted in found:
            return ""
        return (
            f"openvino computes {precision} models in fp32 on {self.full_name()}, whose "
            f"capabilities are {', '.join(found)} without {wanted}: that is no evidence. "
            f"Remedy: run on a processor or GPU that lists {wanted}, or take --engine emulator"
        )


@cache
def core() -> ov.Core:
    """OpenVINO's entry object; it finds the devices once."""
    return ov.Core()


def version() -> str:
    """OpenVINO's version."""
    return str(ov.__version__)


def target_of(options: EngineOptions) -> Target:
    """The device that is asked for, by its place in OpenVINO's list or by the option ``device``.

    Raises:
        EngineError: There is no such device, or an option is not for this engine.
    """
    own = {k: v for k, v in options.merged().items() if k != "resource_mode"}
    devices = list(core().available_devices)
    named = own.pop(_DEVICE, None)
    if named is None and not 0 <= options.device < len(devices):
        raise EngineError(
            f"openvino has no device {options.device}; it found {_numbered(devices)}"
        )
    device = devices[options.device] if named is None else str(named)
    if device.split(".")[0] not in {d.split(".")[0] for d in devices}:
        raise EngineError(f"openvino has no device {device!r}; it found {_numbered(devices)}")
    return Target(device, {**_ACCURACY, **own})


def compile_file(path: str, target: Target) -> ov.CompiledModel:
    """Compile an ONNX or IR file. Raises EngineError."""
    with mapped(f"{NAME} {version()}", f"compiling for {target.device}"):
        return core().compile_model(core().read_model(path), target.device, dict(target.config))


def as_json(config: Mapping[str, Any]) -> str:
    """Compile options as text, for identities."""
    return json.dumps(dict(config), sort_keys=True, default=str)


def _numbered(devices: list[str]) -> str:
    return ", ".join(f"{at} {name}" for at, name in enumerate(devices)) or "none"
