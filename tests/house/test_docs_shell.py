"""Shell blocks of the reference pages: those that any machine can run are run as they stand."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODEL = "lprnet-pt-op13-fp32-N.onnx"

# By page, what its blocks hold that is not run, and why.
ELSEWHERE = {
    "deploy.md": {},
    "explain.md": {},
    "engines.md": {},
    "ray.md": {
        "...": "stands for the flags of any search; tests/e2e/test_e2e_ray.py runs such ones",
        "pip": "needs a network",
        "ray start": "needs several machines",
    },
}
# Where the processor has no real fp16, OpenVINO is refused as evidence.
REFUSED = "openvino"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with the files that the pages name."""
    place: Path = tmp_path_factory.mktemp("pages") / "demo"
    shutil.copytree(ROOT / "examples" / "plate_reader", place)
    shutil.copy(place / MODEL, place / "m.onnx")
    (place / "lprnet-samples").rename(place / "samples")
    asked = f"--input_onnx {MODEL} --sample_dir samples --workspace workspace"
    asked += " --output_json result.json --explain repairs"
    done = _run(f"topsideas gcu mix_precision {asked}", place)
    assert done.returncode == 0, done.stderr
    for name in ("report.json", "before.json", "after.json"):
        shutil.copy(place / "result.json", place / name)
    return place


def _run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    program, *words = shlex.split(command, comments=True)
    assert program == "topsideas", command
    return subprocess.run(
        [sys.executable, "-m", "topsideas", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _commands(page: str) -> list[str]:
    blocks = (ROOT / "docs" / page).read_text(encoding="utf-8").split("```sh\n")[1:]
    return [
        line
        for block in blocks
        for line in block.split("```")[0].replace("\\\n", " ").splitlines()
        if line.strip()
    ]


@pytest.mark.parametrize("page", ELSEWHERE)
def test_commands_of_reference_pages_run(page: str, folder: Path) -> None:
    commands = _commands(page)
    assert commands
    for command in commands:
        if any(part in command for part in ELSEWHERE[page]):
            continue
        done = _run(command, folder)
        if f"--engine {REFUSED}" in command and done.returncode == 3:
            assert "fp16" in done.stderr, done.stderr
            continue
        assert (done.returncode, done.stderr) == (0, ""), command
