"""What ``finalize`` returns: the methods of ``TopsInference.PyEngine`` on any engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topsideas.calibration.artefacts import export_deploy_model
from topsideas.engines.base import Executable, Runnable
from topsideas.engines.emulator.whole import WholeModel
from topsideas.errors import EngineError, UsageError
from topsideas.graph.loading import Model
from topsideas.plan import PrecisionPlan
from topsideas.precision import Numerics

Inputs = Sequence[np.ndarray] | Mapping[str, np.ndarray] | np.ndarray


class Future:
    """The result of an asynchronous call, which is ready at once."""

    def __init__(self, outputs: list[np.ndarray]) -> None:
        self._outputs = outputs

    def get(self) -> list[np.ndarray]:
        """The outputs in the model's order; may be called again."""
        return list(self._outputs)


@dataclass(frozen=True)
class Compiled:
    """What an engine was compiled from."""

    model: Model
    plan: PrecisionPlan
    numerics: Numerics
    executable: Executable


class PyEngine:
    """Runs one plan. Made by ``AutoMixPrecision.finalize`` or :meth:`load`.

    Arrays go in and come out in the order of ``input_names`` and ``output_names``. Buffer types
    and streams of the vendor's calls are accepted and have no meaning here.
    """

    def __init__(
        self,
        runnable: Runnable,
        inputs: Mapping[str, Sequence[Any] | None],
        compiled: Compiled | None = None,
        outputs: Sequence[str] = (),
    ) -> None:
        """Make one of anything that runs.

        Args:
            runnable: Runs.
            inputs: The inputs' shapes by name, in order.
            compiled: What it was made from; None if it was loaded.
            outputs: The outputs' names, in order; by default those of the compiled model.
        """
        self._runnable = runnable
        self._compiled = compiled
        self._shapes = dict(inputs)
        self.input_names = list(inputs)
        graph = compiled.model.graph.outputs if compiled is not None else ()
        self.output_names = list(outputs) or [str(v.name) for v in graph]
        self._batch = next((shape[0] for shape in inputs.values() if shape), None)

    @classmethod
    def of(cls, whole: WholeModel, compiled: Compiled | None = None) -> PyEngine:
        """One that runs a session of the emulator."""
        session = whole.session
        inputs = {i.name: i.shape for i in session.get_inputs()}
        return cls(whole, inputs, compiled, [o.name for o in session.get_outputs()])

    @classmethod
    def load(cls, path: str | Path) -> PyEngine:
        """Open what the emulator's :meth:`save_executable` wrote. Raises EngineError."""
        return cls.of(WholeModel.load(Path(path)))

    def load_tops_executable(self, path: str | Path) -> None:
        """Become the emulator's engine that is saved in ``path``. Raises EngineError."""
        self.__dict__.update(vars(PyEngine.load(path)))

    def run(
        self,
        inputs: Inputs,
        outputs: list[np.ndarray] | None = None,
        buffer_type: object = None,
        py_stream: object = None,
    ) -> list[np.ndarray]:
        """Run and wait.

        Args:
            inputs: Arrays in input order, a dict by name, or the bare array of a single input.
            outputs: A list that is filled with the outputs as well.
            buffer_type: Ignored: everything is in host memory.
            py_stream: Ignored.

        Returns:
            The outputs in the model's order.

        Raises:
            UsageError: The inputs are not the model's.
            EngineError: The run fails.
        """
        found = self._runnable.run(self._feeds(inputs))
        results = [found[name] for name in self.output_names]
        if outputs is not None:
            outputs[:] = results
        return results

    def runV2(self, input_list: Inputs, py_stream: object = None) -> Future:  # noqa: N802
        """Start a run; ``.get()`` of the result waits for the outputs."""
        return Future(self.run(input_list))

    def run_with_batch(
        self,
        sample_nums: int,
        input_list: Inputs,
        output_list: list[np.ndarray] | None = None,
        buffer_type: object = None,
        py_stream: object = None,
    ) -> Future:
        """Run ``sample_nums`` samples laid along axis 0, in steps of the model's batch size.

        Raises:
            UsageError: ``sample_nums`` does not fit the arrays or the model's batch size.
        """
        feeds = self._feeds(input_list)
        step = self._batch if isinstance(self._batch, int) else sample_nums
        wrong = [n for n, a in feeds.items() if a.ndim == 0 or len(a) != sample_nums]
        if wrong or sample_nums < 1 or sample_nums % step:
            raise UsageError(
                f"sample_nums={sample_nums}: expected the length of axis 0 of every input and a "
                f"multiple of the model's batch size {step}"
            )
        parts = [
            self.run({name: array[at : at + step] for name, array in feeds.items()})
            for at in range(0, sample_nums, step)
        ]
        results = [np.concatenate(column) for column in zip(*parts, strict=True)]
        if output_list is not None:
            output_list[:] = results
        return Future(results)

    def save_executable(self, path: str | Path) -> None:
        """Write the executable; the emulator's is float32 ONNX with explicit roundings."""
        self._own("save").executable.save(Path(path))

    def save_deploy_model(self, path: str | Path) -> list[str]:
        """Write the strongly typed mixed-precision ONNX model for real targets.

        Returns:
            Lines to read: how many casts, and weights that overflow.

        Raises:
            EngineError: A runtime refuses the model.
            ModelError: The result is not valid ONNX.
        """
        own = self._own("export")
        return export_deploy_model(own.model, own.plan, own.numerics, Path(path))

    def _own(self, what: str) -> Compiled:
        if self._compiled is None:
            raise EngineError(f"an engine that was loaded has nothing to {what}: copy its file")
        return self._compiled

    def _feeds(self, inputs: Any) -> dict[str, np.ndarray]:
        if isinstance(inputs, list) and len(inputs) == 1 and isinstance(inputs[0], Mapping):
            inputs = inputs[0]
        if isinstance(inputs, Mapping):
            named = dict(inputs)
        else:
            bare = isinstance(inputs, np.ndarray) and len(self.input_names) == 1
            values = [inputs] if bare and not self._is_stack(inputs) else list(inputs)
            named = dict(zip(self.input_names, values, strict=False))
            if len(values) != len(self.input_names):
                named = {}
        if sorted(named) != sorted(self.input_names):
            raise UsageError(f"expected arrays for the inputs {self.input_names} in this order")
        return {name: np.ascontiguousarray(value) for name, value in named.items()}

    def _is_stack(self, array: np.ndarray) -> bool:
        """Vendor samples pass ``np.array([inputs])``: one axis more than the input has."""
        declared = self._shapes[self.input_names[0]]
        return declared is not None and array.ndim == len(declared) + 1 and len(array) == 1
