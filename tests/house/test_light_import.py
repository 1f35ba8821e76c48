"""Asking for help or for the list of engines loads nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"numpy", "onnx", "onnx_ir", "onnxruntime", "ml_dtypes", "openvino", "sqlite3"}

PROBE = """
import json, sys
{code}
print()
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""

HELP = """
from topsideas.cli import main
try:
    main({words!r})
except SystemExit as end:
    assert not end.code
"""


def _loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(code=code)], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import topsideas",
        "from topsideas.engines.registry import ENGINES, choose; assert choose('auto')",
        HELP.format(words=["--help"]),
        HELP.format(words=["--version"]),
        HELP.format(words=["gcu", "mix_precision", "--help"]),
        HELP.format(words=["onnx", "convert", "--help"]),
        HELP.format(words=["onnx", "export", "--help"]),
    ],
    ids=["package", "registry", "help", "version", "command help", "convert", "export"],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    loaded = _loaded(code)
    assert "topsideas" in loaded
    assert not loaded & HEAVY
