"""The problem of a planted model, on the emulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from topsideas.calibration.journal import MemoryStore, Store
from topsideas.calibration.problem import Problem, make_problem, read_samples
from topsideas.calibration.settings import Settings
from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.graph.loading import load_model
from topsideas.samples import samples_from_memory, signature_of
from topsideas.testing.planted import Planted


def problem_of(
    planted: Planted,
    *,
    settings: Settings | None = None,
    store: Store | None = None,
    golden: Sequence[dict[str, Any] | None] | None = None,
    held: int = 0,
) -> Problem:
    """Its last ``held`` samples only check the answer."""
    model = load_model(planted.model)
    samples = samples_from_memory(list(planted.samples), golden, signature_of(model))
    return make_problem(
        model,
        EmulatorEngine(model, planted.numerics),
        planted.numerics.precision,
        samples[: len(samples) - held],
        samples[len(samples) - held :],
        settings or Settings(),
        store or MemoryStore(),
        read_samples(samples, None),
    )
