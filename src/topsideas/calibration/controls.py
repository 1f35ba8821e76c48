"""What must hold before a search can mean anything: fp32 passes, and runs repeat."""

from __future__ import annotations

from typing import NoReturn

from topsideas.calibration.judge import FUSED, SECOND, Arrays
from topsideas.calibration.settings import Settings
from topsideas.engines.base import Runnable
from topsideas.errors import BaselineError, EngineError
from topsideas.stats.criteria import Tolerance, margin
from topsideas.verdict import Verdict


def refuse_baseline(verdict: Verdict, settings: Settings) -> NoReturn:
    """Give up: even with every op in fp32 a sample fails.

    Args:
        verdict: The verdict on that plan.
        settings: The rule that it was judged by.

    Raises:
        BaselineError: Golden outputs and model disagree.
        EngineError: The engine cannot run the model.
    """
    if verdict.note and verdict.note not in (SECOND, FUSED):
        raise EngineError(f"the model fails even with every op in fp32: {verdict.note}")
    raise BaselineError(
        f"even with every op in fp32, {_missed(verdict, settings)}. No choice of fp32 ops can "
        "repair that: check that the golden files come from this model and these inputs, or "
        "widen the tolerance"
    )


def check_deterministic(runner: Runnable, inputs: Arrays) -> None:
    """Run a plan twice on one sample: the same question must get the same answer.

    Raises:
        EngineError: An output differs.
    """
    try:
        first, second = runner.run(inputs), runner.run(inputs)
    except EngineError:
        return  # a plan that cannot run fails: that is a verdict, and the same one twice
    refuse_differing(first, second, "two runs of the same plan on the same sample")


def refuse_differing(first: Arrays, second: Arrays, which: str) -> None:
    """Give up if two answers to one question differ.

    Args:
        first: Outputs by name.
        second: The same, of another run.
        which: What ran, for the message.

    Raises:
        EngineError: An output differs.
    """
    for name in first:
        if margin(second[name], first[name], Tolerance(0.0, 0.0)) > 0:
            raise EngineError(
                f"{which} differ in output {name!r}; expected the same answer twice. Remedy: give "
                "the model's random ops a seed, or make their values inputs"
            )


def _missed(verdict: Verdict, settings: Settings) -> str:
    which = "the data set" if verdict.sample is None else f"sample {verdict.sample}"
    if settings.validator is not None:
        return f"{which} is refused by {settings.validator.name}"
    where = f" in output {verdict.output!r}" if verdict.output else ""
    return (
        f"{which} misses its golden outputs{where} {verdict.note}".rstrip()
        + f", margin {verdict.margin:.4g} (expected at most {settings.bound:g})"
    )
