"""Worker: AutoCast of NVIDIA's ModelOpt with its default thresholds.

It takes any number of samples, so it gets all of them. It judges no plan: one fp32 run shows the
ranges, rules decide. So it has no evaluations and knows no tolerance.
"""

from __future__ import annotations

import time
from pathlib import Path

import onnx
from modelopt.onnx.autocast import convert_to_mixed_precision

from benchmarks.job import Job, versions


def main() -> None:
    """Convert once; the clock includes reading the file, which the function does itself."""
    job = Job.from_arguments()
    data = _calibration(job)
    started = time.perf_counter()
    found = convert_to_mixed_precision(
        onnx_path=job.model,
        low_precision_type="fp16",
        calibration_data=str(data),
        keep_io_types=True,
        providers=["cpu"],
    )
    seconds = time.perf_counter() - started
    onnx.save(found, job.mixed)
    job.answer(
        mixed=True,
        evaluations=0,
        seconds=round(seconds, 3),
        version=versions("nvidia-modelopt", "onnxruntime"),
    )


def _calibration(job: Job) -> Path:
    """A folder with the inputs alone: AutoCast reads every ``.npz`` in it."""
    folder = Path(job.output) / "inputs"
    folder.mkdir(exist_ok=True)
    for sample in job.sample_ids():
        link = folder / f"sample{sample}.npz"
        link.unlink(missing_ok=True)
        link.symlink_to((Path(job.samples) / f"sample{sample}_inputs.npz").resolve())
    return folder


if __name__ == "__main__":
    main()
