"""One engine examined: its probe, and every check of the conformance suite.

``python -m topsideas.testing.diagnosis '{"name": "emulator"}'`` prints the findings as one line
of JSON, so that an engine that crashes takes nobody else with it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from topsideas.engines.options import EngineOptions
from topsideas.engines.registry import ENGINES, open_engine, probe_engine
from topsideas.errors import EngineError
from topsideas.graph.loading import Model
from topsideas.precision import FP16, Accumulation, Numerics, Overflow
from topsideas.testing.engine_conformance import CHECKS, NotApplicable, Opener, bf16_rounds
from topsideas.testing.search_conformance import ConformanceError

PASS, FAIL, NOT_APPLICABLE = "pass", "fail", "n/a"


def opener_of(name: str, compile_options: Mapping[str, Any], device: int = 0) -> Opener:
    """Opens an engine of the registry as the suite wants it.

    Args:
        name: Its name.
        compile_options: Its own options.
        device: Card id.
    """

    def opener(model: Model, numerics: Numerics) -> Any:
        own = dict(compile_options)
        if name == "emulator" and numerics.accumulation is Accumulation.LOW:
            own["accumulation"] = "low"  # it takes this from its options only
        options = EngineOptions(numerics=numerics, compile_options=own, device=device)
        return open_engine(name, model, options)

    return opener


def why_skipped(
    name: str, compile_options: Mapping[str, Any], device: int = 0, precision: str = "fp16"
) -> str:
    """Why an engine's low format cannot be examined here; empty where it can."""
    try:
        probe = probe_engine(name, _options(compile_options, device))
    except EngineError as error:
        return str(error)
    return probe.refusal(precision)


def diagnose(name: str, compile_options: Mapping[str, Any], device: int = 0) -> dict[str, Any]:
    """The findings as JSON values."""
    found: dict[str, Any] = {"name": name, "summary": ENGINES[name].summary, "checks": []}
    try:
        probe = probe_engine(name, _options(compile_options, device))
    except EngineError as error:
        empty = {"version": "", "device": "", "evidence": "", "low": {}, "remedy": str(error)}
        return found | {"probe": empty}
    found["probe"] = asdict(probe) | {"low": dict(probe.low)}
    checks = () if probe.refusal("fp16") else CHECKS
    if not checks and not probe.refusal("bf16"):
        checks = (bf16_rounds,)  # all others plant what fails in fp16
    opener = opener_of(name, compile_options, device)
    found["checks"] = [_checked(check, opener) for check in checks]
    return found


def _options(compile_options: Mapping[str, Any], device: int) -> EngineOptions:
    saturating = Numerics(FP16, Overflow.SATURATE)
    return EngineOptions(numerics=saturating, compile_options=compile_options, device=device)


def _checked(check: Callable[[Opener], None], opener: Opener) -> dict[str, str]:
    result, why = PASS, ""
    try:
        check(opener)
    except NotApplicable as reason:
        result, why = NOT_APPLICABLE, str(reason)
    except (ConformanceError, EngineError) as error:
        result, why = FAIL, str(error)
    except Exception as error:  # a stranger's exception: that is what the suite is there to find
        result, why = FAIL, f"{type(error).__name__} is not mapped: {error}"
    what = (check.__doc__ or "").strip().splitlines()[0]
    return {"name": check.__name__, "result": result, "why": why, "what": what}


def main() -> None:
    """Examine the engine that the first argument describes in JSON."""
    asked = json.loads(sys.argv[1])
    options, device = asked.get("compile_options", {}), asked.get("device", 0)
    sys.stdout.write(json.dumps(diagnose(asked["name"], options, device)) + "\n")


if __name__ == "__main__":
    main()
