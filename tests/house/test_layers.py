"""Imports go down, never up, and never sideways inside the layers of cores and effects."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import topsideas

ROOT = Path(topsideas.__file__).parent
LAYERS = (
    {"errors", "precision", "prices", "rounding", "plan", "verdict"},  # vocabulary
    {"graph", "stats", "search"},  # pure cores, which do not know each other
    {
        "engines",
        "executors",
        "formats",
        "samples",
        "workspace",
    },  # effects, which do not know each other either
    {"calibration"},  # the only glue
    {"report", "cli", "gcu"},  # faces
)
SIDEWAYS = {0, 4}  # layers whose members may import each other
ABOVE_ALL = {"testing": {0, 1, 2, 3}, "__main__": {4}}
LAYER = {name: level for level, names in enumerate(LAYERS) for name in names}


def _modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = ["topsideas", *path.relative_to(ROOT).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _imports(path: Path) -> Iterator[str]:
    """Own modules that a file imports anywhere, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            inner = [f"{node.module}.{a.name}" for a in node.names]
            yield from (name if name in MODULES else node.module for name in inner)


def _part(module: str) -> str:
    """The part of the package that a module belongs to; empty for the package itself."""
    return [*module.split("."), ""][1]


def _allowed(importer: str, imported: str) -> bool:
    if importer == imported or imported == "":
        return True
    if importer in ABOVE_ALL:
        return LAYER.get(imported) in ABOVE_ALL[importer]
    if importer not in LAYER or imported not in LAYER:
        return False
    below = LAYER[imported] < LAYER[importer]
    return below or (LAYER[imported] == LAYER[importer] and LAYER[importer] in SIDEWAYS)


def test_every_part_has_a_layer() -> None:
    parts = {_part(module) for module in MODULES} - {""}
    assert parts == LAYER.keys() | ABOVE_ALL.keys()


def test_imports_go_down() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in _imports(path)
        if not _allowed(_part(module), _part(name))
    ]
    assert wrong == []


def test_there_are_no_cycles() -> None:
    graph = {module: set(_imports(path)) - {module} for module, path in MODULES.items()}
    order = list(TopologicalSorter(graph).static_order())
    assert set(order) == set(MODULES)


def test_the_rules_refuse_what_they_should() -> None:
    refused = [
        ("graph", "stats"),
        ("search", "graph"),
        ("engines", "samples"),
        ("stats", "calibration"),
        ("errors", "graph"),
        ("calibration", "cli"),
        ("cli", "testing"),
        ("testing", "cli"),
    ]
    assert not any(_allowed(*pair) for pair in refused)
    assert _allowed("calibration", "search")
    assert _allowed("cli", "report")
