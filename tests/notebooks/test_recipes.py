"""Every notebook runs from top to bottom, says nothing on stderr, and is stored without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "recipes").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path):
    notebook = nbformat.read(path, as_version=4)
    stored = [cell.get("outputs") for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(stored) and all(cell.get("execution_count") is None for cell in notebook.cells if cell.cell_type == "code")
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert sum("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in outputs) >= 1


def test_the_reading_order_names_every_notebook():
    docs = (Path(__file__).parents[2] / "docs" / "seeds.md").read_text()
    assert NOTEBOOKS and all(f"../recipes/{path.name}" in docs for path in NOTEBOOKS)
