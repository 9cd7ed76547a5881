"""Private names of other packages: they stand where they may, and the table has each, its files and a test of it."""

import ast
from pathlib import Path

import pytest

from tests.contracts.names import NAMES

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "polynet_keras"
TESTS = [*Path(__file__).parent.glob("test_*.py"), *(ROOT / "tests" / "model_garden").glob("test_*.py")]
OF_PYTHON = {"_exit", "_getframe"}  # of `os` and `sys`, which document them
PRIVATE_MODULES = ("tensorflow.python", "tensorflow.compiler", "tensorflow.core", "keras.src", "uvicorn.protocols")


def is_private(name: str) -> bool:
    return (name.startswith("_") and not name.endswith("__")) or name == "__internal__"


HOMES = {
    "basics/keras_internals.py",
    "cluster/internals.py",
    "engine/internals.py",
    "deployment/serving/connections.py",
}
"""Where private names of other packages may stand. Subclasses use the protected members of their own base, too."""
OF_TABLE = {part for name in NAMES for part in name.split(".") if is_private(part)}


def nodes_of(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(source)))


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def is_own(node: ast.expr) -> bool:
    """Whether it is `self`, `cls` or `super()`."""
    if isinstance(node, ast.Call):
        return getattr(node.func, "id", None) == "super"
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


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


def misplaced(nodes: list[ast.AST], own: set[str]) -> list[str]:
    """What a module that is none of `HOMES` may not name, with its line.

    A name of the table counts as another package's wherever it is not an attribute of `self`, though we have it too.
    """
    found = []
    for node in nodes:
        names = []
        if isinstance(node, ast.Attribute) and is_private(node.attr) and not is_own(node.value):
            names = [node.attr] if node.attr in OF_TABLE or node.attr not in own | OF_PYTHON else []
        elif isinstance(node, ast.Constant):
            names = [node.value] if node.value in OF_TABLE else []
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith(PRIVATE_MODULES)]
        elif isinstance(node, ast.ImportFrom):
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [part for part in parts if part.startswith(PRIVATE_MODULES)]
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("keras.src", "tf.python", "tf.compiler"):
            names = [ast.unparse(node)]
        found += [f"{node.lineno}: {name}" for name in names]
    return found


@pytest.fixture(scope="module")
def modules():
    """What each file of the package is made of."""
    return {path.relative_to(PACKAGE).as_posix(): nodes_of(path.read_text()) for path in PACKAGE.rglob("*.py")}


@pytest.fixture(scope="module")
def own(modules):
    """All names that the package defines."""
    return set().union(*map(defined, modules.values()))


def test_private_names_of_other_packages_have_few_homes(modules, own):
    assert set(modules) >= HOMES
    found = [f"{file}:{line}" for file in sorted(set(modules) - HOMES) for line in misplaced(modules[file], own)]
    assert not found, "give each a function in one of HOMES, with what happens when the name goes"


PLANTED = {
    "model._nodes_by_depth": "_nodes_by_depth",
    "print(model.layers[0]._some_new_name)": "_some_new_name",
    "super_model._functional": "_functional",
    "dataset._seed": "_seed",  # which a class of ours has, too
    "self._epochs._current_iterator": "_current_iterator",
    "keras.Model._flatten_layers(model)": "_flatten_layers",
    'getattr(model, "_functional", None)': "_functional",
    'hasattr(spec, "_value_specs")': "_value_specs",
    'setattr(variable, "_value", 1)': "_value",
    'NAMES = ("_keras_mask", "other")': "_keras_mask",
    "tf.__internal__.distribute": "__internal__",
    "import tensorflow.python.eager.context as context": "tensorflow.python.eager.context",
    "from tensorflow.python.eager import context": "tensorflow.python.eager.context",
    "from tensorflow.compiler.xla import something": "tensorflow.compiler.xla.something",
    "from keras.src import backend": "keras.src.backend",
    "from keras import src": "keras.src",
    "keras.src.backend.standardize_dtype(x)": "keras.src",
    "from uvicorn.protocols.http.h11_impl import H11Protocol": "uvicorn.protocols.http.h11_impl.H11Protocol",
}


@pytest.mark.parametrize("source", PLANTED)
def test_a_private_name_in_another_place_is_found(source, own):
    assert misplaced(nodes_of(source), own) == [f"1: {PLANTED[source]}"]


@pytest.mark.parametrize(
    "source",
    [
        "self._distribute_strategy",
        "super()._maybe_symbolic_build()",
        "step._summed(data)",  # of ours
        "os._exit(1)",
        "model.__dict__",
        'def f():\n    "Of `_nodes_by_depth`."',
        "from tensorflow import keras",
        "from keras import ops",
    ],
)
def test_what_may_stand_anywhere(source, own):
    assert misplaced(nodes_of(source), own) == []


def test_every_private_name_of_another_package_is_in_the_table(modules, own):
    missing = []
    for file, nodes in modules.items():
        known = {part for name, private in NAMES.items() if file in private.files for part in name.split(".")}
        missing += [f"{file}: {name}" for name in sorted(foreign(nodes, own) - known - OF_PYTHON)]
    assert not missing, "add these to NAMES in tests/contracts/names.py, and a contract test for each"


def test_names_that_only_strings_hold_are_in_the_table():
    from polynet_keras.basics.keras_internals import CALLBACK_STATE, CALLED_BY_KERAS, STEP_PARTS

    used = {f"Model.{part}" for part in (*STEP_PARTS, *filter(is_private, CALLED_BY_KERAS))}
    used |= {f"{kind}.{name}" for kind, names in CALLBACK_STATE.items() for name in names if is_private(name)}
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
