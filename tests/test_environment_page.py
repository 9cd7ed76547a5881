"""docs/environment.md lists the environment variables that the package reads or sets, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "polynet_keras"
PAGE = (ROOT / "docs" / "environment.md").read_text()

TREES = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
CONSTANTS = {
    target.id: node.value.value
    for tree in TREES
    for node in tree.body
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    for target in node.targets
    if isinstance(target, ast.Name)
}
"""By name: the values of all constants of the package's files."""


def is_environment(node: ast.expr) -> bool:
    """Whether this is `os.environ`, or a parameter that stands for it."""
    return ast.unparse(node) in ("os.environ", "environ")


def keys(tree: ast.Module) -> Iterator[ast.expr]:
    """The keys of `environ[key]`, `environ.get(key)` and its like, and `key in environ`."""
    for node in ast.walk(tree):
        match node:
            case ast.Subscript(value=value, slice=key) if is_environment(value):
                yield key
            case ast.Call(func=ast.Attribute(value=value), args=[key, *_]) if is_environment(value):
                yield key
            case ast.Compare(left=key, comparators=[value]) if is_environment(value):
                yield key


def variables() -> set[str]:
    """The variables of all keys. `name` is a parameter: its values are keys elsewhere, too."""
    found = set()
    for tree in TREES:
        for key in keys(tree):
            if isinstance(key, ast.Constant):
                found.add(key.value)
            elif isinstance(key, ast.Name) and key.id in CONSTANTS:
                found.add(CONSTANTS[key.id])
            else:
                assert ast.unparse(key) == "name", f"{ast.unparse(key)} is a variable that this test cannot resolve"
    return found


def test_the_page_lists_the_variables_that_the_package_reads():
    ours, others = PAGE.split("## Read by other packages")
    listed = {name for names in re.findall(r"(?m)^\* (`.*?`):", ours) for name in re.findall(r"`(\w+)`", names)}
    assert listed == variables()
    assert not listed & set(re.findall(r"`(\w+)`", others))


def test_no_variable_is_read_in_another_way():
    for path in PACKAGE.rglob("*.py"):
        assert not re.search(r"getenv|expandvars|environb|import environ\b", path.read_text()), path


def test_the_variables_of_other_processes_are_named():
    """What the package puts into the environment of a process that it starts: `{"NAME": ..., **os.environ}`."""
    for tree in TREES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict) and any(
                key is None and is_environment(value) for key, value in zip(node.keys, node.values, strict=True)
            ):
                for key in node.keys:
                    if key is not None:
                        name = key.value if isinstance(key, ast.Constant) else CONSTANTS[key.id]
                        assert f"`{name}" in PAGE, name
