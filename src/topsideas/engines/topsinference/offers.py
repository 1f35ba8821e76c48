"""What the installed SDK offers, found by looking and by building a tiny model.

Run as a process of its own: ``python -m topsideas.engines.topsinference.offers JSON``. It prints
one line of JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from topsideas.engines.options import EngineOptions
from topsideas.engines.topsinference.builds import PLAIN, Builder
from topsideas.engines.topsinference.profile import read_profile
from topsideas.engines.topsinference.sdk import Sdk
from topsideas.engines.topsinference.strategies import OnnxFp16
from topsideas.errors import EngineError
from topsideas.graph.loading import load_model
from topsideas.plan import PrecisionPlan

# A convolution with bias, an activation and a mean: ids and fusions show in its dump.
_MODEL = """<ir_version: 8, opset_import: ["": 13]>
probe (float[1,3,8,8] x) => (float[1,4,1,1] y) <float[4,3,3,3] w, float[4] b> {
    [conv] c = Conv <pads = [1,1,1,1]> (x, w, b)
    [relu] r = Relu (c)
    [mean] y = GlobalAveragePool (r)
}"""
_DUMP_BYTES = 20_000


class _Probing:
    """Looks and tries, and writes down what happens; nothing that fails ends it."""

    def __init__(self, asked: dict[str, Any], folder: Path) -> None:
        self.steps: dict[str, str] = {}
        self.names: dict[str, list[str]] = {}
        self.dump = ""
        self._folder = folder
        profile = read_profile(asked.get("sdk_profile"))
        device, cluster = asked.get("device", 0), asked.get("cluster", [-1])
        self.sdk = Sdk(profile, folder, device, cluster)
        self._options = EngineOptions(device=device, cluster=cluster)

    def run(self) -> None:
        """Everything, step by step."""
        self.names["module"] = _public(self.sdk.module)
        self._try("claim the device", lambda: self._on_device())

    def _on_device(self) -> None:
        with self.sdk.device():
            builder = self._try("parser and model", self._builder)
            network = builder and self._try("parse", lambda: builder.parse(builder.nominal()))
            if network is None:
                return
            self.names["network"] = _public(network)
            optimizer = self._try("optimizer", self.sdk.module.create_optimizer)
            self.names["optimizer"] = _public(optimizer)
            self._build(builder)

    def _builder(self) -> Builder:
        proto = onnx.parser.parse_model(_MODEL)
        for name, shape in (("w", (4, 3, 3, 3)), ("b", (4,))):
            weight = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
            tensor = onnx.numpy_helper.from_array(weight, name)
            kept = [t for t in proto.graph.initializer if t.name != name]
            del proto.graph.initializer[:]
            proto.graph.initializer.extend([*kept, tensor])
        return Builder(self.sdk, load_model(proto), self._options, self._folder)

    def _build(self, builder: Builder) -> None:
        every = PrecisionPlan.of(range(3))
        shapes = builder.nominal()
        built = self._try(
            "build in fp32",
            lambda: builder.build(OnnxFp16(), every, frozenset(range(3)), shapes, PLAIN),
        )
        if built is None:
            return
        self.names["engine"] = _public(built.engine)
        x = np.ones((1, 3, 8, 8), np.float32)
        self._try("run", lambda: self.sdk.run(built.engine, [x], moving=False))
        self._try("save", lambda: self.sdk.save(built.engine, self._folder / "probe.exec"))
        self._try("load", lambda: self.sdk.load(self._folder / "probe.exec"))
        self.steps["dump of the compiled graph"] = str(built.ir.name if built.ir else "none found")
        if built.ir is not None:
            self.dump = built.ir.read_text(encoding="utf-8", errors="replace")[:_DUMP_BYTES]

    def _try(self, what: str, call: Callable[[], Any]) -> Any:
        try:
            result = call()
        except Exception as error:  # whatever an unknown SDK does is what is to be written down
            self.steps[what] = f"failed: {error}"
            return None
        self.steps[what] = "works"
        return result

    def to_json(self) -> dict[str, Any]:
        """The findings."""
        return {
            "version": self.sdk.version,
            "steps": self.steps,
            "names": self.names,
            "styles": {"arguments": self.sdk.style, "options": self.sdk.options_style},
            "dump": self.dump,
        }


def _public(owner: Any) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_")]


def main() -> None:
    """Probe as the first argument asks."""
    asked = json.loads(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        try:
            probing = _Probing(asked, Path(folder))
            probing.run()
            found = probing.to_json()
        except EngineError as error:
            found = {"error": str(error)}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
