"""Opens engines: the one that is asked for, and the one that proposes plans to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from topsideas.calibration.habits import Habit
from topsideas.calibration.references import fp32_runner
from topsideas.calibration.renumbered import Renumbered, correspondence
from topsideas.engines.base import Engine, OwnOps, Runnable
from topsideas.engines.options import EngineOptions
from topsideas.engines.registry import open_engine
from topsideas.errors import UsageError
from topsideas.graph.loading import Model
from topsideas.precision import Numerics

_EMULATOR = "emulator"

# Low by themselves or not, these compute nothing.
_MOVES = {"Cast", "Constant", "Identity"}
_SHOWN = 5


@dataclass(frozen=True)
class Engines:
    """What a run is made with.

    Attributes:
        engine: Judges plans.
        proposers: Opens the proposer with a habit.
        proposer: Is searched for plans that ``engine`` verifies; None to search ``engine``.
        golden: Opens what computes outputs in fp32 on the CPU; None if ``engine`` does.
        model: The model, with the ops that plans are made of.
        notes: Lines the user should read.
    """

    engine: Engine
    proposer: Engine | None
    golden: Callable[[], Runnable] | None
    model: Model
    notes: tuple[str, ...]
    proposers: Callable[[Habit], Engine] | None = None


def open_engines(
    name: str, model: Model, options: EngineOptions, *, propose: str = "auto"
) -> Engines:
    """Open what is asked for.

    Args:
        name: The engine's name in the registry.
        model: The model.
        options: What is asked of the engine.
        propose: ``emulator``, ``none``, or ``auto``: the emulator where builds are dear.

    Raises:
        EngineError: An engine cannot start, or refuses the model or an option.
        UsageError: Plans cannot be proposed to this engine.
    """
    engine = open_engine(name, model, options)
    if name == _EMULATOR:
        if propose == _EMULATOR:
            raise UsageError(
                "--propose emulator: the engine is the emulator itself; expected another --engine"
            )
        return Engines(engine, None, None, model, _own_low_ops(model))
    # The emulator has options of its own; those of a device's compiler are not for it.
    plain = replace(
        options,
        compile_options={},
        resource_mode=None,
        isolation=None,
        numerics=Numerics(options.numerics.precision, options.numerics.overflow),
    )
    emulator = open_engine(_EMULATOR, model, plain)

    def golden() -> Runnable:
        return fp32_runner(emulator, model.candidates)

    def opener(habit: Habit) -> Engine:
        changed = replace(plain, compile_options=dict(habit.options))
        return open_engine(_EMULATOR, habit.applied(model), changed)

    if not isinstance(engine, OwnOps):
        proposer = emulator if _proposes(propose, engine) else None
        return Engines(engine, proposer, golden, model, (), opener)
    own = replace(model, ops=engine.ops())
    notes = f"op ids are {engine.identity().options.get('numbering', name)} ids of {name}"
    renumbered = _renumbered(propose, engine, emulator, model)
    return Engines(engine, renumbered, golden, own, (notes,))


def _own_low_ops(model: Model) -> tuple[str, ...]:
    """A line on ops that are low in the user's own model, which are not emulated."""
    ids = [
        op.id
        for op in model.ops
        if not {"FLOAT16", "BFLOAT16"}.isdisjoint(op.dtypes) and op.type not in _MOVES
    ]
    if not ids:
        return ()
    shown = ", ".join(map(str, ids[:_SHOWN])) + (", ..." if len(ids) > _SHOWN else "")
    line = (
        f"ops {shown} are fp16 or bf16 in your model already and no candidates: ONNX Runtime's "
        "CPU provider runs them in fp32 between roundings; what overflows inside them is not seen"
    )
    return (line,)


def _proposes(propose: str, engine: Engine) -> bool:
    return propose == _EMULATOR or (propose == "auto" and engine.capabilities().dear)


def _renumbered(propose: str, engine: OwnOps, emulator: Engine, model: Model) -> Engine | None:
    """The emulator under an engine's own ids, if its ops bear the names of the model's nodes."""
    if propose == "none":
        return None
    same = correspondence(engine.ops(), model.ops)
    if same is not None:
        return Renumbered(emulator, model.candidates, same)
    if propose == _EMULATOR:
        raise UsageError(
            "--propose emulator: the engine numbers the ops of its compiled graph, and too few of "
            "them bear the names of the model's nodes to be recognised; expected --propose none"
        )
    return None
