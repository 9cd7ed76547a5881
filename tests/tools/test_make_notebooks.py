"""The notebooks of examples/ are the tutorials, with what their cells printed.

tests/test_documents.py executes the steps of the pages.
"""

import nbformat
import pytest

from tests.documents import blocks
from tools.make_notebooks import ABSOLUTE_PATH, NOTEBOOKS, SKIPPED, TUTORIALS, execute, notebook_of

NAMES = sorted(page.stem for page in TUTORIALS.glob("*.md"))


def stored(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


def test_each_notebook_has_a_page():
    assert sorted(notebook.stem for notebook in NOTEBOOKS.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_its_page(name):
    made, kept = notebook_of(TUTORIALS / f"{name}.md"), stored(name)
    cells = [[(c.id, c.cell_type, c.source, c.metadata) for c in notebook.cells] for notebook in (made, kept)]
    assert cells[0] == cells[1], f"make it anew: python tools/make_notebooks.py {name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_keeps_what_its_cells_printed(name):
    for cell in stored(name).cells:
        if cell.cell_type != "code":
            continue
        assert (cell.execution_count is None) == (SKIPPED in cell.metadata.get("tags", ())), cell.source
        if cell.source.startswith("%%bash"):
            assert bool(cell.outputs) == (cell.execution_count is not None), cell.source
        assert {output.output_type for output in cell.outputs} <= {"stream"}, cell.source
        assert not ABSOLUTE_PATH.search(printed(cell))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_shows_what_its_notebook_printed(name):
    cells = iter([cell for cell in stored(name).cells if cell.cell_type == "code"])
    lines = []
    for block in blocks(TUTORIALS / f"{name}.md"):
        if block.language:
            lines = printed(next(cells)).splitlines()
        else:
            assert set(block.code.splitlines()) - {"..."} <= set(lines), block


@pytest.mark.slow
def test_a_notebook_is_executed_in_a_kernel(tmp_path):
    """Its own Python, at full size: the cells print what the notebook keeps."""
    notebook, kept = notebook_of(TUTORIALS / "paper.md"), stored("paper")
    execute(notebook, tmp_path)
    for cell, old in zip(notebook.cells, kept.cells, strict=True):
        if cell.cell_type == "code":
            assert printed(cell) == printed(old), cell.source
