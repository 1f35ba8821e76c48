"""One row: one tool on one model, run under a limit and checked."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT, NoEnvironment, interpreter
from benchmarks.job import Job
from benchmarks.problems import Problem
from benchmarks.results import Row

# Checks run every sample by emulation, some of them node by node.
_LONGEST_CHECK = 600.0


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool.

    Attributes:
        name: Its name in tables.
        environment: Its ``requirements-NAME.txt``; empty for the project's own environment.
        summary: What it is, for help texts.
    """

    name: str
    environment: str
    summary: str


_TOOLS = (
    Tool("topsideas", "", "this tool, all samples, on the emulator"),
    Tool("onnxconverter", "onnxconverter", "auto_convert_mixed_precision, one sample"),
    Tool("autocast", "autocast", "ModelOpt's AutoCast, default thresholds, all samples"),
    Tool("reference", "", "a slow search beside the models, where there is one"),
)
TOOLS = {tool.name: tool for tool in _TOOLS}


def measure_fp32(job: Job) -> dict[str, Any]:
    """How many samples there are and how long a plain pass over them takes."""
    run = _run("run_fp32", "", job)
    return job.found() or {"samples": len(job.sample_ids()), "fp32_note": run["status"]}


def measure(tool: Tool, problem: Problem, job: Job) -> Row:
    """Run a tool on a model and check what it answers; everything that happens is in the row."""
    row: Row = {"model": problem.name, "tool": tool.name, "tolerance": job.tolerance}
    row |= {"threads": job.threads, "limit": job.limit, "load": round(os.getloadavg()[0], 2)}
    if tool.name == "reference" and not Path(os.environ["REFERENCE_SEARCH"]).exists():
        return row | {"status": "skipped: there is no tools/reference_search.py beside the models"}
    try:
        row |= _run(f"run_{tool.name}", tool.environment, job)
    except NoEnvironment as reason:
        return row | {"status": f"skipped: {shortened(str(reason))}"}
    row |= job.found()
    return row | _checked(job) if row["status"] == "answered" else row


def _checked(job: Job) -> dict[str, Any]:
    """The answer's size and margins, measured by other means than the tool's."""
    patient = replace(job, limit=max(job.limit, _LONGEST_CHECK))
    run = _run("check_emulator", "", patient)
    found = {"size": None, "file": {"margin": None, "note": run["status"]}} | job.found("check")
    found["fp16"] = {"margin": None, "note": "no model to run"}
    if job.mixed.exists():
        found["fp16"] = _on_openvino(patient)
    return found


def _on_openvino(job: Job) -> dict[str, Any]:
    try:
        run = _run("check_openvino", "openvino", job)
    except NoEnvironment as reason:
        return {"margin": None, "note": f"skipped: {shortened(str(reason))}"}
    return job.found("fp16") or {"margin": None, "note": run["status"]}


def _run(module: str, environment: str, job: Job) -> dict[str, Any]:
    """Run a worker under the job's limit; its log stays in the output folder."""
    log = Path(job.output) / f"{module}.log"
    worker = [interpreter(environment), "-m", f"benchmarks.{module}", str(job.write())]
    bounds = ["--limit", str(job.limit), "--threads", str(job.threads), "--log", str(log)]
    command = [sys.executable, "-m", "benchmarks.supervise", *bounds, "--", *worker]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(run.stdout)
    return {
        "status": status(found["exit"], job.limit, log.read_text("utf-8", errors="replace")),
        "process_seconds": found["seconds"],
        "peak_mb": found["peak_mb"],
    }


def status(code: int | None, limit: float, log: str) -> str:
    """What became of a worker, in words."""
    if code is None:
        return f"timed out after {limit:g} s"
    if code < 0:
        return f"crashed: ended by signal {-code}"
    if code:
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        return f"crashed: {shortened(lines[-1] if lines else f'exit code {code}')}"
    return "answered"


def shortened(text: str, most: int = 160) -> str:
    """A message for a table: no folders of this machine, no modules of exceptions, not long."""
    clean = text.replace(f"{ROOT}/", "").replace(f"{ROOT.parent}/", "../")
    clean = re.sub(r"^(?:\w+\.)+(?=\w+: )|\[ONNXRuntimeError\] : \d+ : \w+ : ", "", clean)
    return clean if len(clean) <= most else clean[: most - 1] + "…"


def fresh(folder: Path) -> Path:
    """An empty folder: nothing of an earlier run may be taken for an answer."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
