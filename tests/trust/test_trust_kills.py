"""A search that is killed anywhere resumes, repeats nothing, and ends as if it had not been."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

KILLS = 200 if os.environ.get("TOPSIDEAS_FULL") else 4


def test_a_search_that_is_killed_anywhere_resumes_and_ends_the_same() -> None:
    words = ["-m", "tests.trust.killing", "--kills", str(KILLS), "--seed", "7"]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["kills"] >= KILLS
    assert figures["rows_kept"] > 0
    assert (figures["repeats"], figures["changed"], figures["left_over"]) == ([], [], [])
