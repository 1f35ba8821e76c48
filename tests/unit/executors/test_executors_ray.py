"""What can be said of workers on Ray without starting any."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from topsideas.errors import UsageError
from topsideas.executors.ray_pool import RayExecutor
from topsideas.executors.ray_start import first_line


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"address": "10.0.0.1:6379"}, "'10.0.0.1:6379'"),
        ({"address": ""}, "''"),
        ({"workers": 0}, "workers 0"),
        ({"devices": (0, 1, 0)}, r"\[0, 1, 0\]"),
    ],
)
def test_what_makes_no_sense_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        RayExecutor(**options)


@pytest.mark.parametrize("address", ["local", "auto", "ray://head:10001"])
def test_only_a_local_ray_surely_sees_this_machines_files(address: str) -> None:
    assert RayExecutor(address).shares_files == (address == "local")


def test_of_an_error_the_telling_line_is_shown() -> None:
    text = "\x1b[36mActor died\x1b[39m\ntraceback:\n  File x\nModuleNotFoundError: No module 'x'\n"
    assert first_line(RuntimeError(text)) == "RuntimeError: ModuleNotFoundError: No module 'x'"
    assert first_line(RuntimeError("it died\n\tpid: 7")) == "RuntimeError: it died"
    versions = "Version mismatch: The cluster was started with:\n    Ray: 2.52.1\nThis: 2.60.0"
    told = "RuntimeError: Version mismatch: The cluster was started with: Ray: 2.52.1 This: 2.60.0"
    assert first_line(RuntimeError(versions)) == told
    assert first_line(RuntimeError()) == "RuntimeError: "


def test_ray_is_imported_by_nobody_who_does_not_ask_for_it() -> None:
    """Not by a whole search, nor by the modules that can speak to it."""
    code = (
        "import sys\n"
        "import topsideas.executors.ray_pool, topsideas.cli.mix_precision\n"
        "import topsideas.gcu.mix_precision.auto_mix_precision\n"
        "from topsideas.testing.null_engine import Needed, NullEngine, null_search\n"
        "assert null_search(NullEngine(9, Needed(frozenset({3})))).plan.kept == {3}\n"
        "print('ray' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
