"""The notebook runs from its first cell to its last, and finds what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples/notebook/plate_reader.ipynb"


def _printed(notebook: Any) -> str:
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return "\n".join(o.get("text") or o["data"]["text/plain"] for o in outputs)


@pytest.mark.filterwarnings("default")  # those of Jupyter's own parts
def test_notebook_runs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not kept in git"
    client = nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": NOTEBOOK.parent}}
    )
    client.execute()
    printed = _printed(notebook)
    assert "[(62, 'Mul_62'), (63, 'ReduceMean_63')]" in printed
    assert "all low: 40" in printed
    assert "[62, 63]" in printed
    assert "4 casts among" in printed
