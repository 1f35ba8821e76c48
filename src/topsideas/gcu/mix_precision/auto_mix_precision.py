"""``AutoMixPrecision``: the Python interface of the specification, section 6."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from topsideas.calibration.journal import MemoryStore, Store
from topsideas.calibration.opening import Engines, open_engines
from topsideas.calibration.problem import Problem, fingerprint, make_problem, read_samples
from topsideas.calibration.progress import Progress, Silent
from topsideas.calibration.references import SampleSource
from topsideas.calibration.result import SearchResult
from topsideas.calibration.selection import select_ops
from topsideas.calibration.settings import VALIDATOR_SECONDS, Settings, Validator, sample_bytes
from topsideas.calibration.team import Team, team_of
from topsideas.engines.base import Engine, Executable, OwnOps, finalized
from topsideas.engines.emulator.engine import EmulatorExecutable, emulator_numerics
from topsideas.engines.emulator.runtime import default_threads
from topsideas.engines.options import EngineOptions, Isolation, memory_size
from topsideas.engines.registry import ENGINES, choose, open_engine
from topsideas.errors import UsageError
from topsideas.executors.base import Executor
from topsideas.gcu.mix_precision.py_engine import Compiled, PyEngine
from topsideas.graph.loading import Model, load_model
from topsideas.plan import PrecisionPlan
from topsideas.precision import PRECISIONS, Numerics, Overflow
from topsideas.samples.memory import Entry, samples_from_memory
from topsideas.samples.shapes import ShapeBounds, shape_bounds
from topsideas.samples.signature import signature_of
from topsideas.search.objective import Objective
from topsideas.search.oracle import Budget
from topsideas.stats.criteria import Cosine, Tolerance
from topsideas.workspace.workspace import Workspace

Shapes = Sequence[Sequence[int]]

_PROPOSE = {name: name for name in ("auto", "emulator", "none")}


class AutoMixPrecision:
    """Finds the ops of a model that must compute in fp32, and builds the engine to deploy.

    Args:
        model: The fp32 model, or the path of one (needed for weights above 2 GB).
        input_names: The order in which arrays and shapes are given.
        input_shapes: A shape per input; -1 for sizes that vary.
        min_shapes: The smallest shapes, for models with dynamic shapes; None if fixed.
        max_shapes: The largest shapes.
        engine: ``auto`` or an engine's name.
        precision: ``fp16`` or ``bf16``.
        overflow: ``saturate`` as a GCU does, or ``inf`` (IEEE); what the engine does if None.
        propose: ``emulator`` searches on the emulator and verifies on the engine in few builds,
            ``none`` searches on the engine, ``auto`` does the former where builds are dear.
        max_builds: How many builds that may take besides all low and all fp32.
        isolation: Run the engine in a child process with these limits.
        compile_options: The engine's own options.
        threads: Samples judged side by side; one per processor if None.
        memory_limit: Hold at most so much of weights and intermediate tensors: bytes, or a text
            like ``8G``; a third of the memory if None. And an eighth of it, at most 1 GB, of
            computed golden outputs. Results do not depend on it.
        workspace: A folder that remembers verdicts between runs; none if None.
        executor: Starts workers that judge plans, like
            :class:`topsideas.executors.ray_pool.RayExecutor`; this process if None.

    Attributes:
        result: What the last :meth:`run` found, with all its evidence; None before.

    Raises:
        ModelError: The model is not usable.
        UsageError: Names or shapes do not fit the model.
    """

    def __init__(
        self,
        model: onnx.ModelProto | str | Path,
        input_names: Sequence[str],
        input_shapes: Shapes,
        min_shapes: Shapes | None = None,
        max_shapes: Shapes | None = None,
        *,
        engine: str = "auto",
        precision: str = "fp16",
        overflow: str | None = None,
        propose: str = "auto",
        max_builds: int = 4,
        isolation: Isolation | None = None,
        compile_options: Mapping[str, Any] | None = None,
        threads: int | None = None,
        memory_limit: int | str | None = None,
        workspace: str | Path | None = None,
        executor: Executor | None = None,
    ) -> None:
        low = _choice(PRECISIONS, precision, "precision")
        self._model = load_model(model, low)
        self._signature = signature_of(self._model)
        self._names = _checked_names(input_names, self._signature.input_names)
        self._bounds = self._shape_bounds(input_shapes, min_shapes, max_shapes)
        self._engine, _ = choose(engine)
        self._options = EngineOptions(
            numerics=Numerics(low, _overflow(overflow, self._engine)),
            isolation=isolation,
            min_shapes=dict(self._bounds.min) if self._bounds is not None else {},
            max_shapes=dict(self._bounds.max) if self._bounds is not None else {},
            compile_options=dict(compile_options or {}),
            threads=threads or default_threads(),
            memory_limit=_memory(memory_limit),
        )
        self._workspace, self._executor = workspace, executor
        self._propose, self._max_builds = _choice(_PROPOSE, propose, "propose"), max_builds
        self._scope = ExitStack()
        self.result: SearchResult | None = None

    @property
    def model(self) -> Model:
        """The loaded model, whose ``ops`` tell what each id is."""
        return self._model

    def run(
        self,
        sample_inputs: Sequence[Entry],
        sample_outputs: Sequence[Entry | None] | None,
        block_op_ids: Sequence[int] | None = None,
        rtol: float = 1e-2,
        atol: float = 1e-2,
        val_func: Callable[[Any, Any], bool] | None = None,
        card_id: int = 0,
        cluster_id: int | Sequence[int] = -1,
        resource_mode: str | None = None,
        *,
        ntol: float = 0.0,
        cos_sim: float | None = None,
        val_scope: str = "sample",
        val_timeout: float | None = VALIDATOR_SECONDS,
        margin: float = 1.0,
        objective: str = "ops",
        pareto: bool = False,
        max_evaluations: int | None = None,
        time_limit: float | None = None,
        progress: Progress | None = None,
    ) -> list[int]:
        """Find the ops to keep in fp32.

        Args:
            sample_inputs: One entry per sample: a list of arrays in the order of
                ``input_names``, a dict by name, or the bare array of a single input.
            sample_outputs: The golden outputs in the same forms, in the model's output order;
                None computes them in fp32.
            block_op_ids: Ids that are fp32 in any case; they are part of the answer.
            rtol: Relative tolerance, ``|out - ref| <= atol + rtol * |ref|``.
            atol: Absolute tolerance.
            val_func: ``(reference, outputs) -> bool`` instead of the tolerance; both are lists
                of arrays in the model's output order.
            card_id: The device.
            cluster_id: A cluster, a list of them, or -1 for all.
            resource_mode: A compile option of the engine.
            ntol: Share of elements that may miss the tolerance.
            cos_sim: Judge by cosine similarity of at least this instead.
            val_scope: ``sample`` calls ``val_func`` per sample, ``dataset`` once with the lists
                of all samples.
            val_timeout: Seconds that one call of ``val_func`` may take; None for ever.
            margin: The worst share of the tolerance that the answer may use.
            objective: ``ops`` for few ops in fp32, or ``cost`` for little time that they and the
                casts around them take; see ``result.cost``.
            pareto: Also judge a few smaller and larger plans: see ``result.curve``.
            max_evaluations: Judge at most so many plans.
            time_limit: Search at most so many seconds.
            progress: Is told what is being done.

        Returns:
            The ids, ascending; ``[]`` if the low precision passes as it is. With a budget or
            after Ctrl-C the best valid plan so far: see ``result.stopped``.

        Raises:
            SampleError: A sample does not fit the model.
            BaselineError: Even in fp32 the golden outputs are missed.
            ValidatorError: ``val_func`` raised, did not return in time, or returned something that
                is not a bool.
            EngineError: The engine fails.
        """
        samples = samples_from_memory(
            sample_inputs, sample_outputs, self._signature, input_names=self._names
        )
        options = self._on(card_id, cluster_id, resource_mode)
        engines = open_engines(self._engine, self._model, options, propose=self._propose)
        must_keep = select_ops(engines.model, block_op_ids or ())
        settings = Settings(
            criterion=Tolerance(rtol, atol, ntol) if cos_sim is None else Cosine(cos_sim),
            validator=Validator(val_func, val_scope, seconds=val_timeout)
            if val_func is not None
            else None,
            bound=margin,
            must_keep=must_keep,
            budget=Budget(max_evaluations, time_limit),
            threads=self._options.threads or 1,
            objective=_choice({o.value: o for o in Objective}, objective, "objective"),
            pareto=pareto,
            max_builds=self._max_builds,
            sample_bytes=sample_bytes(self._options.memory_limit),
        )
        with ExitStack() as stack:
            store = self._store(stack, options)
            team = self._team(options, engines.engine)
            problem = self._problem(engines, samples, settings, store, team)
            self.result = problem.search(progress or Silent())
        return self.result.plan.ids

    def _problem(
        self,
        engines: Engines,
        samples: Sequence[SampleSource],
        settings: Settings,
        store: Store,
        team: Team | None,
    ) -> Problem:
        return make_problem(
            engines.model,
            engines.engine,
            self._options.numerics.precision,
            samples,
            (),
            settings,
            store,
            read_samples(samples, self._bounds),
            golden=engines.golden,
            proposer=engines.proposer,
            proposers=engines.proposers,
            team=team,
        )

    def finalize(
        self,
        fp32_ids: Sequence[int],
        card_id: int = 0,
        cluster_id: int | Sequence[int] = -1,
        resource_mode: str | None = None,
    ) -> Any:
        """Build the engine for deployment with ``fp32_ids`` in fp32.

        Returns:
            A :class:`PyEngine`; with the engine ``topsinference`` the vendor's own.

        Raises:
            PlanError: An id is not in the model.
            EngineError: The engine fails.
        """
        options = self._on(card_id, cluster_id, resource_mode)
        engine = open_engine(self._engine, self._model, options)
        model = (
            replace(self._model, ops=engine.ops()) if isinstance(engine, OwnOps) else self._model
        )
        plan = PrecisionPlan(select_ops(model, fp32_ids))
        executable = finalized(engine, plan)
        if self._engine == "topsinference":
            return self._vendors(executable, options)
        if isinstance(executable, EmulatorExecutable):
            numerics = emulator_numerics(options)
            compiled = Compiled(self._model, plan, numerics, executable)
            return PyEngine.of(executable.freeze(), compiled)
        compiled = Compiled(self._model, plan, options.numerics, executable)
        shapes = {spec.name: spec.shape for spec in self._signature.inputs}
        return PyEngine(executable, shapes, compiled)

    def _vendors(self, executable: Executable, options: EngineOptions) -> Any:
        """The vendor's own ``PyEngine``, loaded into this process from what a child built.

        The device stays claimed as long as this object lives.
        """
        from topsideas.engines.topsinference.engine import load_in_process

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "finalized.executable"
            executable.save(path)
            return load_in_process(path, options, self._scope)

    def _on(
        self, card_id: int, cluster_id: int | Sequence[int], resource_mode: str | None
    ) -> EngineOptions:
        clusters = (cluster_id,) if isinstance(cluster_id, int) else tuple(cluster_id)
        return replace(
            self._options, device=card_id, cluster=clusters, resource_mode=resource_mode
        )

    def _team(self, options: EngineOptions, engine: Engine) -> Team | None:
        if self._executor is None:
            return None
        return team_of(self._executor, self._engine, self._model, options, engine)

    def _store(self, stack: ExitStack, options: EngineOptions) -> Store:
        if self._workspace is None:
            return MemoryStore()
        belongs_to = fingerprint(self._model, self._engine, options, self._bounds)
        return stack.enter_context(Workspace.open(self._workspace, belongs_to))

    def _shape_bounds(
        self, shapes: Shapes, low: Shapes | None, high: Shapes | None
    ) -> ShapeBounds | None:
        """Check all shapes against the model; a range is what samples must lie in."""
        fixed = {n: tuple(s) for n, s in _by_name(self._names, shapes, "input_shapes").items()}
        nominal = {n: s for n, s in fixed.items() if all(d >= 0 for d in s)}
        shape_bounds(nominal, nominal, self._signature)
        return shape_bounds(
            _by_name(self._names, low, "min_shapes"),
            _by_name(self._names, high, "max_shapes"),
            self._signature,
        )


def _checked_names(names: Sequence[str], expected: list[str]) -> list[str]:
    if isinstance(names, str) or sorted(names) != sorted(expected):
        raise UsageError(
            f"input_names is {names!r}; expected the model's inputs in any order: {expected}"
        )
    return list(names)


def _by_name(names: list[str], shapes: Shapes | None, what: str) -> dict[str, Sequence[int]]:
    if shapes is None:
        return {}
    if len(shapes) != len(names):
        raise UsageError(f"{what} has {len(shapes)} shapes; expected one per input: {names}")
    return dict(zip(names, shapes, strict=True))


def _choice(known: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in known:
        raise UsageError(f"{what}={name!r}; expected one of {sorted(known)}")
    return known[name]


def _memory(size: int | str | None) -> int | None:
    try:
        return None if size is None else memory_size(size)
    except ValueError as error:
        raise UsageError(f"memory_limit={error}") from error


def _overflow(name: str | None, engine: str) -> Overflow:
    name = name or ENGINES[engine].overflow or "saturate"
    chosen: Overflow = _choice({o.value: o for o in Overflow}, name, "overflow")
    return chosen
