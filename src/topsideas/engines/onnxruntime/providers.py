"""Which execution provider is asked for, with which options, and sessions on it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime as ort

from topsideas.engines.foreign import mapped
from topsideas.engines.options import EngineOptions
from topsideas.errors import EngineError

NAME = "onnxruntime"
WHO = f"{NAME} {ort.__version__}"
CPU = "CPUExecutionProvider"

# Providers whose device is chosen by the option ``device_id``.
_HAVE_DEVICE_ID = {
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
    "NvTensorRTRTXExecutionProvider",
    "ROCMExecutionProvider",
    "MIGraphXExecutionProvider",
    "DmlExecutionProvider",
    "CANNExecutionProvider",
}
# A provider that hands what it cannot run to another one before the CPU.
_BESIDE = {"TensorrtExecutionProvider": "CUDAExecutionProvider"}
# Providers that need CUDA's libraries.
_ON_CUDA = {"CUDAExecutionProvider", "TensorrtExecutionProvider"}
# Providers that reach no device by themselves.
_NO_DEVICE = {CPU, "AzureExecutionProvider"}
_OWN = {"provider", "provider_options", "session_options", "resource_mode"}


@dataclass(frozen=True)
class Chosen:
    """One provider.

    Attributes:
        name: Its name, like ``CUDAExecutionProvider``.
        options: What it is given.
        session: Entries of the session's configuration.
    """

    name: str
    options: Mapping[str, str]
    session: Mapping[str, str]

    def listed(self) -> list[tuple[str, dict[str, str]]]:
        """What a session is given: the provider, then those that take what it cannot run."""
        beside = _BESIDE.get(self.name)
        found = [(self.name, dict(self.options))]
        if beside is not None and beside in ort.get_available_providers():
            device = {k: v for k, v in self.options.items() if k == "device_id"}
            found.append((beside, device))
        return found if self.name == CPU else [*found, (CPU, {})]

    def to_json(self) -> dict[str, str]:
        """For identities: everything that changes results."""
        return {
            "provider_options": json.dumps(dict(self.options), sort_keys=True),
            "session_options": json.dumps(dict(self.session), sort_keys=True),
        }


def possible_providers(options: EngineOptions) -> list[Chosen]:
    """The provider that the compile options name, or those that may reach a device, in order.

    Raises:
        EngineError: It is not in this build of onnxruntime, or an option is unknown.
    """
    merged = options.merged()
    unknown = sorted(merged.keys() - _OWN)
    if unknown:
        raise EngineError(
            f"compile option {unknown[0]!r} is unknown to the engine onnxruntime; expected "
            "provider, provider_options or session_options"
        )
    available = ort.get_available_providers()
    devices = [name for name in available if name not in _NO_DEVICE]
    names = [merged["provider"]] if "provider" in merged else devices or [CPU]
    if names[0] not in available:
        raise EngineError(
            f"onnxruntime {ort.__version__} has no provider {names[0]!r}; this build has "
            f"{', '.join(available)}. Remedy: install the build of onnxruntime that has it"
        )
    return [_with_options(name, merged, options.device) for name in names]


def _with_options(name: str, merged: Mapping[str, Any], device: int) -> Chosen:
    own = _texts(merged, "provider_options")
    if name in _HAVE_DEVICE_ID:
        own = {"device_id": str(device)} | own
    return Chosen(name, own, _texts(merged, "session_options"))


def _texts(merged: Mapping[str, Any], key: str) -> dict[str, str]:
    value = merged.get(key, {})
    if not isinstance(value, Mapping):
        raise EngineError(f"compile option {key!r} is {value!r}; expected an object")
    return {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in value.items()}


def open_session(
    chosen: Chosen, model: str | bytes, profile: Path | None = None
) -> ort.InferenceSession:
    """A session on a provider.

    Args:
        chosen: The provider.
        model: The path of a model, or a serialised one.
        profile: Where the session writes what ran where, if it is to.

    Raises:
        EngineError: The provider refuses the model, or does not start.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4  # what it would log, it raises too
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    with mapped(WHO, f"opening the model on {chosen.name}"):
        missing = _load_cuda() if chosen.name in _ON_CUDA else ""
        for key, value in chosen.session.items():
            options.add_session_config_entry(key, value)
        session = ort.InferenceSession(
            model, options, providers=chosen.listed(), enable_fallback=0
        )
    if chosen.name not in session.get_providers():
        raise EngineError(
            f"{WHO} did not start {chosen.name}, and ran on "
            f"{', '.join(session.get_providers())} instead: the provider's libraries are "
            f"missing or do not fit{missing}"
        )
    return session


@cache
def _load_cuda() -> str:
    """Load CUDA's libraries from where pip puts them; no loader looks there by itself.

    Opening a session on CUDA logs a warning each time, that no plugin is registered, by the
    logger of the whole process; that is switched off too.

    Returns:
        What is missing and how to get it, to end a message with.
    """
    ort.set_default_logger_severity(4)
    preload, said = getattr(ort, "preload_dlls", None), io.StringIO()
    if preload is not None:
        with redirect_stdout(said):
            preload()
    missing = re.findall(r"Failed to load (\S+?):", said.getvalue())
    if not missing:
        return ""
    return f": {', '.join(missing)}. Remedy: pip install 'onnxruntime-gpu[cuda,cudnn]'"
