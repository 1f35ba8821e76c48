"""Worker: judges a mixed-precision model on OpenVINO's real fp16, where this processor has it.

``EXECUTION_MODE_HINT=ACCURACY`` makes OpenVINO keep each op of a strongly typed model in its own
precision. A processor whose capabilities lack FP16 computes fp16 models in fp32; that would pass
for evidence and is none, so nothing runs there.
"""

from __future__ import annotations

import math

import openvino as ov

from benchmarks.job import Arrays, Job, margin, versions

_DEVICE = "CPU"


def main() -> None:
    """Check the job's mixed model; leave a margin or why there is none."""
    job, core = Job.from_arguments(), ov.Core()
    if "FP16" not in core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES"):
        job.answer("fp16", margin=None, note="no fp16 here")
        return
    found = worst_margin(core, job)
    note = "" if math.isfinite(found) else "not finite"
    told = found if not note else None
    job.answer("fp16", margin=told, passes=found <= 1, note=note, version=versions("openvino"))


def worst_margin(core: ov.Core, job: Job) -> float:
    """The worst margin over all samples."""
    options = {
        "EXECUTION_MODE_HINT": "ACCURACY",
        "INFERENCE_NUM_THREADS": job.threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = core.compile_model(core.read_model(job.mixed), _DEVICE, options)
    return max(
        margin(_run(compiled, inputs), golden, job.tolerance) for inputs, golden in job.pairs()
    )


def _run(compiled: ov.CompiledModel, inputs: Arrays) -> Arrays:
    kinds = {port.any_name: port.element_type.to_dtype() for port in compiled.inputs}
    found = compiled({name: inputs[name].astype(kind) for name, kind in kinds.items()})
    return {name: found[port] for port in compiled.outputs for name in port.names}


if __name__ == "__main__":
    main()
