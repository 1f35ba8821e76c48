"""An engine that crashes, hangs or swells for certain plans; opened in child processes only."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from topsideas.engines.base import Arrays, Capabilities, Identity
from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.engines.options import EngineOptions
from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan

TARGET = "tests.standin.misbehaving:open_misbehaving"


class Misbehaving:
    """The emulator, but for plans that keep exactly ``kept``, which do ``what`` when they run."""

    def __init__(self, model: Model, options: EngineOptions) -> None:
        self.inner = EmulatorEngine(model, options.numerics)
        own = options.compile_options
        self.what, self.kept = own.get("what"), frozenset(own.get("kept", []))
        if self.what == "no start":
            print("misbehaving: no licence", file=sys.stderr, flush=True)
            os.abort()

    def identity(self) -> Identity:
        return Identity("misbehaving", "1", "CPU", "emulated")

    def capabilities(self) -> Capabilities:
        return Capabilities()

    def compile(self, plan: PrecisionPlan) -> Any:
        wrong = plan.kept == self.kept
        if wrong and self.what == "crash in build":
            print("misbehaving: the compiler dies", file=sys.stderr, flush=True)
            os.abort()
        return _Executable(self, plan, wrong)

    def load(self, path: Path) -> Any:
        return self.inner.load(path)


class _Executable:
    def __init__(self, engine: Misbehaving, plan: PrecisionPlan, wrong: bool) -> None:
        self.engine, self.inner, self.wrong = engine, engine.inner.compile(plan), wrong

    def run(self, feeds: Arrays) -> dict[str, Any]:
        print("noise on standard output, as native code makes it", flush=True)
        if self.wrong and self.engine.what == "crash":
            os.abort()
        if self.wrong and self.engine.what == "hang":
            time.sleep(600)
        if self.wrong and self.engine.what == "swell":
            blocks = []
            while len(blocks) < 64:  # 2 GB, should nobody stop it
                blocks.append(np.ones(8 << 20, np.float32))
                time.sleep(0.05)
        if self.wrong and self.engine.what == "raise":
            raise LookupError("an exception that nobody mapped")
        return self.inner.run(feeds)

    def trace(self, feeds: Arrays) -> Any:
        return self.inner.trace(feeds)

    def save(self, path: Path) -> None:
        self.inner.save(path)

    def dump(self, path: Path) -> None:
        self.inner.dump(path)


def open_misbehaving(model: Model, options: EngineOptions) -> Misbehaving:
    return Misbehaving(model, options)
