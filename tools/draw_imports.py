"""Draws which rooms of the package import which: the picture in docs/design.md.

    python tools/draw_imports.py
    python tools/draw_imports.py --write docs/design.md
    python tools/draw_imports.py --check docs/design.md

Without a flag the picture is printed. `--write` puts it into the page, between the two marker lines; `--check` fails if
the page has another picture. All three fail if an import does not point down, so that no circle can be drawn.

A *room* is a top folder of the package, or applications.py. Which room stands above which is read from the import
rules in pyproject.toml. Not drawn are what the package's own `__init__.py` and `__main__.py` import, `version.py`, and
an arrow that others imply: where `a` imports `b` and `b` imports `c`, `a` may import `c`. No room may import the
package itself, `from polynet_keras import PolyNet`, which would hide an arrow.
"""

import argparse
import sys
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
PACKAGE = "polynet_keras"
BEGIN = "<!-- python tools/draw_imports.py --write docs/design.md -->"
END = "<!-- the end of the drawing -->"

Arrows = Mapping[tuple[str, str], str]
"""From a room to one that it imports; the value is one such import, in words."""


def import_graph() -> grimp.ImportGraph:
    sys.path.insert(0, str(ROOT))  # this checkout, whichever is installed
    try:
        return grimp.build_graph(PACKAGE, cache_dir=None)
    finally:
        sys.path.remove(str(ROOT))


def read_levels(pyproject: str) -> list[list[str]]:
    """The rooms, the highest first; those of one level stand side by side."""
    contracts = tomllib.loads(pyproject)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[_room(module.strip()) for module in layer.split("|")] for layer in layers]


def find_arrows(graph: grimp.ImportGraph) -> dict[tuple[str, str], str]:
    arrows: dict[tuple[str, str], str] = {}
    for importer in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            arrow = _room(importer), _room(imported)
            if arrow[0] not in (arrow[1], PACKAGE, "__main__") and arrow[1] != "version":
                (detail, *_) = graph.get_import_details(importer=importer, imported=imported)
                arrows.setdefault(arrow, f"{importer}, line {detail['line_number']}, imports {imported}")
    return arrows


def _room(module: str) -> str:
    package, _, inside = module.partition(".")
    return inside.partition(".")[0] or package


def problems(levels: Collection[Collection[str]], arrows: Arrows) -> list[str]:
    """The arrows that do not point to a lower level, and those of what has no level."""
    level = {room: number for number, rooms in enumerate(levels) for room in rooms}
    found = []
    for (upper, lower), example in sorted(arrows.items()):
        unknown = [room for room in (upper, lower) if room not in level]
        if unknown:
            found.append(f"{unknown[0]} has no level in the import rules of pyproject.toml: {example}")
        elif level[upper] >= level[lower]:
            found.append(f"{upper} → {lower} does not point down: {example}")
    return found


def draw(levels: Collection[Collection[str]], arrows: Arrows) -> str:
    """One line a room. What a room imports hangs on its rail: a column that begins at the room and ends at the last."""
    rooms = [room for level in levels for room in level]
    drawn = _without_implied(rooms, arrows)
    rails: list[dict[int, str]] = []  # signs by line; a column may hold several rails, one under the other
    for number, room in enumerate(rooms):
        if ends := sorted(map(rooms.index, drawn[room])):
            rail = {line: "│" for line in range(number, ends[-1])}
            rail |= {number: "┐"} | dict.fromkeys(ends, "┤") | {ends[-1]: "┘"}
            free = next((column for column in rails if max(column) < number), None)
            if free is None:
                rails.append(rail)
            else:
                free |= rail
    width = max(map(len, rooms))
    lines = (_line([rail.get(number, " ") for rail in rails]) for number in range(len(rooms)))
    return "\n".join(f"{room:<{width}} {line}".rstrip() for room, line in zip(rooms, lines, strict=True))


def _without_implied(rooms: list[str], arrows: Arrows) -> dict[str, set[str]]:
    """What each room imports, without what it also reaches through another room."""
    drawn: dict[str, set[str]] = {}
    below: dict[str, set[str]] = {}
    for room in reversed(rooms):
        direct = {lower for upper, lower in arrows if upper == room}
        further = {far for near in direct for far in below[near]}
        drawn[room], below[room] = direct - further, direct | further
    return drawn


def _line(signs: list[str]) -> str:
    """From a room's name to the rails that begin or end at it; the other rails cross that line."""
    touched = [number for number, sign in enumerate(signs) if sign in "┐┤┘"]
    last = max(touched, default=-1)
    cells = ["─" + sign.replace(" ", "─") if number <= last else " " + sign for number, sign in enumerate(signs)]
    head = "◄" if set(signs) & set("┤┘") else "─" if touched else " "
    return head + "".join(cells)


def main(arguments: Sequence[str] | None = None, graph: grimp.ImportGraph | None = None) -> None:
    parser = argparse.ArgumentParser(description="Draws which rooms of the package import which.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", type=Path, metavar="PAGE", help="put the picture into this page")
    what.add_argument("--check", type=Path, metavar="PAGE", help="fail if this page has another picture")
    options = parser.parse_args(arguments)
    levels = read_levels((ROOT / "pyproject.toml").read_text())
    arrows = find_arrows(graph or import_graph())
    if found := problems(levels, arrows):
        sys.exit("\n".join(found))
    picture = draw(levels, arrows)
    page = options.write or options.check
    if not page:
        print(picture)
        return
    old = page.read_text()
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"{page} lacks a line of the two between which the picture stands:\n{BEGIN}\n{END}")
    new = f"{before}{begin}\n```\n{picture}\n```\n{end}{after}"
    if options.write:
        page.write_text(new)
    elif new != old:
        sys.exit(f"{page} shows other imports than there are; renew it: python tools/draw_imports.py --write {page}")


if __name__ == "__main__":
    main()
