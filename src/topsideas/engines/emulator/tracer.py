"""Runs a plan and shows what every op read and wrote, bodies of loops included.

Unlike the executor it remembers nothing: a tensor lives until its last reader has run. A few
neighbouring ops at a time run in one session that also returns what lies between them. Loops and
scans are walked iteration by iteration. Every op runs on the kernel that the executor uses, on one
thread, so tracing changes no result.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from topsideas.engines.base import OpRecord
from topsideas.engines.emulator.pieces import Piece
from topsideas.engines.emulator.sessions import Runner, Sessions
from topsideas.engines.emulator.steps import Block, Step, fed
from topsideas.engines.emulator.store import Tensor, size_of
from topsideas.errors import EngineError
from topsideas.graph.constants import constant
from topsideas.graph.mapped import give_back

# Bytes of outputs per session, so that they are still in the cache when they are looked at: a
# piece with more is split. Measured: with 32 MB, CALC takes a fifth longer on large tensors.
_MAX_TENSORS = 4 << 20

_Env = dict[ir.Value, Tensor]
_Walk = Generator[OpRecord, None, list[Tensor]]


class Tracer:
    """One traced run.

    Args:
        block: The main graph.
        sessions: Opens the sessions.
        low: Ids of the ops that run low.
        feeds: The inputs by name.
    """

    def __init__(
        self, block: Block, sessions: Sessions, low: frozenset[int], feeds: Mapping[str, Tensor]
    ) -> None:
        self._block = block
        self._sessions = sessions
        self._low = low
        self._feeds = feeds
        # Values that a low op has stored: reading them needs no rounding.
        self._stored: set[ir.Value] = set()
        self.outputs: dict[str, Tensor] = {}

    def __iter__(self) -> Iterator[OpRecord]:
        """Yield a record per executed op, in order; afterwards ``outputs`` holds the outputs."""
        graph = self._block.graph
        env: _Env = fed(graph, self._feeds)
        yield from self._run_block(self._block, env)
        self.outputs = {str(o.name): _read(o, env) for o in graph.outputs}

    def _run_block(self, block: Block, env: _Env) -> Iterator[OpRecord]:
        for piece in self._sessions.pieces.of(block):
            step = piece.steps[0]
            walk = _WALKS.get(step.node.op_type) if not step.node.domain else None
            if walk is not None and _can_walk(step):
                results = yield from walk(self, step, env)
                written = dict(zip(step.node.outputs, results, strict=True))
                env.update((v, written[v]) for v in piece.kept)
                yield OpRecord(step.id, outputs=tuple(written[v] for v in step.writes))
            else:
                yield from self._run_piece(piece, env)
            for value in piece.released:
                env.pop(value, None)

    def _run_piece(self, piece: Piece, env: _Env) -> Iterator[OpRecord]:
        parts = self._sessions.pieces.parts(piece)
        ran = self._try(piece, [env[v] for v in piece.reads]) if parts is None else None
        if ran is None:
            for part in parts or self._sessions.pieces.halve(piece):
                yield from self._run_piece(part, env)
                for value in part.released:
                    env.pop(value, None)
            return
        runner, tensors = ran
        env.update((v, tensors[i]) for v, i in runner.kept)
        self._stored.update(runner.rounded)
        records = [shown.record(tensors) for shown in runner.shown]
        self._watch(piece, records)
        yield from records
        for array in runner.mapped:
            give_back(array)

    def _try(self, piece: Piece, inputs: list[Tensor]) -> tuple[Runner, list[Tensor]] | None:
        """Run a piece; None if it is to be run in halves."""
        alone = len(piece.steps) == 1
        # What an op returns is mostly as large as what it reads: this saves opening in vain.
        if not alone and len(piece.steps) * sum(map(size_of, inputs)) > 2 * _MAX_TENSORS:
            return None
        stored = frozenset(v for v in piece.reads if v in self._stored)
        try:
            runner = self._sessions.get(piece, self._low & piece.inside, stored)
            return runner, [*inputs, *runner.run(inputs), *runner.constants]
        except EngineError:
            # In parts, the message will name the op; and what is refused may run by itself.
            if alone:
                raise
            return None

    def _watch(self, piece: Piece, records: Sequence[OpRecord]) -> None:
        """Run a piece in parts from now on if what it returned does not stay in the cache."""
        if len(records) > 1:
            sizes = [sum(map(size_of, record.outputs)) for record in records]
            if sum(sizes) > _MAX_TENSORS:
                self._sessions.pieces.split(piece, sizes, _MAX_TENSORS)

    def _walk_if(self, step: Step, env: _Env) -> _Walk:
        taken = bool(np.asarray(_read(step.node.inputs[0], env)).all())
        block = step.blocks["then_branch" if taken else "else_branch"]
        yield from self._run_block(block, env)
        return [_read(o, env) for o in block.graph.outputs]

    def _walk_loop(self, step: Step, env: _Env) -> _Walk:
        block = step.blocks["body"]
        trips = _read(step.node.inputs[0], env)
        condition = _read(step.node.inputs[1], env)
        carried = [_read(v, env) for v in step.node.inputs[2:]]
        scanned: list[list[Tensor]] = [[] for _ in block.graph.outputs[1 + len(carried) :]]
        index = 0
        going = condition is None or bool(np.asarray(condition).all())
        while going and (trips is None or index < int(np.asarray(trips).item())):
            start = [np.array(index, np.int64), np.array(going), *carried]
            env.update(zip(block.graph.inputs, start, strict=True))
            yield from self._run_block(block, env)
            results = [_read(o, env) for o in block.graph.outputs]
            going = bool(np.asarray(results[0]).all())
            carried = results[1 : 1 + len(carried)]
            for collected, result in zip(scanned, results[1 + len(carried) :], strict=True):
                collected.append(result)
            index += 1
        stacked = _stack_all(scanned, block.graph.outputs[1 + len(carried) :], 0)
        return [*carried, *stacked]

    def _walk_scan(self, step: Step, env: _Env) -> _Walk:
        block, node = step.blocks["body"], step.node
        count = node.attributes["num_scan_inputs"].as_int()
        values = [_read(v, env) for v in node.inputs]
        carried, slices = values[: len(values) - count], values[len(values) - count :]
        axes = _ints(node, "scan_input_axes", count)
        backward = _ints(node, "scan_input_directions", count)
        length = np.asarray(slices[0]).shape[axes[0]]
        produced = block.graph.outputs[len(carried) :]
        scanned: list[list[Tensor]] = [[] for _ in produced]
        for index in range(length):
            at = [length - 1 - index if b else index for b in backward]
            # numpy makes a scalar of a row without axes.
            rows = [
                np.asarray(np.take(np.asarray(s), i, a))
                for s, i, a in zip(slices, at, axes, strict=True)
            ]
            env.update(zip(block.graph.inputs, [*carried, *rows], strict=True))
            yield from self._run_block(block, env)
            results = [_read(o, env) for o in block.graph.outputs]
            carried = results[: len(carried)]
            for collected, result in zip(scanned, results[len(carried) :], strict=True):
                collected.append(result)
        for collected, b in zip(
            scanned, _ints(node, "scan_output_directions", len(scanned)), strict=True
        ):
            if b:
                collected.reverse()
        out_axes = _ints(node, "scan_output_axes", len(scanned))
        stacked = [
            _stack(rows, value, axis)
            for rows, value, axis in zip(scanned, produced, out_axes, strict=True)
        ]
        return [*carried, *stacked]


_WALKS = {"If": Tracer._walk_if, "Loop": Tracer._walk_loop, "Scan": Tracer._walk_scan}


def _can_walk(step: Step) -> bool:
    """Scan before opset 9 has another meaning (batches, an empty first input)."""
    return step.node.op_type != "Scan" or bool(step.node.inputs and step.node.inputs[0])


def _read(value: ir.Value | None, env: _Env) -> Tensor:
    if value is None:
        return None
    if value in env:
        return env[value]
    tensor = constant(value)
    if tensor is None:
        raise EngineError(f"value {value.name!r} is read before it is written")
    return tensor.numpy()


def _ints(node: ir.Node, name: str, count: int) -> Sequence[int]:
    attribute = node.attributes.get(name)
    return attribute.as_ints() if attribute is not None else [0] * count


def _stack_all(
    scanned: list[list[Tensor]], values: Sequence[ir.Value], axis: int
) -> list[np.ndarray]:
    return [_stack(rows, value, axis) for rows, value in zip(scanned, values, strict=True)]


def _stack(rows: list[Tensor], value: ir.Value, axis: int) -> np.ndarray:
    if rows:
        return np.stack([np.asarray(row) for row in rows], axis)
    dims = [d if isinstance(d, int) else 0 for d in value.shape or ()]
    dims.insert(axis if axis >= 0 else len(dims) + 1 + axis, 0)
    return np.zeros(dims, value.dtype.numpy() if value.dtype else np.float32)
