"""Samples over a long run: read again, changed meanwhile, more than fit into memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from topsideas.calibration.references import References
from topsideas.calibration.settings import SAMPLE_BYTES, sample_bytes
from topsideas.calibration.spill import SpilledArrays
from topsideas.errors import SampleError, WorkspaceError
from topsideas.samples.sample import Sample


@dataclass(frozen=True)
class Source:
    id: int
    read: Callable[[], Sample]

    def load(self) -> Sample:
        return self.read()


def _sample(number: int, value: float = 0.0, size: int = 4) -> Sample:
    return Sample(number, {"x": np.full(size, value, np.float32)}, None)


class _Fp32:
    def run(self, feeds: Any) -> dict[str, Any]:
        return {"y": 2 * feeds["x"]}


def _references(*sources: Source, **more: Any) -> References:
    return References(sources, _Fp32, **more)


def test_a_sample_that_changed_since_the_start_is_refused() -> None:
    start = _sample(3, 1.0)
    digests = {3: [start.inputs_digest, start.golden_digest]}
    sound = _references(Source(3, lambda: start), digests=digests)
    assert sound.inputs(3)["x"][0] == 1.0
    changed = _references(Source(3, lambda: _sample(3, 1.5)), digests=digests)
    with pytest.raises(SampleError, match="sample 3: its files changed during the run; expected"):
        changed.inputs(3)


def test_what_is_held_of_samples_is_a_share_of_the_limit() -> None:
    assert sample_bytes(None) == SAMPLE_BYTES == 1 << 30
    assert sample_bytes(512 << 20) == 64 << 20
    assert sample_bytes(1 << 40) == SAMPLE_BYTES
    assert sample_bytes(1) == 0  # nothing is held; each is read again
    held = _references(*(Source(n, lambda n=n: _sample(n, n)) for n in range(4)), limit=0)
    assert [held.golden(n)["y"][0] for n in (0, 1, 2, 3, 0)] == [0.0, 2.0, 4.0, 6.0, 0.0]


def test_threads_that_read_one_sample_count_it_once() -> None:
    reads: list[int] = []

    def read(number: int) -> Sample:
        reads.append(number)
        return _sample(number)

    held = _references(*(Source(n, lambda n=n: read(n)) for n in range(4)), limit=64)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(held.inputs, [0, 1, 2, 3] * 50))
    reads.clear()
    for number in (0, 1, 2, 3):
        held.inputs(number)
    assert reads == []  # 4 samples of 16 bytes fit


def test_computed_golden_outputs_beyond_the_limit_lie_in_files_and_are_the_same() -> None:
    count = 20
    held = _references(*(Source(n, lambda n=n: _sample(n, n)) for n in range(count)), limit=100)
    for _ in range(2):
        for number in range(count):
            assert held.golden(number)["y"].tolist() == [2.0 * number] * 4
    assert held._computed._bytes <= 100
    assert len(held._computed._held) <= 6


def test_what_files_cannot_hold_stays_in_memory() -> None:
    arrays = SpilledArrays(8)
    sequence = {"y": [np.zeros(100, np.float32)]}
    words = {"y": np.array(["a"], dtype=object)}
    for number, value in enumerate((sequence, words, {"y": np.ones(100)})):
        arrays.put(number, value)
    assert arrays.get(0) is sequence
    assert arrays.get(1) is words
    assert arrays.get(2)["y"].sum() == 100
    with pytest.raises(KeyError):
        arrays.get(7)


def test_a_file_that_was_damaged_is_an_error_and_no_other_value() -> None:
    arrays = SpilledArrays(8)
    arrays.put(0, {"y": np.ones(100)})
    arrays.put(1, {"y": np.ones(100)})
    (file,) = (p for p in Path(arrays._opened().path).rglob("s0.npz"))
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(WorkspaceError, match="outputs of sample 0 was removed or damaged"):
        arrays.get(0)
