"""The converter on the ONNX project's own test cases: operators, small models, and networks.

A sample of them by default; all with the environment variable ``TOPSIDEAS_FULL=1``. Run as a
program it judges all of them, on two processors, and writes the table of ``README.md``.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from conversion_cases import FOLDERS, Case, float_cases
from conversion_reference import assert_means_the_same, assert_tidy, same_again
from conversion_runners import Reference, Runner, Runtime

from topsideas.errors import EngineError
from topsideas.graph.conversion import Conversion, Converter, write
from topsideas.graph.gates import check_export
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics

_FULL = os.environ.get("TOPSIDEAS_FULL") == "1"
_STEP = 1 if _FULL else 10
_RANDOM_PLANS = 3

# In each group, of all its cases; README.md names them.
_MOST_SKIPPED = 2

PASSED, SKIPPED, WRONG = "passed", "skipped", "wrong or invalid"

# What the CPU provider says about fp16 although the operator's ONNX schema has it.
_LACKS_FP16 = (
    "Could not find an implementation for",
    "MLFloat16 data type is not supported",
    "Type (tensor(float)) of output arg (InsertedPrecisionFreeCast_",
)


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        group: Where the case comes from.
        name: The case.
        result: ``PASSED``, ``SKIPPED`` or ``WRONG``.
        reason: On what it ran; why it was skipped; what is wrong.
        conversions: How many models were converted, and compared unless the case was skipped.
        unrun: How many of them the runtime could not run in fp16, for lack of a kernel.
    """

    group: str
    name: str
    result: str
    reason: str
    conversions: int = 0
    unrun: int = 0


def judge(case: Case, folder: Path) -> Outcome:
    """Convert a case under several plans, and compare each conversion with the emulator."""
    try:
        runner, reason = _runner(case)
        conversions, unrun = _convert_all(case, folder, runner)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__} in {where.name}: {' '.join(str(error).split())[:300]}"
        return Outcome(case.group, case.name, WRONG, told)
    result = SKIPPED if runner is None else PASSED
    return Outcome(case.group, case.name, result, reason, conversions, unrun)


def _runner(case: Case) -> tuple[Runner | None, str]:
    """ONNX Runtime; where that cannot run the case itself, ONNX's reference implementation.

    Where that cannot either, nothing is compared, and the second result says why.
    """
    refused: list[str] = []
    for runner in (Runtime(), Reference()):
        try:
            first, again = runner(case.model, case.feeds), runner(case.model, case.feeds)
        except Exception as error:
            refused.append(f"{type(error).__name__}: {' '.join(str(error).split())}")
            continue
        if not same_again(first, again):
            return None, "ONNX: the case draws other random numbers each time"
        return runner, runner.name
    return None, _class_of(*refused)


def _class_of(runtime: str, reference: str) -> str:
    """Why a case cannot be run, in words that cases share."""
    if "not a registered function/op" in runtime:
        what = "an operator that it does not register"
    elif "Could not find an implementation" in runtime:
        what = "an operator without a kernel at this opset"
    else:
        what = runtime[:80]
    return f"runtime: {what}; ONNX's reference implementation has none either ({reference[:60]})"


def _convert_all(case: Case, folder: Path, runner: Runner | None) -> tuple[int, int]:
    source = load_model(case.model)
    onnx.save(case.model, folder / "source.onnx")
    converter, conversions, unrun = Converter(source, Numerics()), 0, 0
    for plan in _plans(source, case.name):
        conversion = converter.convert(plan)
        assert_tidy(conversion, source)
        low = plan.low(source.candidates)
        if runner is not None:
            assert_means_the_same(conversion, source, low, case.feeds, Numerics(), run=runner)
        conversions += 1
        unrun += not _runs(conversion, folder, case, runner)
    return conversions, unrun


def _plans(model: Model, seed: str) -> Iterator[PrecisionPlan]:
    """All low, all kept, and random halves."""
    rng = random.Random(seed)
    yield PrecisionPlan.of([])
    yield PrecisionPlan.of(model.candidates)
    for _ in range(_RANDOM_PLANS if _FULL else 1):
        yield PrecisionPlan.of(i for i in sorted(model.candidates) if rng.random() < 0.5)


def _runs(conversion: Conversion, folder: Path, case: Case, runner: Runner | None) -> bool:
    """Whether the written file is valid, opens and runs; False where the CPU has no kernel."""
    path = write(conversion, folder / "mixed.onnx")[0]
    try:
        check_export(path, folder / "source.onnx")
        if runner is not None:
            runner(onnx.load(path), case.feeds)
    except Exception as error:
        lacks = any(text in str(error) for text in _LACKS_FP16)
        # Where the runtime cannot open the case itself, its conversion is not expected to open.
        foreign = not isinstance(runner, Runtime) and isinstance(error, EngineError)
        if not lacks and not foreign:
            raise
        return False
    return True


def _report(outcomes: list[Outcome]) -> str:
    return "\n".join(f"{o.group}/{o.name}: {o.reason}" for o in outcomes if o.result == WRONG)


@pytest.mark.filterwarnings("ignore")  # of ONNX's reference implementation
@pytest.mark.parametrize("group", ["node", *FOLDERS])
def test_onnx_cases(group: str, tmp_path: Path) -> None:
    if group == "light" and not _FULL:
        pytest.skip("networks of gigaflops: TOPSIDEAS_FULL=1")
    cases = list(float_cases((group,)))[::_STEP]
    outcomes = [judge(case, tmp_path) for case in cases]
    assert not _report(outcomes)
    skipped = [outcome for outcome in outcomes if outcome.result == SKIPPED]
    assert len(skipped) <= _MOST_SKIPPED, skipped
    assert len(outcomes) == len(cases) > len(skipped)


def _judge_share(share: int) -> list[Outcome]:
    with tempfile.TemporaryDirectory() as folder:
        mine = (case for i, case in enumerate(float_cases()) if i % 2 == share)
        return [judge(case, Path(folder)) for case in mine]


def _table(outcomes: list[Outcome]) -> str:
    """Cases by group and outcome, then each reason with its cases."""
    rows: dict[tuple[str, str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        rows[outcome.group, outcome.result, outcome.reason].append(outcome)
    lines = ["| cases of | outcome | on, or why | cases | conversions | not run in fp16 |"]
    lines += ["|---|---|---|---|---|---|"]
    order = ["node", *FOLDERS]
    for (group, result, reason), found in sorted(
        rows.items(), key=lambda row: (order.index(row[0][0]), row[0][1], row[0][2])
    ):
        done, unrun = sum(o.conversions for o in found), sum(o.unrun for o in found)
        told = reason.replace("|", "\\|")
        lines.append(f"| {group} | {result} | {told} | {len(found)} | {done} | {unrun} |")
    totals = Counter(outcome.result for outcome in outcomes)
    sums = ", ".join(f"{totals[key]} {key}" for key in (PASSED, SKIPPED, WRONG))
    done = sum(outcome.conversions for outcome in outcomes)
    lines += ["", f"In all: {len(outcomes)} cases, {sums}; {done} conversions."]
    skipped = sorted((o for o in outcomes if o.result == SKIPPED), key=lambda o: o.name)
    lines += ["", "Skipped cases:", ""]
    lines += [f"- `{o.name}`: {o.reason}" for o in skipped]
    return "\n".join(lines)


def main() -> int:
    """Judge everything and write the table."""
    with ProcessPoolExecutor(2) as pool:
        outcomes = [o for share in pool.map(_judge_share, range(2)) for o in share]
    readme = Path(__file__).with_name("README.md")
    begin, end = "<!-- table: begin -->", "<!-- table: end -->"
    text = readme.read_text(encoding="utf-8")
    head, tail = text.split(begin)[0], text.split(end)[1]
    body = f"{begin}\n{_table(outcomes)}\n{end}"
    readme.write_text(f"{head}{body}{tail}", encoding="utf-8")
    print(_report(outcomes) or "nothing is wrong")  # noqa: T201
    return int(any(outcome.result == WRONG for outcome in outcomes))


if __name__ == "__main__":
    os.environ["TOPSIDEAS_FULL"] = "1"
    _FULL, _STEP = True, 1
    sys.exit(main())
