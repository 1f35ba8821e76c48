"""Worker: judges an answer on all samples by emulation, whichever tool gave it.

Two figures. ``plan``: the ops it keeps in fp32, as a plan on this project's engine: how good the
choice is. ``file``: the model it wrote, emulated as it stands: how good the result is, with
everything else that the converter did. Both are margins; above 1 fails.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime as ort

from benchmarks.emulate_file import emulate
from benchmarks.job import Job, margin
from benchmarks.library import NUMERICS, problem_of
from benchmarks.mapping import Kept, kept_ops
from topsideas.graph.conversion import convert, write
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan


def main() -> None:
    """Check what the job's output folder holds; each figure is left as soon as it is known."""
    job = Job.from_arguments()
    answer, model = job.found(), load_model(job.model)
    if "kept" in answer:
        ids = model.candidates & frozenset(answer["kept"])
        kept = Kept(ids, frozenset())
        write(convert(model, PrecisionPlan(ids), NUMERICS), job.mixed)
    else:
        kept = kept_ops(model, load_converted(job.mixed).graph_model)
    found: dict[str, Any] = {"size": len(kept.ids), "candidates": len(model.candidates)}
    found |= {"kept": sorted(kept.ids), "lost": len(kept.lost)}
    found["file"] = _judged(lambda: _file_margin(job))
    job.answer("check", **found)
    found["plan"] = (
        _judged(lambda: _plan_margin(job, model, kept))
        if not kept.lost
        else {"margin": None, "note": f"not mapped: {len(kept.lost)} ops were fused or removed"}
    )
    job.answer("check", **found)


def load_converted(path: Path) -> Model:
    """A converter's model with types inferred afresh: what it wrote down may be out of date."""
    proto = onnx.load(path)
    _forget_types(proto.graph)
    return load_model(proto)


def _forget_types(graph: onnx.GraphProto) -> None:
    del graph.value_info[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_types(attribute.g)


def _judged(figure: Callable[[], float]) -> dict[str, Any]:
    """A margin as JSON; a reason where there is none."""
    try:
        found = figure()
    except Exception as error:  # a model that cannot be judged is a result, whoever refuses it
        return {"margin": None, "note": f"{type(error).__name__}: {error}".splitlines()[0]}
    note = "" if math.isfinite(found) else "not finite"
    return {"margin": found if not note else None, "passes": found <= 1, "note": note}


def _plan_margin(job: Job, model: Model, kept: Kept) -> float:
    found = problem_of(model, job).verdict(PrecisionPlan(kept.ids)).margin
    return math.inf if found is None else found


def _file_margin(job: Job) -> float:
    options = ort.SessionOptions()
    options.intra_op_num_threads = job.threads
    # Extended fusions would compute several low ops in one, without rounding between them.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    emulated = job.mixed.with_name("emulated.onnx")
    ir.save(emulate(load_converted(job.mixed).graph_model), emulated)
    session = ort.InferenceSession(emulated, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    pairs = ((session.run(None, inputs), golden) for inputs, golden in job.pairs())
    return max(margin(dict(zip(names, o, strict=True)), g, job.tolerance) for o, g in pairs)


if __name__ == "__main__":
    main()
