"""Worker: a reference search that lives outside the project, as a script beside the models.

It is called as ``SCRIPT MODEL_DIR TOLERANCE`` and prints one line of JSON with ``plan`` (indices
in ``graph.node``), ``calls`` and ``s``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.job import Job, versions

# The script stops by itself a little before it is stopped, with the best plan it has.
_SHARE_OF_LIMIT = 0.8


def main() -> None:
    """Run the script and translate what it prints."""
    job = Job.from_arguments()
    command = [sys.executable, os.environ["REFERENCE_SEARCH"], str(Path(job.model).parent)]
    env = os.environ | {"LIMIT_S": str(_SHARE_OF_LIMIT * job.limit)}
    run = subprocess.run(
        [*command, str(job.tolerance)], env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(run.stdout.splitlines()[-1])
    if "plan" not in found:
        raise SystemExit(f"no answer: {found.get('error', 'it names no plan')}")
    job.answer(
        kept=found["plan"],
        evaluations=found["calls"],
        seconds=found["s"],
        remark="" if found.get("one_minimal", True) else "cut off: not shown to be 1-minimal",
        version=f"reference search, {versions('onnxruntime')}",
    )


if __name__ == "__main__":
    main()
