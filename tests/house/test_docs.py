"""The documents are true: what README shows is what happens, and nothing is left out."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import topsideas.errors
from topsideas.cli.arguments import build_parser
from topsideas.report.schema import report_schema

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
README_ZH = ROOT / "README.zh-CN.md"
REFERENCE = ROOT / "docs/reference.md"
COMMANDS = ROOT / "docs/commands.md"
DEPLOY = ROOT / "docs/deploy.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md")])
TUTORIALS = "tutorial.md", "zh/tutorial.md"
GUIDES = sorted([ROOT / "docs/tutorial.md", *ROOT.glob("docs/howto/*.md")])

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
# Numbers with a decimal point differ in the last digits from one CPU to another.
_DECIMAL = re.compile(r"\d+\.\d+(?:e[+-]\d+)?")
_RELATIVE = 0.05
# What shell blocks that are not run may do: things that need a network or take minutes.
_NOT_RUN = {"pip", "python", "git", "make", "cp", "cd", ".ci/run", ".", "source"}

# Named where it is told how to use what this tool wrote for them.
_OF_OTHER_TOOLS = {"--onnx", "--head", "--port", "--address", "--resources", "--generate"}
_OF_OTHER_TOOLS |= {"--stronglyTyped", "--saveEngine", "--check", "--tools", "--limit"}


@dataclass(frozen=True)
class Step:
    """A command of a document and the output it claims."""

    command: str
    shown: list[str]


def _blocks(document: Path, *languages: str) -> list[str]:
    found = _FENCED.findall(document.read_text(encoding="utf-8"))
    return [text for language, text in found if language in languages]


def _steps(block: str) -> Iterator[Step]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *shown = part.rstrip().replace("\\\n", " ").splitlines()
        yield Step(command, shown)


def _demo(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    return tmp_path


def _run(words: list[str], folder: Path) -> str:
    environment = os.environ | {"COLUMNS": "80", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    assert not done.stderr
    return done.stdout.replace(str(folder), "/path/to")


def _assert_shows(shown: list[str], printed: str, what: str) -> None:
    """Compare line by line; a line of dots stands for any number of lines."""
    lines = printed.splitlines()
    at, skipping = 0, False
    for expected in shown:
        if expected == "...":
            skipping = True
            continue
        while skipping and at < len(lines) and not _same(expected, lines[at]):
            at += 1
        found = lines[at] if at < len(lines) else ""
        assert _same(expected, found), (
            f"{what}\nshows   {expected!r}\nprinted {found!r}\n\nin all:\n{printed}"
        )
        at, skipping = at + 1, False
    rest = [] if skipping else lines[at:]
    assert not any(rest), f"{what}\nprints more than is shown:\n" + "\n".join(rest)


def _same(expected: str, found: str) -> bool:
    if _plain(expected) != _plain(found):
        return False
    pairs = zip(_DECIMAL.findall(expected), _DECIMAL.findall(found), strict=True)
    timed = " s, " in expected
    return timed or all(abs(float(a) - float(b)) <= _RELATIVE * abs(float(a)) for a, b in pairs)


def _plain(line: str) -> str:
    return " ".join(_DECIMAL.sub("#", line).split())


def test_commands_of_readme_print_what_it_shows(tmp_path: Path) -> None:
    folder = _run_steps(README, _demo(tmp_path))
    _assert_documented(json.loads((folder / "result.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_commands_of_guides_print_what_they_show(guide: Path, tmp_path: Path) -> None:
    _run_steps(guide, _demo(tmp_path))


def _run_steps(document: Path, folder: Path) -> Path:
    """Run every command that is shown with its output; returns the folder of the last."""
    steps = [s for block in _blocks(document, "console") for s in _steps(block)]
    assert len(steps) > 3
    for step in steps:
        program, *words = shlex.split(step.command)
        if program == "cd":
            folder = folder / words[0]
            continue
        assert program in ("topsideas", "python"), step.command
        module = ["-m", program] if program == "topsideas" else []
        _assert_shows(step.shown, _run([*module, *words], folder), step.command)
    return folder


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_guides_say_of_commands_that_they_were_not_run(guide: Path) -> None:
    """A shell block is not run here, so the paragraph above it has to say so."""
    for before in guide.read_text(encoding="utf-8").split("```sh\n")[:-1]:
        assert "not run here" in before.rstrip().rpartition("\n\n")[2].lower()


def _assert_documented(report: dict[str, Any]) -> None:
    text = (ROOT / "docs/report.md").read_text(encoding="utf-8")
    keys = {*report, *report["options"], *report["engine"], *report["output_files"]}
    assert {key for key in keys if f"`{key}`" not in text} == set()


def test_python_of_readme_prints_what_it_shows(tmp_path: Path) -> None:
    """A ``text`` block behind a Python block is its output; without one it prints nothing."""
    folder = _demo(tmp_path) / "examples/plate_reader"
    fenced = _FENCED.findall(README.read_text(encoding="utf-8"))
    python = [i for i, (language, _) in enumerate(fenced) if language == "python"]
    assert python
    for index in python:
        (folder / "block.py").write_text(fenced[index][1], encoding="utf-8")
        following = fenced[index + 1] if index + 1 < len(fenced) else ("", "")
        shown = following[1].splitlines() if following[0] == "text" else []
        _assert_shows(shown, _run(["block.py"], folder), fenced[index][1])


def test_shell_blocks_that_are_not_run_hold_no_command_that_could_be() -> None:
    for block in _blocks(README, "sh"):
        for line in block.splitlines():
            program = Path(shlex.split(line, comments=True)[0])
            assert str(program) in _NOT_RUN or program.name in _NOT_RUN, line


def test_both_readmes_show_the_same() -> None:
    languages = "console", "python", "text", "sh", "json"
    assert _blocks(README_ZH, *languages) == _blocks(README, *languages)


def test_both_tutorials_show_the_same() -> None:
    english, chinese = (_blocks(ROOT / "docs" / f, "console") for f in TUTORIALS)
    assert chinese == english


@pytest.mark.parametrize("guide", sorted(ROOT.glob("docs/howto/*.md")), ids=lambda path: path.stem)
def test_guides_show_the_same_in_chinese(guide: Path) -> None:
    chinese = ROOT / "docs/zh" / guide.name
    shown = [
        [_blocks(page, language) for language in ("console", "sh")] for page in (guide, chinese)
    ]
    if guide.stem == "deployment":  # in Chinese the GCU comes first
        shown = [[sorted(blocks) for blocks in page] for page in shown]
    assert shown[1] == shown[0]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(document: Path) -> None:
    text = _FENCED.sub("", document.read_text(encoding="utf-8"))
    for link in _LINK.findall(text):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), f"{document.name} links to {link}"
        assert target.is_relative_to(ROOT), f"{document.name} links to {link}"
        if anchor:
            assert anchor in _anchors(target), f"{document.name} links to {link}"


def _anchors(document: Path) -> set[str]:
    text = _FENCED.sub("", document.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def _command() -> argparse.ArgumentParser:
    return _child(_child(build_parser(), "gcu"), "mix_precision")


def _child(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    choices = next(a.choices for a in parser._actions if a.choices is not None)
    child: argparse.ArgumentParser = choices[name]  # type: ignore[index, call-overload]
    return child


def _flags(parser: argparse.ArgumentParser) -> dict[str, list[tuple[str, str]]]:
    """By group, each flag as it is written and its default."""
    return {
        str(group.title): [(_spelled(a), _default(a)) for a in group._group_actions]
        for group in parser._action_groups
        if group._group_actions and group.title != "options"
    }


def _spelled(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ", ".join(action.option_strings)
    metavar = action.metavar or action.dest.upper()
    if action.choices is not None:
        metavar = "{" + ",".join(map(str, action.choices)) + "}"
    value = f"[{metavar} ...]" if action.nargs == "*" else metavar
    return " ".join([*action.option_strings, str(value)])


def _default(action: argparse.Action) -> str:
    if action.required:
        return "required"
    if action.dest == "overflow":
        return "saturate (gcu), inf (onnx)"
    if action.default is False:
        return "off"
    if action.default in (None, []):
        return "none"
    if isinstance(action.default, list):
        return " ".join(map(str, action.default))
    if isinstance(action.default, float):
        return repr(action.default).removesuffix(".0")
    return str(action.default)


def test_reference_lists_every_flag_with_its_default() -> None:
    assert _documented(REFERENCE) == _flags(_command())


@pytest.mark.parametrize("name", ["convert", "export"])
def test_deploy_lists_every_flag_with_its_default(name: str) -> None:
    assert sorted(_documented(DEPLOY)[name]) == _listed("onnx", name)


@pytest.mark.parametrize(
    "name", ["onnx verify", "onnx report", "onnx compare", "gcu probe", "doctor"]
)
def test_commands_page_lists_every_flag_with_its_default(name: str) -> None:
    assert sorted(_documented(COMMANDS)[name]) == _listed(*name.split())


def test_reference_pages_name_every_command() -> None:
    own_page = {"gcu mix_precision", "onnx mix_precision", "onnx convert", "onnx export"}
    as_onnx = {"gcu report", "gcu compare"}
    text = COMMANDS.read_text(encoding="utf-8")
    headings = set(re.findall(r"^## (.*)$", text, re.MULTILINE))
    assert headings == set(_leaves(build_parser())) - own_page - as_onnx


def _leaves(parser: argparse.ArgumentParser, *path: str) -> Iterator[str]:
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for action in below:
        for name, child in action.choices.items():
            yield from _leaves(child, *path, name)
    if not below:
        yield " ".join(path)


def _listed(*path: str) -> list[tuple[str, str]]:
    parser = build_parser()
    for name in path:
        parser = _child(parser, name)
    return sorted(
        (_spelled(a), _default(a) if a.dest != "overflow" else str(a.default or "none"))
        for a in parser._actions
        if a.dest != "help" and a.option_strings
    )


def _documented(document: Path) -> dict[str, list[tuple[str, str]]]:
    """By heading, each flag in a table and its default."""
    documented: dict[str, list[tuple[str, str]]] = {}
    group = ""
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            group = line[3:]
        elif line.startswith("| `-"):
            flag, default, *_ = line.removeprefix("| ").split(" | ")
            documented.setdefault(group, []).append((flag.replace("`", ""), default))
    return documented


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_flags_that_are_named_exist(document: Path) -> None:
    known = _every_flag(build_parser()) | _OF_OTHER_TOOLS
    text = re.sub(r"^.*\bpip install\b.*$", "", document.read_text(encoding="utf-8"), flags=re.M)
    assert set(re.findall(r"(?<![\w-])--[a-z]\w*", text)) <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_are_not_run_parse(document: Path) -> None:
    """Dots stand for the flags that a run cannot do without."""
    needed = "--input_onnx m.onnx --sample_dir samples --workspace ws"
    for block in _blocks(document, "sh"):
        for line in block.replace("\\\n", " ").replace("...", needed).splitlines():
            program, *words = shlex.split(line, comments=True) or [""]
            if program == "topsideas":
                shell = [i for i, word in enumerate(words) if word in (">", "&", "|")]
                build_parser().parse_args(words[: shell[0]] if shell else words)


def _every_flag(parser: argparse.ArgumentParser) -> set[str]:
    """The flags of a command and of all below it."""
    found = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action.choices, dict):
            for child in action.choices.values():
                found |= _every_flag(child)
    return found


def test_report_page_names_every_key() -> None:
    text = (ROOT / "docs/report.md").read_text(encoding="utf-8")
    missing = {key for key in _keys(report_schema()) if f"`{key}`" not in text}
    assert missing == set()


def _keys(schema: object) -> Iterator[str]:
    if isinstance(schema, dict):
        yield from schema.get("properties", {})
        for part in schema.values():
            yield from _keys(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _keys(part)


def test_error_page_names_every_class_with_its_code() -> None:
    text = (ROOT / "docs/exit-codes-and-errors.md").read_text(encoding="utf-8")
    for name, value in vars(topsideas.errors).items():
        if isinstance(value, type) and issubclass(value, topsideas.errors.TopsideasError):
            assert f"| `{name}` | {value.exit_code} |" in text, name


@pytest.mark.parametrize("name", ["security", "reliability"])
def test_promises_name_tests_that_exist(name: str) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / f"docs/{name}.md").read_text("utf-8")))
    files = (ROOT / "tests").rglob("test_*.py")
    there = {t for f in files for t in re.findall(r"def (test_\w+)", f.read_text("utf-8"))}
    assert len(named) > 5
    assert named <= there, named - there


def test_changelog_has_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in text
    assert f"## [{topsideas.__version__}]" in text
