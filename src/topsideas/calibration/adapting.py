"""Which habit of a target is searched with: the one that explains an engine's outputs best."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from topsideas.calibration.habits import Habit, best_habit, closeness, habits, unlikeness
from topsideas.calibration.references import References
from topsideas.engines.base import Arrays, Engine, Executable, Kernels, Once, Runnable
from topsideas.errors import EngineError
from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan
from topsideas.search.oracle import Items

# Less than this is the noise of fp32 kernels: nothing is left for another habit to explain.
_SAME = 0.02
# Samples whose outputs tell an engine's habits: the hardest, and another.
_COMPARED = 2
# Sums term by term take up to a hundred times as long: they are tried on models that the emulator
# otherwise runs in so many seconds.
_QUICK = 0.3


class Adapting:
    """What is known about an engine's habits.

    Args:
        model: The model.
        engine: The engine.
        references: The samples.
        proposers: Opens the emulator with a habit.
        same_numbers: Whether op ids are those of the model's nodes on both; without that no habit
            but the definition can be tried.
    """

    def __init__(
        self,
        model: Model,
        engine: Engine,
        references: References,
        proposers: Callable[[Habit], Engine],
        *,
        same_numbers: bool,
    ) -> None:
        self._model, self._engine, self._references = model, engine, references
        self._proposers, self._same_numbers = proposers, same_numbers
        self._known = {habit.name: habit for habit in habits()}
        self.plain = self.current = next(iter(self._known))
        self._opened: dict[str, Engine] = {}
        self._unlike: dict[str, list[float]] = {}
        self._seconds = 0.0

    @property
    def habit(self) -> Habit:
        """The one that is searched with."""
        return self._known[self.current]

    @property
    def unlike(self) -> float:
        """How unlike the engine it is; see :func:`unlikeness`."""
        return self._closeness(self.current)

    def emulator(self) -> Engine:
        """The emulator with that habit."""
        return self._emulator(self.habit)

    def kernels(self) -> Engine:
        """The emulator whose single ops are those of the habit: a trace shows all, rounded."""
        habit = self.habit
        if habit.fuses is None:
            return self.emulator()
        return self._emulator(replace(habit, name=f"{habit.name}, op by op", fuses=None, key=""))

    def compare(self, kept: Items, hardest: int | None) -> None:
        """Compare what the engine gives for a plan with what each habit would give.

        Args:
            kept: The plan.
            hardest: A sample that is looked at first.

        Raises:
            EngineError: The engine cannot run it.
        """
        executable = self._engine.compile(PrecisionPlan(kept))
        self._read_kernels(executable)
        ids = self._references.ids
        samples = sorted(ids, key=lambda sample: sample != hardest)[:_COMPARED]
        real = {sample: executable.run(self._references.inputs(sample)) for sample in samples}
        for name in list(self._known) if self._same_numbers else [self.plain]:
            if self._is_worth_trying(name):
                self._score(name, kept, real)

    def choose(self) -> bool:
        """Take the best one; says whether it is another than before."""
        means = {name: self._closeness(name) for name in self._known if self._unlike.get(name)}
        best = best_habit(means, self.plain)
        changed, self.current = best != self.current, best
        return changed

    def drop(self) -> None:
        """Never take the current one again."""
        del self._known[self.current]

    def _read_kernels(self, executable: Executable) -> None:
        """Once: what the engine runs in one kernel is a habit to try."""
        if self._unlike or not self._same_numbers or not isinstance(executable, Kernels):
            return
        groups = executable.kernels(self._references.inputs(self._references.ids[0]))
        self._known = {habit.name: habit for habit in habits(groups or ())}

    def _is_worth_trying(self, name: str) -> bool:
        if name in self._unlike or name == self.plain:
            return True
        explained = self._unlike.get(self.plain, [1.0])[-1] < _SAME
        return not explained and not (self._known[name].slow and self._seconds > _QUICK)

    def _score(self, name: str, kept: Items, real: Mapping[int, Arrays]) -> None:
        found, seconds = [], []
        try:
            emulated = self._emulator(self._known[name]).compile(PrecisionPlan(kept))
            runner = emulated.once() if isinstance(emulated, Once) else emulated
            for sample, outputs in real.items():
                start = time.process_time()
                found.append(self._unlike_on(sample, runner, outputs))
                seconds.append(time.process_time() - start)
        except EngineError:  # a habit that this model's opset cannot express
            return
        self._unlike.setdefault(name, []).append(sum(found) / len(found))
        if name == self.plain:
            self._seconds = min(seconds)

    def _unlike_on(self, sample: int, runner: Runnable, real: Arrays) -> float:
        emulated = runner.run(self._references.inputs(sample))
        return unlikeness(real, emulated, self._references.golden(sample))

    def _emulator(self, habit: Habit) -> Engine:
        if habit.name not in self._opened:
            self._opened[habit.name] = self._proposers(habit)
        return self._opened[habit.name]

    def _closeness(self, name: str) -> float:
        return closeness(self._unlike.get(name, []))
