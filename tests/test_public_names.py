"""The public names: each room's face, what the reference lists, and what importing them costs."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STUBS = sorted((ROOT / "polynet_keras").rglob("__init__.pyi"))
ROOMS = {".".join(stub.parent.relative_to(ROOT).parts): stub for stub in STUBS}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.py"))]


def imports_of(stub):
    """The public names, with the module that each is from; of a room, None."""
    nodes = [node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module for node in nodes for alias in node.names}


@pytest.mark.parametrize("room", ROOMS)
def test_a_face_is_its_stub(room):
    face, names = importlib.import_module(room), imports_of(ROOMS[room])
    stub = {}
    exec(ROOMS[room].read_text().partition("__all__ = ")[2].join(["__all__ = ", ""]), stub)
    assert sorted(names) == sorted(stub["__all__"]) == sorted(face.__all__) == sorted(dir(face))
    for name, module in names.items():
        if module is None:
            assert getattr(face, name) is importlib.import_module(f"{room}.{name}")
            continue
        assert getattr(face, name) is getattr(importlib.import_module(f"{room}.{module}"), name)
        # The import system would put a module of that name in the place of what is exported.
        assert not (ROOMS[room].parent / f"{name}.py").exists()
        assert not (ROOMS[room].parent / name).is_dir()


def test_the_reference_lists_the_public_names():
    listed = re.findall(r"(?m)^::: (.*)$", (ROOT / "docs" / "reference.md").read_text())
    public = {f"{room}.{name}" for room, stub in ROOMS.items() for name, module in imports_of(stub).items() if module}
    assert sorted(listed) == sorted(public - {"polynet_keras.__version__"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_and_examples_use_public_names_only(page):
    for module, names in re.findall(r"(?m)^\s*from (polynet_keras[.\w]*) import ([\w, ]+)$", page.read_text()):
        face = {"__version__", *imports_of(ROOMS[module])} if module in ROOMS else set()
        private = {name.strip() for name in names.split(",")} - face
        assert not private, f"{page.name}: {module} does not export {private}"


def in_a_new_process(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


LIGHT = ("polynet_keras", "polynet_keras.basics", "polynet_keras.cli.main", "polynet_keras.launcher.supervisor")


@pytest.mark.parametrize("module", LIGHT)
def test_what_is_imported_without_keras_and_tensorflow(module):
    program = f"import sys, {module}; print({{'keras', 'tensorflow', 'numpy'}} & set(sys.modules))"
    assert in_a_new_process(program) == "set()\n"


def test_keras_without_this_package_is_itself():
    """The search for Keras goes on as if nothing had been put before it."""
    in_a_new_process(
        "import importlib.util, sys, polynet_keras\n"
        "before = len(sys.meta_path)\n"
        "import polynet_keras.registration as registration\n"
        "registration.register_with_keras()\n"
        "assert len(sys.meta_path) == before, 'the finder is there once'\n"
        "sys.modules['keras'] = None  # as if it were not installed\n"
        "try:\n"
        "    import keras\n"
        "except ModuleNotFoundError:\n"
        "    pass\n"
        "else:\n"
        "    raise AssertionError\n"
    )
