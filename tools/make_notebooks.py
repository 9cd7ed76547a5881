"""Makes the notebooks of examples/ from the tutorials in docs/tutorials/, and keeps what their cells print.

    python tools/make_notebooks.py            # all of them
    python tools/make_notebooks.py paper

A page's `python` blocks become cells, its `bash` blocks `%%bash` cells (by jupytext), and its text the cells between
them. The cells run in an empty folder, but for those after `<!-- no output: REASON -->`. A notebook whose code is that
of its page gets the page's text, and keeps its outputs: remove it to execute it again. Nobody edits a notebook:
tests/tools/test_make_notebooks.py compares its cells with the page.
"""

import argparse
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
TUTORIALS, NOTEBOOKS = ROOT / "docs" / "tutorials", ROOT / "examples"

HEADER = """---
jupyter:
  kernelspec: {display_name: Python 3, language: python, name: python3}
---
"""
"""Without it jupytext takes the language of most blocks for that of the notebook."""
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)")
NO_OUTPUT = re.compile(r"<!-- no output: .+ -->\Z")
SKIPPED = "skip-execution"
"""nbclient's tag for a cell that it leaves out."""
LOG_LINE = re.compile(
    r"(?m)^(\[worker \d+\] )?"
    r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: |[IWEF]\d{4} |WARNING: All log messages before absl"
    r"|/job:worker/|The tasks have crashed\.|The error could be from a previous operation\.).*\n"
)
"""Lines of TensorFlow's own log: about the machine, and where a worker fails."""
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/-])/\w[\w.-]*/\S*")
SECONDS = 1800
"""For one cell."""


def notebook_of(page: Path) -> NotebookNode:
    """The page as a notebook without outputs."""

    def moved(link: re.Match) -> str:
        target = page.parent / link[1]
        if target.parent == TUTORIALS and target.suffix == ".md":
            return f"{target.stem}.ipynb"
        return Path(os.path.relpath(target, NOTEBOOKS)).as_posix()

    notebook = jupytext.reads(HEADER + LINK.sub(moved, page.read_text()), fmt="md")
    notebook.metadata.pop("jupytext")
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    text = ""
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{page.stem}-{number}"
        cell.metadata = NotebookNode()
        if cell.cell_type == "code" and NO_OUTPUT.search(text):
            cell.metadata.tags = [SKIPPED]
        text = cell.source
    return notebook


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Runs the cells in a folder, with a Python of their own, and leaves their outputs in the notebook.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
        ValueError: an output names a folder of this machine.
    """
    with tempfile.TemporaryDirectory() as own:
        # A `%%bash` cell goes on after a command that fails, as a terminal does: here it may not.
        strict = Path(own, "strict")
        strict.write_text("set -euo pipefail\n")
        environment = {
            **os.environ,
            "BASH_ENV": str(strict),
            "IPYTHONDIR": own,
            "JUPYTER_RUNTIME_DIR": own,
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        client = NotebookClient(
            notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        client.execute(env=environment)
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # when it ran, to the microsecond
        if cell.cell_type == "code":
            cell.outputs = _cleaned(cell.outputs, folder)


def _took_outputs(notebook: NotebookNode, old: NotebookNode) -> bool:
    """Takes the outputs of a notebook with the same code, and says whether it has."""
    new_cells, old_cells = ([cell for cell in book.cells if cell.cell_type == "code"] for book in (notebook, old))
    if [(cell.source, cell.metadata) for cell in new_cells] != [(cell.source, cell.metadata) for cell in old_cells]:
        return False
    for new, kept in zip(new_cells, old_cells, strict=True):
        new.outputs, new.execution_count = kept.outputs, kept.execution_count
    notebook.metadata = old.metadata
    return True


def _cleaned(outputs: Sequence[NotebookNode], folder: Path) -> list[NotebookNode]:
    """Outputs of one stream joined, without the folder of this machine."""
    cleaned: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and cleaned and cleaned[-1].get("name") == output.name:
            cleaned[-1].text += output.text
        else:
            cleaned.append(output)
    for output in cleaned:
        if output.output_type == "stream":
            output.text = LOG_LINE.sub("", output.text).replace(f"{folder}/", "")
            if named := ABSOLUTE_PATH.search(output.text):
                raise ValueError(f"an output names a folder of this machine: {named[0]}")
    return [output for output in cleaned if output.output_type != "stream" or output.text]


def main(arguments: Sequence[str] | None = None) -> None:
    names = sorted(page.stem for page in TUTORIALS.glob("*.md"))
    parser = argparse.ArgumentParser(description="Makes the notebooks from the tutorials, with their outputs.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(names)}; all by default")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - set(names):
        parser.error(f"no tutorial {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    for name in options.names or names:
        notebook, file = notebook_of(TUTORIALS / f"{name}.md"), NOTEBOOKS / f"{name}.ipynb"
        if not (file.exists() and _took_outputs(notebook, nbformat.read(file, as_version=4))):
            with tempfile.TemporaryDirectory() as folder:
                execute(notebook, Path(folder).resolve())
        nbformat.write(notebook, file)
        print(f"examples/{name}.ipynb")


if __name__ == "__main__":
    main()
