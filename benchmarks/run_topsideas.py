"""Worker: this tool's search, through the library."""

from __future__ import annotations

import time

import onnx

import topsideas
from benchmarks.job import Job, versions
from benchmarks.library import NUMERICS, problem_of
from topsideas.calibration.progress import Silent
from topsideas.graph.loading import load_model
from topsideas.search.oracle import Budget

# A search that is told when to stop returns its best valid plan; give it time to do so.
_SHARE_OF_LIMIT = 0.9


def main() -> None:
    """Search once; the clock runs from the loaded file to the answer."""
    job = Job.from_arguments()
    proto = onnx.load(job.model)
    started = time.perf_counter()
    problem = problem_of(load_model(proto), job, Budget(seconds=_SHARE_OF_LIMIT * job.limit))
    result = problem.search(Silent())
    seconds = time.perf_counter() - started
    job.answer(
        kept=result.plan.ids,
        evaluations=result.evaluations,
        seconds=round(seconds, 3),
        work=getattr(problem.engine, "work", None),
        remark=result.stopped or ("" if result.one_minimal else "not shown to be 1-minimal"),
        version=f"topsideas {topsideas.__version__}, {versions('onnxruntime')}",
        numerics=NUMERICS.to_json(),
    )


if __name__ == "__main__":
    main()
