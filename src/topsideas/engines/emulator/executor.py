"""Runs plans, executing only what differs from what has been run before.

Every result is remembered under (node, precision, contents of its inputs). A plan that differs
from a known one in op *k* re-executes *k* and what lies downstream of it, and stops where a
result is bit-equal to a known one. Tensors live in a bounded store; one that was dropped is
recomputed from its recipe when it is needed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from threading import Lock

import numpy as np
import onnx_ir as ir

from topsideas.engines.emulator.passes import Env, Passes
from topsideas.engines.emulator.sessions import Sessions
from topsideas.engines.emulator.steps import Block, Step, fed
from topsideas.engines.emulator.store import (
    MISSING,
    Key,
    Missing,
    Tensor,
    TensorStore,
    content_key,
)
from topsideas.errors import EngineError
from topsideas.graph.constants import constant

_Recipe = tuple[Step, frozenset[int], tuple[Key, ...]]


class Executor:
    """Runs one model under any plan; several threads may run samples side by side.

    Args:
        block: The main graph.
        sessions: Opens the one-node sessions.
        memory_limit: Bytes of tensors to remember.
    """

    def __init__(self, block: Block, sessions: Sessions, memory_limit: int) -> None:
        self._block = block
        self._sessions = sessions
        self._store = TensorStore(memory_limit)
        self._memo: dict[tuple[int, frozenset[int], tuple[Key, ...]], tuple[Key, ...]] = {}
        self._recipes: dict[Key, _Recipe] = {}
        self._pinned: dict[Key, Tensor] = {}
        self._constants: dict[ir.Value, Key] = {}
        # Keys whose content is representable in the low format: reading them needs no rounding.
        self._representable: set[Key] = set()
        self.node_runs = 0
        self._lock = Lock()
        self._passes = Passes(block)

    @property
    def nodes(self) -> int:
        """How many nodes one pass runs if nothing is known."""
        return sum(step.size for step in self._block.steps)

    def run(self, low: frozenset[int], feeds: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """The outputs by name when the ops in ``low`` run low."""
        env = {v: self._pin(tensor) for v, tensor in fed(self._block.graph, feeds).items()}
        sample = tuple(env.values())
        known = self._passes.nearest(sample, low)
        if known is None:
            self._run_block(self._block, low, env)
        else:
            env = dict(known.env)
            self._run_difference(known.low ^ low, low, env)
        self._passes.keep(sample, low, env)
        return {str(o.name): self._fetch(self._key(o, env)) for o in self._block.graph.outputs}  # type: ignore[misc]

    def _run_block(self, block: Block, low: frozenset[int], env: Env) -> None:
        for step in block.steps:
            self._walk(step, low, env)

    def _run_difference(self, ops: frozenset[int], low: frozenset[int], env: Env) -> None:
        """Bring ``env`` up to date: walk the steps of ``ops``, then whatever reads a change."""
        pending = sorted(self._passes.changed(ops))
        queued = set(pending)
        while pending:
            step = self._block.steps[heappop(pending)]
            before = [env[v] for v in step.writes]
            self._walk(step, low, env)
            for value, key in zip(step.writes, before, strict=True):
                if env[value] != key:
                    for reader in self._passes.readers(value):
                        if reader not in queued:
                            queued.add(reader)
                            heappush(pending, reader)

    def _walk(self, step: Step, low: frozenset[int], env: Env) -> None:
        if step.node.op_type == "If" and not step.node.domain:
            self._run_if(step, low, env)
        else:
            keys = tuple([env[v] for v in step.reads])
            env.update(
                zip(step.writes, self._run_step(step, low & step.inside, keys), strict=True)
            )

    def _run_if(self, step: Step, low: frozenset[int], env: Env) -> None:
        """Walk into the branch that is taken, so that its ops are steps like any other."""
        condition = step.node.inputs[0]
        assert condition is not None
        taken = bool(np.asarray(self._fetch(self._key(condition, env))).all())
        branch = step.blocks["then_branch" if taken else "else_branch"]
        self._run_block(branch, low, env)
        for output, inner in zip(step.node.outputs, branch.graph.outputs, strict=True):
            env[output] = self._key(inner, env)

    def _run_step(self, step: Step, low: frozenset[int], keys: tuple[Key, ...]) -> tuple[Key, ...]:
        known = self._memo.get((step.id, low, keys))
        if known is not None:
            return known
        return self._execute((step, low, keys), [self._fetch(k) for k in keys])[0]

    def _execute(
        self, recipe: _Recipe, tensors: Sequence[Tensor]
    ) -> tuple[tuple[Key, ...], list[np.ndarray]]:
        """Run a step on its inputs; returns the keys of its results, and the results."""
        step, low, keys = recipe
        known = zip(step.reads, keys, strict=True)
        stored = frozenset(v for v, k in known if k in self._representable) if low else frozenset()
        runner = self._sessions.get(step, low, stored)
        results = runner.run(tensors)
        with self._lock:
            self.node_runs += step.size
        found = tuple(content_key(r) for r in results)
        self._memo[step.id, low, keys] = found
        for key, result in zip(found, results, strict=True):
            self._recipes.setdefault(key, recipe)
            self._store.put(key, result)
        self._mark_representable(step, low, found)
        return found, results

    def _mark_representable(self, step: Step, low: frozenset[int], keys: tuple[Key, ...]) -> None:
        if step.slots is not None and step.id in low:
            rounded = [step.node.outputs[i] for i in step.slots.outputs]
            self._representable.update(
                k for v, k in zip(step.writes, keys, strict=True) if v in rounded
            )

    def _key(self, value: ir.Value, env: Env) -> Key:
        """The content of a value, constants included."""
        if value in env:
            return env[value]
        if value not in self._constants:
            tensor = constant(value)
            assert tensor is not None, value.name
            self._constants[value] = self._pin(tensor.numpy())
        return self._constants[value]

    def _pin(self, tensor: Tensor) -> Key:
        key = content_key(tensor)
        self._pinned.setdefault(key, tensor)
        return key

    def _fetch(self, key: Key) -> Tensor:
        """A tensor from memory, or recomputed."""
        tensor = self._find(key)
        return self._recompute(key) if tensor is MISSING else tensor

    def _find(self, key: Key) -> Tensor | Missing:
        return self._pinned[key] if key in self._pinned else self._store.find(key)

    def _recompute(self, key: Key) -> Tensor:
        """Run the recipe of ``key`` after those it needs; unrolled, as graphs can be deep.

        What the pending recipes read is held, since the store may drop one input of an op while
        another is recomputed.
        """
        pending, held = [key], dict[Key, Tensor]()
        while key not in held:
            recipe = step, _, keys = self._recipes[pending[-1]]
            found = {k: self._find(k) for k in keys if k not in held}
            held |= {k: t for k, t in found.items() if t is not MISSING}
            missing = [k for k in keys if k not in held]
            if missing:
                pending += missing
                continue
            held |= zip(*self._execute(recipe, [held[k] for k in keys]), strict=True)
            if pending[-1] not in held:
                raise EngineError(
                    f"op {step.id} ({step.node.op_type}) gives another result when it runs again "
                    "on the same inputs. Remedy: give the model's random ops a seed, or make "
                    "their values inputs"
                )
            pending = [k for k in pending if k not in held]
            needed = {k for p in pending for k in self._recipes[p][2]} | {key}
            held = {k: t for k, t in held.items() if k in needed}
        return held[key]
