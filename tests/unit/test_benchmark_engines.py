"""The script behind the tables of emulated against measured, on a device stood in for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.engines import NOT_MEASURED, agreements, main, measured, tables
from tests.standin.devices import Device
from topsideas.graph.loading import load_model
from topsideas.testing.planted import overflow


def test_nothing_is_measured_where_nothing_is_real(capsys: pytest.CaptureFixture[str]) -> None:
    """ONNX Runtime's CPU provider is the same everywhere."""
    assert (
        main(
            [
                "--engine",
                "onnxruntime",
                "--compile_options",
                '{"provider": "CPUExecutionProvider"}',
            ]
        )
        == 0
    )
    assert NOT_MEASURED in capsys.readouterr().out


def test_rows_and_tables(tmp_path: Path) -> None:
    planted = overflow()
    np.savez(tmp_path / "sample0_inputs.npz", **planted.samples[0])
    model = load_model(planted.model)
    row = measured("overflow", model, tmp_path, Device, 1e-2, 60)
    assert row.plan[0] == row.proposed[0] == 2
    assert row.direct is not None
    assert row.direct[0] == 2
    assert row.low[0] == row.low[1] == np.inf
    ops = list(agreements(Device))
    assert {a.equal for a in ops} == {1.0}
    text = tables([row], ops)
    assert "| overflow | inf | inf | 2 |" in text
    assert "| MatMul K=4608 | 1.0000000 | 100.00% | 0.00 |" in text
