"""The table of private names: nothing is missing in it, its files are there, and each name has a test."""

import ast
from pathlib import Path

from tests.contracts.names import NAMES

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "polynet_keras"
TESTS = [*Path(__file__).parent.glob("test_*.py"), *(ROOT / "tests" / "model_garden").glob("test_*.py")]
OF_PYTHON = {"_exit", "_getframe"}  # of `os` and `sys`, which document them
PRIVATE_MODULES = ("tensorflow.python", "tensorflow.compiler", "tensorflow.core", "keras.src", "uvicorn.protocols")


def is_private(name: str) -> bool:
    return (name.startswith("_") and not name.endswith("__")) or name == "__internal__"


KINDS = (ast.Attribute, ast.Call, ast.ImportFrom, ast.Name, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def nodes_of(path: Path) -> list[ast.AST]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, KINDS)]


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def defined(nodes: list[ast.AST]) -> set[str]:
    """What a module itself names: functions, classes, variables, and attributes of `self`."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            names.add(node.attr)
    return names


def foreign(nodes: list[ast.AST], own: set[str]) -> set[str]:
    """The private names of other packages in a module, and what it imports of their private modules."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            of_base = isinstance(node.value, ast.Call) and getattr(node.value.func, "id", None) == "super"
            if of_base or node.attr not in own:
                found.add(node.attr)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", None) in ("getattr", "hasattr", "setattr"):
            if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) and is_private(node.args[1].value):
                found.add(node.args[1].value)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PRIVATE_MODULES):
            found.update(alias.name for alias in node.names)
    return found


def test_every_private_name_of_another_package_is_in_the_table():
    modules = {path.relative_to(PACKAGE).as_posix(): nodes_of(path) for path in PACKAGE.rglob("*.py")}
    own = set().union(*map(defined, modules.values()))
    missing = []
    for file, nodes in modules.items():
        known = {part for name, private in NAMES.items() if file in private.files for part in name.split(".")}
        missing += [f"{file}: {name}" for name in sorted(foreign(nodes, own) - known - OF_PYTHON)]
    assert not missing, "add these to NAMES in tests/contracts/names.py, and a contract test for each"


def test_names_that_only_strings_hold_are_in_the_table():
    from polynet_keras.checkpoints.callback_state import ATTRIBUTES
    from polynet_keras.engine.building import KERAS_PARTS

    used = {f"Model.{part}" for part in KERAS_PARTS}
    used |= {f"{kind.__name__}.{name}" for kind, names in ATTRIBUTES for name in names if is_private(name)}
    assert used <= set(NAMES)


def test_the_files_of_the_table_use_the_names():
    """So that the table moves with the files, and loses what they no longer use."""
    stale = []
    for name, private in NAMES.items():
        word = private.written or name.rpartition(".")[2]
        stale += [
            f"{name}: {file}"
            for file in private.files
            if not (PACKAGE / file).is_file() or word not in (PACKAGE / file).read_text()
        ]
    assert not stale


def test_every_name_has_a_test():
    marked = [
        decorator.args[0].value
        for path in TESTS
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", None) == "contract"
    ]
    assert len(marked) == len(set(marked))
    assert set(marked) == set(NAMES)
