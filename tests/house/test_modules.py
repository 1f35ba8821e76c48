"""Modules stay small, values stay frozen, and nothing is exported by accident."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import topsideas

ROOT = Path(topsideas.__file__).parent
MOST_LINES = 400

# Dataclasses that change, and why.
CHANGING = {
    "Oracle": "remembers what it was asked",
    "AutoSearch": "one search, from start to end",
    "ProposedSearch": "one search, from start to end",
    "StatisticsRun": "one run, from start to end",
    "_Emulation": "a graph being rewritten",
    "_Switching": "a graph being rewritten",
    "_Cut": "a model being cut",
    "Felt": "remembers what it measured",
    "Learning": "what one search has learned of its engine",
    "Ordering": "one ordering, from start to end",
    "Ranking": "one ranking, from start to end",
    "EmulatedPlans": "remembers what it built",
    "PairTally": "grows block by block",
    "Noise": "remembers what it found",
    "Executions": "remembers what it found",
    "EvidenceRun": "one run, from start to end",
    "_Seen": "grows turn by turn",
    "RepairSearch": "one search, from start to end",
    "_Rescaling": "a graph being rewritten",
    "Flight": "may be stopped",
}


def _sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def _dataclasses(path: Path) -> Iterator[tuple[str, bool]]:
    """Names of the dataclasses in a file, and whether they are frozen."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            for decorator in node.decorator_list:
                text = ast.unparse(decorator)
                if text.startswith("dataclass"):
                    yield node.name, "frozen=True" in text


def test_modules_are_small() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in _sources()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert long == {}


def test_dataclasses_are_frozen_unless_they_have_a_reason() -> None:
    found = [pair for path in _sources() for pair in _dataclasses(path)]
    assert len(found) > 20
    assert {name for name, frozen in found if not frozen} == CHANGING.keys()


def test_what_is_listed_as_public_exists() -> None:
    for path in _sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        bound = {name for node in tree.body for name in _bound(node)}
        listed = {
            element.value
            for node in tree.body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
            for element in ast.walk(node.value)
            if isinstance(element, ast.Constant)
        }
        assert listed <= bound, path


def _bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.ImportFrom | ast.Import):
        yield from ((a.asname or a.name) for a in node.names)
    elif isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (ast.unparse(t) for t in node.targets)
    elif isinstance(node, ast.AnnAssign):
        yield ast.unparse(node.target)
