"""What the tests of engines that compile typed models share."""

from __future__ import annotations

from collections.abc import Callable

from topsideas.engines.base import Engine
from topsideas.engines.emulator.engine import EmulatorEngine
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.stats.criteria import Tolerance, margin
from topsideas.testing.planted import Planted, ramp

TEXT = """g (float[N,4] x) => (float[N,4] y) <float c = {2}> {
    [first] a = Relu (x)
    [second] b = Exp (a)
    [third] y = Mul (b, c)
}"""
FEEDS = {"x": ramp(-1, 2, 3, 4)}
EVERY = PrecisionPlan.of([0, 1, 2])
NOISE = Tolerance(1e-5, 1e-6)


def assert_fp32_equals_the_emulators(planted: Planted, opened: Callable[[Model], Engine]) -> None:
    """A plan with every op in fp32 gives what other fp32 kernels give, but for their noise."""
    model = load_model(planted.model)
    every = PrecisionPlan(model.candidates)
    executable = opened(model).compile(every)
    reference = EmulatorEngine(model, planted.numerics).compile(every)
    for feeds in planted.samples:
        expected, found = reference.run(feeds), executable.run(feeds)
        assert list(found) == list(expected)
        for name, array in expected.items():
            assert found[name].dtype == array.dtype
            assert margin(found[name], array, NOISE) <= 1, name
