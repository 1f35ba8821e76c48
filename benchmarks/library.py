"""The one place where the benchmarks call this tool's library."""

from __future__ import annotations

from benchmarks.job import Job
from topsideas.calibration.journal import MemoryStore
from topsideas.calibration.problem import Problem, make_problem, read_samples
from topsideas.calibration.settings import Settings
from topsideas.engines.options import EngineOptions
from topsideas.engines.registry import open_engine
from topsideas.graph.loading import Model
from topsideas.precision import Numerics
from topsideas.samples import samples_from_memory, signature_of
from topsideas.search.oracle import Budget
from topsideas.stats.criteria import Tolerance

# fp16 with infinite overflow: what IEEE says, and what OpenVINO's fp16 kernels do.
NUMERICS = Numerics()


def problem_of(model: Model, job: Job, budget: Budget | None = None) -> Problem:
    """The job as the library states it, on the emulator and with all samples."""
    inputs, golden = zip(*job.pairs(), strict=True)
    samples = samples_from_memory(inputs, golden, signature_of(model))
    options = EngineOptions(numerics=NUMERICS, threads=job.threads)
    settings = Settings(
        criterion=Tolerance(job.tolerance, job.tolerance),
        budget=budget or Budget(),
        threads=job.threads,
    )
    return make_problem(
        model,
        open_engine("emulator", model, options),
        NUMERICS.precision,
        samples,
        (),
        settings,
        MemoryStore(),
        read_samples(samples, None),
    )
