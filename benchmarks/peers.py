"""Run this tool and its peers on the same models, under the same tolerance, limit and cores."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks import results, summary
from benchmarks.environments import HERE, ROOT
from benchmarks.job import Job
from benchmarks.problems import Problem, find_problems
from benchmarks.rows import TOOLS, fresh, measure, measure_fp32

_WORK = HERE / ".work"

_EPILOG = """\
tools:
{tools}

A model is a folder with one .onnx file and a folder samples/ of sample{{K}}_inputs.npz and
sample{{K}}_outputs.npz. Environments of other tools are made on first use under
benchmarks/.venvs. What a tool wrote, and its log, is kept under benchmarks/.work.

Rows are written one by one, so an interrupted run keeps what it measured. Rows of earlier runs
stay in the file unless they are measured again: a table can be measured in parts.

examples:
  python -m benchmarks.peers --only lprnet oww_melspec
  python -m benchmarks.peers --tools onnxconverter,autocast --limit 120
  python -m benchmarks.peers --tools topsideas --tolerance 1e-1
  python -m benchmarks.summary benchmarks/results.json
"""


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    asked = _parser().parse_args(words)
    problems = find_problems(asked.models, _WORK / "generated")
    chosen = [p for p in problems if not asked.only or p.name in asked.only]
    _say_unknown(asked.only, problems)
    if asked.list:
        print("\n".join(problem.name for problem in chosen))
        return 0
    os.environ["REFERENCE_SEARCH"] = str(_reference(asked.models))
    try:
        _measure_all(asked, chosen)
    except KeyboardInterrupt:
        print(f"interrupted; {asked.output} holds the rows so far", file=sys.stderr)
        return 130
    finally:
        summary.render(asked.output, target=summary.target(asked.output))
    return 0


def _measure_all(asked: argparse.Namespace, problems: Iterable[Problem]) -> None:
    for problem in problems:
        fp32 = measure_fp32(_job(asked, problem, "fp32"))
        for name in asked.tools:
            row = measure(TOOLS[name], problem, _job(asked, problem, name)) | fp32 | _origin()
            print(summary.line(row), flush=True)
            results.write(asked.output, results.merged(results.read(asked.output), [row]))


def _job(asked: argparse.Namespace, problem: Problem, tool: str) -> Job:
    return Job(
        model=str(problem.model.resolve()),
        samples=str(problem.samples.resolve()),
        tolerance=asked.tolerance,
        threads=asked.threads,
        limit=asked.limit,
        output=str(fresh(_WORK / tool / problem.name)),
    )


def _origin() -> dict[str, Any]:
    """When, how and on what a row was measured."""
    command = shlex.join(["python", "-m", "benchmarks.peers", *sys.argv[1:]])
    return {"date": date.today().isoformat(), "command": command, "machine": _machine()}


def _machine() -> str:
    names = [
        line.split(":", 1)[1].strip()
        for line in _text(Path("/proc/cpuinfo")).splitlines()
        if line.startswith("model name")
    ]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _reference(models: Path) -> Path:
    return (models.parent / "tools" / "reference_search.py").resolve()


def _say_unknown(only: list[str], problems: list[Problem]) -> None:
    unknown = sorted(set(only) - {problem.name for problem in problems})
    if unknown:
        names = ", ".join(problem.name for problem in problems)
        raise SystemExit(f"no model {', '.join(unknown)}; there are: {names}")


def _tools(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in TOOLS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}: expected some of {', '.join(TOOLS)}")
    return names


def _parser() -> argparse.ArgumentParser:
    listed = "\n".join(f"  {tool.name:14} {tool.summary}" for tool in TOOLS.values())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        epilog=_EPILOG.format(tools=listed),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    models = Path(os.path.relpath(ROOT.parent / "shared" / "models"))
    add(
        "--models",
        type=Path,
        default=models,
        metavar="DIR",
        help="where the models are "
        "(%(default)s); without that folder, small generated ones and the demo",
    )
    add("--only", nargs="+", default=[], metavar="NAME", help="only these models")
    add("--tools", type=_tools, default=list(TOOLS), metavar="A,B", help="only these tools")
    add("--tolerance", type=float, default=1e-2, help="both rtol and atol (%(default)s)")
    add(
        "--limit",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="stop a tool after so long "
        "(%(default)s); this tool and the reference are told, and answer with what they have",
    )
    add(
        "--threads",
        type=int,
        default=min(2, os.cpu_count() or 1),
        metavar="N",
        help="cores for each tool (%(default)s)",
    )
    add(
        "--output",
        type=Path,
        default=summary.RESULTS,
        metavar="FILE",
        help="the rows (benchmarks/results.json)",
    )
    add("--list", action="store_true", help="list the models and stop")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
