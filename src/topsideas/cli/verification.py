"""Judges a plan of a report on an engine; see ``topsideas onnx verify``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from topsideas.calibration.controls import refuse_baseline
from topsideas.calibration.deployed import honoured, readback_notes
from topsideas.calibration.journal import MemoryStore
from topsideas.calibration.opening import open_engines
from topsideas.calibration.plans import options_of, refuse_other_model
from topsideas.calibration.problem import Problem, make_problem, read_samples
from topsideas.calibration.selection import foreign_plans, read_report, select_ops
from topsideas.calibration.settings import Settings
from topsideas.cli.options import compile_options, isolation, overflow_of
from topsideas.engines.options import EngineOptions
from topsideas.engines.registry import choose
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import PRECISIONS, Numerics, Overflow, Precision
from topsideas.report.files import VERDICTS, check_target, write_json
from topsideas.report.output import standard_output
from topsideas.report.text import number, ops_in_fp32, printable
from topsideas.samples.npz import scan_folder
from topsideas.samples.signature import signature_of
from topsideas.stats.criteria import Cosine, Tolerance
from topsideas.verdict import Verdict

Json = dict[str, Any]


def verify(args: argparse.Namespace) -> int:
    """Judge and print; returns the exit code. Raises TopsideasError."""
    check_target(args.output_json, opening=VERDICTS, what="list of verdicts")
    report = read_report(Path(args.plan))
    asked = options_of(Path(args.plan), report)
    precision = PRECISIONS[args.precision or asked.get("precision", "fp16")]
    model = load_model(args.input_onnx, precision)
    if not args.other_model:
        refuse_other_model(
            Path(args.plan), report, model, "--other_model, to judge it here anyway"
        )
    name, chosen = choose(args.engine, "onnx")
    problem, notes = _problem(args, name, model, precision, asked)
    tokens = [f"@{args.plan}"]
    plan = PrecisionPlan(select_ops(problem.model, tokens))
    notes += foreign_plans(model, problem.engine.identity(), tokens)
    _check_fp32(problem)
    verdicts = _verdicts(problem, plan, notes)
    verdicts[0] = honoured(problem, plan, verdicts[0])
    notes += readback_notes(problem, plan)
    if asked.get("val_func"):
        notes.append("the plan was found with --val_func; here it is judged by the tolerance")
    found = _document(problem, plan, verdicts, report, [chosen, *notes] if chosen else notes)
    _show(found)
    if args.output_json:
        write_json(found, Path(args.output_json))
    return 0 if found["verdict"] == "pass" else 1


def _verdicts(problem: Problem, plan: PrecisionPlan, notes: list[str]) -> list[Verdict]:
    """The verdicts on every sample, the worst first. A device is asked twice."""
    first = problem.verdicts(plan)
    if problem.engine.identity().evidence == "emulated":
        return first
    second = problem.verdicts(plan)
    if first == second:
        return first
    notes.append("the engine is not deterministic: two runs gave other margins, the worse counts")
    return max(first, second, key=lambda found: (not found[0].passed, found[0].margin or 0.0))


def _problem(
    args: argparse.Namespace, name: str, model: Model, precision: Precision, asked: Json
) -> tuple[Problem, list[str]]:
    options = EngineOptions(
        numerics=Numerics(precision, Overflow(overflow_of(args, name, asked))),
        compile_options=compile_options(args.compile_options),
        device=args.device,
        isolation=isolation(name, isolate=args.isolate, python=args.engine_python),
    )
    engines = open_engines(name, model, options, propose="none")
    files = scan_folder(args.sample_dir, signature_of(model)).files
    problem = make_problem(
        engines.model,
        engines.engine,
        precision,
        files,
        (),
        _settings(args, asked),
        MemoryStore(),
        read_samples(files, None),
        golden=engines.golden,
    )
    return problem, list(engines.notes)


def _settings(args: argparse.Namespace, asked: Json) -> Settings:
    """The report's rule, but for what the command line says."""

    def given(name: str, default: float) -> float:
        values = (getattr(args, name, None), asked.get(name), default)
        return float(next(v for v in values if v is not None))

    rule = Tolerance(given("rtol", 1e-2), given("atol", 1e-2), given("ntol", 0.0))
    cosine = asked.get("cos_sim")
    return Settings(
        criterion=rule if cosine is None else Cosine(float(cosine), rule),
        bound=given("margin", 1.0),
    )


def _check_fp32(problem: Problem) -> None:
    """All ops in fp32 must pass here, or a plan's verdict means nothing. Raises BaselineError."""
    worst = problem.verdicts(PrecisionPlan(problem.model.candidates))[0]
    if not worst.passed:
        refuse_baseline(worst, problem.settings, problem.engine, problem.model.candidates)


def _document(
    problem: Problem, plan: PrecisionPlan, verdicts: list[Verdict], report: Json, notes: list[str]
) -> Json:
    worst = verdicts[0]
    return {
        "verdict": "pass" if worst.passed else "fail",
        "margin": worst.to_json()["margin"],
        "fp32_nodes": plan.ids,
        "engine": problem.engine.identity().to_json(),
        "found_on": report.get("engine"),
        "found_margin": report.get("margin"),
        "model": {"sha256": problem.model.digest},
        "samples": [v.to_json() for v in verdicts],
        "notes": notes,
    }


def _show(found: Json) -> None:
    console = standard_output()
    passed = found["verdict"] == "pass"
    engine = found["engine"]
    console.print(
        f"{found['verdict'].upper()}  {ops_in_fp32(len(found['fp32_nodes']))}, margin "
        f"{number(found['margin'], 'not finite')} on {printable(engine['name'])} "
        f"{printable(engine['version'])}, {printable(engine['device'])}",
        style="bold green" if passed else "bold red",
        markup=False,
    )
    there = found["found_on"]
    if isinstance(there, dict):
        console.print(
            printable(
                f"found on {there.get('name')} {there.get('version')} with margin "
                f"{number(found['found_margin'], 'not finite')}"
            ),
            markup=False,
        )
    for verdict in found["samples"]:
        if not verdict["passed"]:
            line = (
                f"sample {verdict['sample']} fails: {number(verdict['margin'], verdict['note'])}"
            )
            console.print(printable(line), markup=False)
    for note in found["notes"]:
        console.print(printable(f"note: {note}"), markup=False)
