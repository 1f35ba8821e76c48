"""Worker: how long one plain fp32 pass over all samples takes, the unit of other times."""

from __future__ import annotations

import statistics
import time

import onnxruntime as ort

from benchmarks.job import Job

_REPEATS = 3


def main() -> None:
    """Warm up once, then take the median of a few passes."""
    job = Job.from_arguments()
    options = ort.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = ort.InferenceSession(job.model, options, providers=["CPUExecutionProvider"])
    samples = [inputs for inputs, _ in job.pairs()]

    def seconds() -> float:
        started = time.perf_counter()
        for inputs in samples:
            session.run(None, inputs)
        return time.perf_counter() - started

    seconds()
    passes = [seconds() for _ in range(_REPEATS)]
    job.answer(samples=len(samples), fp32_pass_seconds=round(statistics.median(passes), 6))


if __name__ == "__main__":
    main()
