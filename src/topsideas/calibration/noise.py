"""Engines that give two answers to one question: found, told, and judged more than once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from topsideas.calibration.journal import Journal
from topsideas.calibration.judge import Judge
from topsideas.calibration.references import Arrays
from topsideas.engines.base import Engine, Runnable
from topsideas.errors import EngineError
from topsideas.stats.criteria import Tolerance, margin

# How often an engine that is not deterministic judges each sample.
_REPEATS = 5


@dataclass
class Noise:
    """Whether an engine is deterministic, and what is done if it is not.

    Args:
        engine: The engine.
        judge: Judges plans; told to repeat itself.
        journal: Remembers what was found.

    Attributes:
        note: What must be known of the engine; empty while it looks deterministic.
    """

    engine: Engine
    judge: Judge
    journal: Journal
    note: str = ""

    @property
    def is_possible(self) -> bool:
        """Whether the engine may differ from run to run: the emulator does not, by definition."""
        return self.engine.identity().evidence != "emulated"

    def look(self, differing: Callable[[], str]) -> bool:
        """Have a plan run twice on one sample; whether the answers differ.

        Args:
            differing: Does so and names an output that differs; empty if none does.

        Raises:
            EngineError: They do on an engine that is deterministic by definition.
        """
        known = self.journal.recall("control", "same")
        if known is None:
            output = differing()
            if output and not self.is_possible:
                _refuse(output)
            known = output or True
            self.journal.record("control", "same", known)
        if known is True:
            return False
        self._expect(str(known))
        return True

    def contradicted(self) -> None:
        """One plan passed and failed in the same execution."""
        self.journal.record("control", "same", "")
        self._expect("")

    def _expect(self, output: str) -> None:
        self.judge.strict, self.judge.repeats = True, _REPEATS
        differ = f"differ in output {output!r}" if output else "disagree whether it passes"
        self.note = (
            f"the engine is not deterministic: two runs of one plan on one sample {differ}; each "
            f"sample was judged {_REPEATS} times, and every run had to pass"
        )


def runs_differ(runner: Runnable, inputs: Arrays) -> str:
    """Run a plan twice; returns the name of an output that differs, or an empty text."""
    try:
        return differing_output(runner.run(inputs), runner.run(inputs))
    except EngineError:
        return ""  # a plan that cannot run fails: that is a verdict, and the same one twice


def differing_output(first: Arrays, second: Arrays) -> str:
    """The name of an output that differs; empty if none does."""
    exact = Tolerance(0.0, 0.0)
    return next((name for name in first if margin(second[name], first[name], exact) > 0), "")


def _refuse(output: str) -> NoReturn:
    raise EngineError(
        f"two runs of the same plan on the same sample differ in output {output!r}; "
        "expected the same answer twice. Remedy: give the model's random ops a seed, "
        "or make their values inputs"
    )
