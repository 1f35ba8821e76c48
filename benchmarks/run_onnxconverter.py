"""Worker: ``auto_convert_mixed_precision`` of onnxconverter-common, as its documentation uses it.

It takes one sample and validates on onnxruntime's CPU provider; both are fixed in its code.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
from onnxconverter_common import auto_mixed_precision

from benchmarks.job import Job, versions


class _Counted:
    """The converter, counted: each attempt builds one model and runs it once."""

    def __init__(self, job: Job, convert: Callable[..., onnx.ModelProto]) -> None:
        self.calls = 0
        self._job = job
        self._convert = convert

    def __call__(self, *args: Any, **options: Any) -> onnx.ModelProto:
        self.calls += 1
        self._job.answer(evaluations=self.calls)  # so that a search that is cut off has a count
        return self._convert(*args, **options)


def main() -> None:
    """Search once; the clock runs from the loaded file to the answer.

    Where the search crashes with the types of inputs and outputs kept, it gets another chance
    without, and the clock starts anew: some models convert only so.
    """
    job = Job.from_arguments()
    try:
        found = _search(job, keep_io_types=True)
    except Exception as error:  # whatever it raises, the second chance is due
        print(f"with keep_io_types: {error}", flush=True)
        found = _search(job, keep_io_types=False) | {"remark": "inputs and outputs in fp16"}
    job.answer(**found, mixed=True, version=versions("onnxconverter-common", "onnxruntime"))


def _search(job: Job, *, keep_io_types: bool) -> dict[str, Any]:
    model, sample = onnx.load(job.model), job.inputs(job.sample_ids()[0])
    with _counted(job) as counted, _quiet():
        started = time.perf_counter()
        found = auto_mixed_precision.auto_convert_mixed_precision(
            model, sample, rtol=job.tolerance, atol=job.tolerance, keep_io_types=keep_io_types
        )
        seconds = time.perf_counter() - started
    onnx.save(found, job.mixed)
    return {"evaluations": counted.calls, "seconds": round(seconds, 3)}


@contextlib.contextmanager
def _counted(job: Job) -> Iterator[_Counted]:
    converter = auto_mixed_precision.float16
    original = converter.convert_float_to_float16
    converter.convert_float_to_float16 = counted = _Counted(job, original)
    try:
        yield counted
    finally:
        converter.convert_float_to_float16 = original


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """It prints the whole list of nodes on every attempt, which fills disks."""
    with Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
        yield


if __name__ == "__main__":
    main()
