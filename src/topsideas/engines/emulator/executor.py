"""Runs plans, executing only what differs from what has been run before.

The model is cut into segments, each a session that takes the precisions of its ops as inputs.
What a segment gives is remembered under (segment, precisions of its ops, contents of its inputs):
a plan that differs from a known one in op *k* re-executes from *k*'s segment on, and stops where a
result is bit-equal to a known one. Tensors between segments live in a bounded store; one that was
dropped is recomputed when it is needed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Event, Lock

import numpy as np
import onnx_ir as ir

from topsideas.engines.emulator.compiled import Compiler
from topsideas.engines.emulator.segments import Segment, is_weight, releases
from topsideas.engines.emulator.store import MISSING, Key, Tensor, TensorStore, content_key
from topsideas.errors import EngineError
from topsideas.graph.constants import constant
from topsideas.graph.switched import is_switch, taken

_Recipe = tuple[int, frozenset[int], tuple[Key, ...]]

# A remembered recipe takes about so much: three tuples, a set, two keys and its place. All plans
# on all samples make many, which get this share of the memory in each of two generations, and
# room for some at least.
_RECIPE_BYTES, _SHARE, _LEAST = 512, 16, 1 << 16


@dataclass(frozen=True, slots=True)
class _Walk:
    """One run of one sample.

    Attributes:
        env: What is in each value between segments.
        held: Tensors that are needed further on.
        recipes: How each content came about in this run: another sample's way to the same bits
            starts from inputs that are gone.
    """

    env: dict[ir.Value, Key]
    held: dict[Key, Tensor]
    recipes: dict[Key, _Recipe]


class Executor:
    """Runs one model under any plan; several threads may run samples side by side.

    Args:
        graph: The switched main graph.
        segments: Its segments.
        compiler: Opens their sessions.
        memory_limit: Bytes of tensors to remember.
    """

    def __init__(
        self,
        graph: ir.Graph,
        segments: Sequence[Segment],
        compiler: Compiler,
        memory_limit: int,
    ) -> None:
        self._inputs = [v for v in graph.inputs if not is_weight(v)]
        self._outputs = list(graph.outputs)
        self.segments = segments
        self._compiler = compiler
        self._store = TensorStore(memory_limit)
        self._memo: dict[_Recipe, tuple[Key, ...]] = {}
        self._older: dict[_Recipe, tuple[Key, ...]] = {}
        self._most = max(memory_limit // _SHARE // _RECIPE_BYTES, _LEAST)
        self._releases = releases(segments, graph)
        self._lock = Lock()
        self._running: dict[_Recipe, Event] = {}
        self.node_runs = 0
        self.nodes = sum(s.size for s in segments)

    def forget(self) -> None:
        """Drop what is remembered of the plans that were run; sessions stay open."""
        self._memo.clear()
        self._older.clear()

    def run(self, low: frozenset[int], feeds: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """The outputs by name when the ops in ``low`` run low. Raises EngineError."""
        walk = self._start(feeds)
        fed = frozenset(walk.held)
        for segment, released in zip(self.segments, self._releases, strict=True):
            if segment.writes:  # else nothing reads what it computes
                self._step(segment, low, walk)
            for value in released:
                if walk.env[value] not in fed:
                    walk.held.pop(walk.env[value], None)
        return {str(o.name): self._output(o, walk) for o in self._outputs}  # type: ignore[misc]

    def _start(self, feeds: Mapping[str, Tensor]) -> _Walk:
        walk = _Walk({}, {}, {})
        for value in self._inputs:
            tensor = _fed(value, feeds)
            walk.env[value] = content_key(tensor)
            walk.held[walk.env[value]] = tensor
        return walk

    def _step(self, segment: Segment, low: frozenset[int], walk: _Walk) -> None:
        """Know the content of what a segment writes; run it if that is not known."""
        env = walk.env
        recipe = segment.index, low & segment.ops, tuple([env[v] for v in segment.reads])
        keys = self._known(recipe) or self._once(recipe, walk)
        for value, key in zip(segment.writes, keys, strict=True):
            env[value] = key
            walk.recipes.setdefault(key, recipe)

    def _once(self, recipe: _Recipe, walk: _Walk) -> tuple[Key, ...]:
        """Run a segment, unless another thread is at just that: then wait for what it gives.

        Plans that are run side by side begin alike, so their threads would do everything twice.
        """
        with self._lock:
            other = self._running.get(recipe)
            mine = self._running.setdefault(recipe, Event())
        if other is not None:
            other.wait()
            return self._known(recipe) or self._execute(recipe, walk)
        try:
            return self._known(recipe) or self._execute(recipe, walk)
        finally:
            with self._lock:
                del self._running[recipe]
            mine.set()

    def _output(self, value: ir.Value, walk: _Walk) -> Tensor:
        if value in walk.env:
            return self._fetch(walk.env[value], walk)
        tensor = constant(value)
        assert tensor is not None, value.name
        return tensor.numpy()

    def _execute(self, recipe: _Recipe, walk: _Walk) -> tuple[Key, ...]:
        """Run a segment; its results are held, and go into the store. Returns their keys."""
        index, low, inputs = recipe
        segment = self.segments[index]
        tensors = [self._fetch(key, walk) for key in inputs]
        results = self._compiler.get(segment, low).run(low, tensors)
        with self._lock:
            self.node_runs += segment.size
        keys = tuple([content_key(r) for r in results])
        # Of two runs the first one has said what it gives.
        if keys != self._remember(recipe, keys):
            raise EngineError(_differs(segment))
        for key, result in zip(keys, results, strict=True):
            self._store.put(key, result)
            walk.held[key] = result
        return keys

    def _known(self, recipe: _Recipe) -> tuple[Key, ...] | None:
        keys = self._memo.get(recipe)
        if keys is None and (older := self._older.get(recipe)) is not None:
            return self._remember(recipe, older)
        return keys

    def _remember(self, recipe: _Recipe, keys: tuple[Key, ...]) -> tuple[Key, ...]:
        """Keep what a segment gives, or say what is known; what was long not asked for goes."""
        known = self._memo.setdefault(recipe, self._older.get(recipe, keys))
        if len(self._memo) > self._most:
            self._memo, self._older = {}, self._memo
        return known

    def _fetch(self, key: Key, walk: _Walk) -> Tensor:
        """A tensor from memory, or recomputed."""
        if key in walk.held:
            return walk.held[key]
        tensor = self._store.find(key)
        if tensor is MISSING:
            return self._recompute(key, walk)
        walk.held[key] = tensor
        return tensor

    def _recompute(self, key: Key, walk: _Walk) -> Tensor:
        """Run again what leads from tensors at hand to ``key``, holding no more than needed."""
        before = frozenset(walk.held)
        recipes = self._recipes_for(key, walk)
        last = {k: recipe[0] for recipe in recipes for k in recipe[2]}
        last[key] = len(self.segments)
        for recipe in recipes:
            for k in (*recipe[2], *self._execute(recipe, walk)):
                if last.get(k, -1) <= recipe[0] and k not in before:
                    walk.held.pop(k, None)
        return walk.held[key]

    def _recipes_for(self, key: Key, walk: _Walk) -> list[_Recipe]:
        """What must run to make a tensor, in execution order; a list, as graphs can be deep."""
        found: dict[int, _Recipe] = {}
        wanted = [key]
        while wanted:
            recipe = walk.recipes[wanted.pop()]
            if recipe[0] not in found:
                found[recipe[0]] = recipe
                wanted += [k for k in recipe[2] if not self._is_at_hand(k, walk)]
        return [found[index] for index in sorted(found)]

    def _is_at_hand(self, key: Key, walk: _Walk) -> bool:
        if key in walk.held:
            return True
        tensor = self._store.find(key)
        if tensor is MISSING:
            return False
        walk.held[key] = tensor
        return True


def _fed(value: ir.Value, feeds: Mapping[str, Tensor]) -> Tensor:
    if value.name is None or value.name not in feeds:
        raise EngineError(f"no array for input {value.name!r}; given: {sorted(feeds)}")
    return feeds[value.name]


def _differs(segment: Segment) -> str:
    types = sorted({inner.op_type for node in segment.nodes for inner in _ops(node)})
    return (
        f"one of the ops {', '.join(types)} gives another result when it runs again on the same "
        "inputs. Remedy: make the values of the model's random ops inputs, or raise the memory "
        "limit so that they need not be drawn again"
    )


def _ops(node: ir.Node) -> list[ir.Node]:
    if not is_switch(node):
        return [node]
    return list(taken(node, low=False, stored=False))
