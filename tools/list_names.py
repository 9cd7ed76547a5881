"""Lists the public names of each room in the reference, with the first sentence of each.

python tools/list_names.py --write docs/reference.md
"""

import argparse
import ast
import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOM = re.compile(r"(?ms)^(## [^\n]*`(?P<room>[\w.]+)`\n)(?P<listed>.*?)(?P<names>^::: .*?)(?=^## |\Z)")
"""A heading with its room, the list, and the lines that mkdocs puts the documentation in the place of."""


def with_lists(page: str) -> str:
    """The page with the list of each room made anew."""

    def listed(found: re.Match) -> str:
        names = re.findall(r"(?m)^::: (\S+)$", found["names"])
        lines = [f"* `{name.rpartition('.')[2]}`: {_first_sentence(found['room'], name)}" for name in names]
        return f"{found[1]}\n" + "\n".join(lines) + f"\n\n{found['names']}"

    return ROOM.sub(listed, page)


def _first_sentence(room: str, name: str) -> str:
    """Of a public name's docstring, in the file that the room's stub names."""
    folder, short = ROOT / Path(*room.split(".")), name.rpartition(".")[2]
    for node in ast.parse((folder / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom) and short in {alias.name for alias in node.names}:
            text = _docstring((folder / Path(*node.module.split("."))).with_suffix(".py"), short)
            break
    else:
        sys.exit(f"{name} is not in the stub of {room}")
    sentence = re.split(r"(?<=[^.]\.)\s|\n\n|:\n", text.strip())[0]
    return f"{' '.join(sentence.split()).rstrip('.:')}."


def _docstring(file: Path, name: str) -> str:
    body = ast.parse(file.read_text()).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return ast.get_docstring(node) or sys.exit(f"{file}: {name} has no docstring")
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if name in {getattr(target, "id", None) for target in targets} and isinstance(after, ast.Expr):
            return ast.literal_eval(after.value)
    sys.exit(f"{file} does not define {name} with a docstring")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Lists the public names of each room in the reference.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", type=Path, metavar="PAGE", help="put the lists into this page")
    what.add_argument("--check", type=Path, metavar="PAGE", help="fail if this page has other lists")
    options = parser.parse_args(arguments)
    page = options.write or options.check
    old = page.read_text()
    new = with_lists(old)
    if options.write:
        page.write_text(new)
    elif new != old:
        sys.exit(f"{page} lists other names than there are; renew it: python tools/list_names.py --write {page}")


if __name__ == "__main__":
    main()
