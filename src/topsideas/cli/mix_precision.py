"""``topsideas TARGET mix_precision``: from arguments to a report and an exit code."""

from __future__ import annotations

import contextlib
import logging
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from topsideas.calibration.artefacts import (
    save_deploy_model,
    save_executables,
    save_inlined_model,
)
from topsideas.calibration.deployed import deployed_verdict, honoured, readback_notes
from topsideas.calibration.manual import SampleStatistics
from topsideas.calibration.opening import Engines, open_engines
from topsideas.calibration.problem import (
    Problem,
    fingerprint,
    make_problem,
    read_samples,
)
from topsideas.calibration.progress import Progress
from topsideas.calibration.result import SearchResult
from topsideas.calibration.selection import foreign_plans, select_ops, select_shown
from topsideas.calibration.team import Team, team_of
from topsideas.cli.explaining import Explaining, explain
from topsideas.cli.listing import list_ops
from topsideas.cli.options import engine_options, settings, shape_bounds_of, thresholds
from topsideas.cli.progress import progress_for
from topsideas.cli.unused import unused_flags
from topsideas.cli.words import next_step
from topsideas.cli.workers import executor
from topsideas.engines.base import Engine
from topsideas.engines.registry import ENGINES, choose, open_engine
from topsideas.errors import (
    EXIT_INTERRUPTED,
    BaselineError,
    ModelError,
    TopsideasError,
    UsageError,
    WorkspaceError,
)
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import PRECISIONS, Numerics
from topsideas.report.console import show
from topsideas.report.document import document
from topsideas.report.files import check_different, check_target, write_json, write_text
from topsideas.report.html.page import OPENING, check_renderer, page
from topsideas.report.text import printable
from topsideas.samples.npz import SampleFolder, scan_folder
from topsideas.samples.sample import split_holdout
from topsideas.samples.signature import signature_of
from topsideas.verdict import Verdict
from topsideas.workspace.files import os_errors
from topsideas.workspace.workspace import Workspace


def run(args: Namespace, words: Sequence[str]) -> int:
    """Run the command.

    Args:
        args: Parsed arguments.
        words: The command line as typed, for the commands suggested next.

    Raises:
        TopsideasError: Anything wrong with usage, input, workspace or engine.
    """
    _log_to_stderr(args.verbose)
    model = load_model(args.input_onnx, PRECISIONS[args.precision])
    if args.list_ops:
        list_ops(model)
        return 0
    return _Run(args, list(words), model).execute()


class _Run:
    """One run of the command: what it was asked, and what it has to tell."""

    def __init__(self, args: Namespace, words: list[str], model: Model) -> None:
        self.args = args
        self.words = words
        self.model = self.source = model  # the one that plans are made of, and the one to open
        self.notes: list[str] = list(model.notes)
        self.unwritten: TopsideasError | None = None
        self.engine_name, chosen = choose(args.engine, args.target)
        self.notes += [chosen] if chosen else []
        if not ENGINES[self.engine_name].numbers_ops:
            self._select()
        self.thresholds = thresholds(args)
        self.bounds = shape_bounds_of(args, model)
        self.options = engine_options(args, self.engine_name, self.bounds)
        self.executor = None if args.manual else executor(args)

    def _select(self) -> None:
        """The ops that the user means. Raises PlanError."""
        args = self.args
        self.kept = PrecisionPlan(select_ops(self.model, args.fp32_nodes))
        self.shown = select_shown(
            self.model,
            args.op_id_filter,
            args.op_id_bypass,
            args.op_type_filter,
            args.op_type_bypass,
        )
        self.settings = settings(args, self.kept.kept)

    def execute(self) -> int:
        check_target(self.args.output_json)
        if self.args.output_html:
            check_renderer()
            check_target(self.args.output_html, "--output_html", OPENING)
        asked = {f"--{name}": getattr(self.args, name) for name in ("output_json", "output_html")}
        check_different(asked)
        self.samples = samples = self._samples()
        # Before the workspace: options and samples that are refused must leave no mark on it.
        self.digests = read_samples(samples.files, self.bounds)
        propose = "none" if self.args.manual else self.args.propose
        engines = open_engines(self.engine_name, self.model, self.options, propose=propose)
        self.model = engines.model
        self.notes += engines.notes
        if ENGINES[self.engine_name].numbers_ops:
            self._select()
        belongs_to = fingerprint(self.model, self.engine_name, self.options, self.bounds)
        with Workspace.open(self.args.workspace, belongs_to, clean=self.args.clean) as workspace:
            problem = self._problem(samples, engines, workspace)
            run = self._manual if self.args.manual else self._auto
            report, interrupted = run(problem, workspace)
            self._check_model(workspace)
            self._write_reports(report)
        show(report, quiet=self.args.quiet, verbose=self.args.verbose > 0)
        if self.unwritten is not None:
            raise self.unwritten
        if interrupted:
            return EXIT_INTERRUPTED
        return 0 if report["verdict"] == "pass" else 1

    def _write_reports(self, report: dict[str, Any]) -> None:
        if self.args.output_json:
            with self._answer_first():
                check_target(self.args.output_json)  # again: hours have passed
                write_json(report, Path(self.args.output_json))
        if self.args.output_html:
            with self._answer_first():
                check_target(self.args.output_html, "--output_html", OPENING)
                write_text(page(report), Path(self.args.output_html))

    def _check_model(self, workspace: Workspace) -> None:
        try:
            self.model.check_unchanged()
        except ModelError:
            workspace.forget()  # nobody knows which results are of which weights
            raise

    @contextlib.contextmanager
    def _answer_first(self) -> Iterator[None]:
        """A full disk must not hide what was found: what cannot be written is told after that."""
        try:
            with os_errors(Path(self.args.workspace), "write all files"):
                yield
        except (WorkspaceError, UsageError) as error:
            self.unwritten = error
            self.notes.append(f"not all files were written: {error}")

    def _samples(self) -> SampleFolder:
        folder = scan_folder(self.args.sample_dir, signature_of(self.model))
        if folder.ignored:
            self.notes.append(
                f"{len(folder.ignored)} files in {self.args.sample_dir} look like samples but are "
                f"not named like them: {', '.join(folder.ignored[:3])}"
            )
        return folder

    def _problem(self, folder: SampleFolder, engines: Engines, workspace: Workspace) -> Problem:
        sources, held = split_holdout(folder.files, self.args.holdout)
        computed = [f.id for f in folder.files if f.golden_path is None]
        if computed:
            self.notes.append(
                f"golden outputs of {_ids(computed)} are missing: computed in fp32 on the CPU"
            )
        problem = make_problem(
            self.model,
            engines.engine,
            self.options.numerics.precision,
            sources,
            held,
            self.settings,
            workspace,
            self.digests,
            golden=engines.golden,
            proposer=engines.proposer,
            proposers=engines.proposers,
            team=self._team(engines),
        )
        identity = problem.engine.identity()
        self.notes += foreign_plans(self.model, identity, self.args.fp32_nodes)
        if identity.evidence == "emulated":
            self.notes.append("evidence is emulated; nothing was measured on a device")
        self.notes += unused_flags(self.args, identity.name)
        return problem

    def _team(self, engines: Engines) -> Team | None:
        if self.executor is None:
            return None
        team = team_of(self.executor, self.engine_name, self.source, self.options, engines.engine)
        if team is None:
            self.notes.append("workers: the threads of this process alone, as many as asked for")
        return team

    def _manual(self, problem: Problem, workspace: Workspace) -> tuple[dict[str, Any], bool]:
        mode = "OFF" if self.args.finalize else self._mode(problem, self.args.mode)
        with progress_for(self.args) as progress:
            statistics = problem.statistics(self.kept, mode, self.thresholds, workspace, progress)
            verdict = self._manual_verdict(problem, statistics)
            explained = explain(self._explaining(problem, workspace, progress), self.kept, verdict)
            if self.args.finalize:
                verdict = deployed_verdict(problem, self.kept, verdict)
            verdict = honoured(problem, self.kept, verdict)
        files = self._files(problem, workspace, self.kept, passed=verdict.passed)
        report = self._document(problem, self.kept, verdict, statistics, files, None)
        return explained(report), False

    def _mode(self, problem: Problem, wanted: str) -> str:
        """Statistics need an engine that shows or counts what single ops do."""
        can = problem.engine.capabilities()
        if can.traces or (wanted == "CALC" and can.counts):
            return wanted
        self.notes.append(
            f"{self.engine_name} shows no outputs of single ops here: no op statistics"
        )
        return "OFF"

    def _manual_verdict(self, problem: Problem, statistics: list[SampleStatistics]) -> Verdict:
        """From the comparison with the golden outputs, unless the user has an own rule."""
        if self.settings.validator is not None:
            return problem.verdict(self.kept)
        margins = [
            (pairs["fp16_golden"].margin, sample.sample, name)
            for sample in statistics
            for name, pairs in sample.outputs.items()
        ]
        worst, sample, output = max(margins, key=lambda m: m[0])
        return Verdict(worst <= self.settings.bound, worst, sample, output)

    def _auto(self, problem: Problem, workspace: Workspace) -> tuple[dict[str, Any], bool]:
        with progress_for(self.args) as progress:
            try:
                found = problem.search(progress)
            except BaselineError as refusal:
                self._report_refusal(problem, workspace, progress, refusal)
                raise
            off = self.args.finalize or found.stopped
            mode = "OFF" if off else self._mode(problem, "CALC")
            statistics = problem.statistics(found.plan, mode, self.thresholds, workspace, progress)
            explaining = self._explaining(problem, workspace, progress)
            explained = explain(explaining, found.plan, found.before, found)
        self.notes += [found.noise] if found.noise else []
        if found.crew is not None and found.crew.workers:
            self.notes.append(f"workers: {found.crew}")
        verdict = _overall(found)
        if self.args.finalize and verdict.passed:
            verdict = deployed_verdict(problem, found.plan, verdict)
        verdict = honoured(problem, found.plan, verdict)
        files = self._files(problem, workspace, found.plan, passed=verdict.passed)
        report = self._document(problem, found.plan, verdict, statistics, files, found)
        return explained(report), found.interrupted

    def _explaining(self, problem: Problem, place: Workspace, progress: Progress) -> Explaining:
        def opened(model: Model, numerics: Numerics) -> Engine:
            return open_engine(self.engine_name, model, replace(self.options, numerics=numerics))

        return Explaining(
            problem,
            self.args.explain,
            page=bool(self.args.output_html),
            numerics=self.options.numerics,
            open_engine=opened,
            place=place,
            progress=progress,
            notes=self.notes,
        )

    def _report_refusal(
        self, problem: Problem, workspace: Workspace, progress: Progress, refusal: BaselineError
    ) -> None:
        """Nothing to search: the report still shows how far off fp32 is."""
        if self.args.output_json or self.args.output_html:
            statistics = problem.statistics(self.kept, "OFF", self.thresholds, workspace, progress)
            verdict = Verdict(passed=False, margin=None, note=str(refusal))
            report = self._document(problem, self.kept, verdict, statistics, {}, None)
            report |= {"mode": "auto", "next_command": "", "next_reason": ""}
            self._write_reports(report)

    def _files(
        self, problem: Problem, workspace: Workspace, plan: PrecisionPlan, *, passed: bool
    ) -> dict[str, str]:
        self.notes += readback_notes(problem, plan)
        files: dict[str, str] = {}
        with self._answer_first():
            files = self._written(problem, workspace, plan)
        if self.args.finalize and not passed:
            self.notes.append("the deploy model does not reach the accuracy that was asked for")
        return files

    def _written(
        self, problem: Problem, workspace: Workspace, plan: PrecisionPlan
    ) -> dict[str, str]:
        files = save_executables(
            problem.engine, self.model, plan, workspace, finalize=self.args.finalize
        )
        if self.model.inlined:
            files["inlined_model"] = str(save_inlined_model(self.model, workspace))
            self.notes.append("local functions were inlined; ids index the inlined model")
        if self.args.finalize and problem.engine.capabilities().finalizes:
            files["deploy_model"] = files["fp16_executable"]
        elif self.args.finalize:
            numerics, inputs = self.options.numerics, (s.inputs for s in self.samples)
            path, lines = save_deploy_model(self.model, plan, numerics, workspace, inputs)
            files["deploy_model"] = str(path)
            self.notes += lines
        return files

    def _document(
        self,
        problem: Problem,
        plan: PrecisionPlan,
        verdict: Verdict,
        statistics: list[SampleStatistics],
        files: dict[str, str],
        found: SearchResult | None,
    ) -> dict[str, Any]:
        report = document(
            mode="manual" if found is None else "auto",
            model=self.model,
            plan_ids=plan.ids,
            asked=self.kept.kept,
            verdict=verdict,
            identity=problem.engine.identity(),
            options=self._options(),
            statistics=statistics,
            shown_ops=self.shown,
            output_files=files,
            notes=self.notes,
            search=found,
        )
        command, reason = next_step(self.words, self.args.target, report)
        return report | {"next_command": command, "next_reason": reason}

    def _options(self) -> dict[str, Any]:
        hidden = {"target", "command", "module", "quiet", "verbose", "list_ops", "clean"}
        asked = {k: v for k, v in vars(self.args).items() if k not in hidden}
        return asked | {"compile_options": self.options.merged(), "command": self.words}


def _overall(found: SearchResult) -> Verdict:
    """The answer's verdict; samples held out of the search can still overrule it."""
    if found.after.passed and found.holdout is not None and not found.holdout.passed:
        return found.holdout
    return found.after


def _ids(samples: list[int]) -> str:
    shown = ", ".join(map(str, samples[:5]))
    return f"sample{'s' if len(samples) > 1 else ''} {shown}{', ...' if len(samples) > 5 else ''}"


def _log_to_stderr(verbose: int) -> None:
    level = logging.DEBUG if verbose > 1 else logging.WARNING
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])


class _Printable(logging.Formatter):
    """Messages quote names out of files, which may hold what a terminal obeys."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(printable(line) for line in super().format(record).split("\n"))
