"""What must hold before a search can mean anything: every op in fp32 passes."""

from __future__ import annotations

from typing import NoReturn

from topsideas.calibration.judge import FUSED, SECOND
from topsideas.calibration.settings import Settings
from topsideas.engines.base import Engine
from topsideas.errors import BaselineError, EngineError
from topsideas.plan import PrecisionPlan
from topsideas.verdict import Verdict


def refuse_baseline(
    verdict: Verdict, settings: Settings, engine: Engine, candidates: frozenset[int]
) -> NoReturn:
    """Give up: even with every op in fp32 a sample fails.

    Args:
        verdict: The verdict on that plan.
        settings: The rule that it was judged by.
        engine: What it was judged on: what it has to say of the plan may be the cause.
        candidates: All ops that may run low.

    Raises:
        BaselineError: Golden outputs and model disagree.
        EngineError: The engine cannot run the model.
    """
    if verdict.note and verdict.note not in (SECOND, FUSED):
        raise EngineError(f"the model fails even with every op in fp32: {verdict.note}")
    notes = getattr(engine.compile(PrecisionPlan(candidates)), "notes", ())
    raise BaselineError(
        f"even with every op in fp32, {_missed(verdict, settings)}. No choice of fp32 ops can "
        "repair that: check that the golden files come from this model and these inputs, or "
        "widen the tolerance" + "".join(f". {note}" for note in notes)
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
