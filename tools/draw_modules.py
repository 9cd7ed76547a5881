"""Draws the residual units from their polynomials, and the released network from its structure, as SVG.

python tools/draw_modules.py --write

Without `--write` it checks that the pictures in docs/ are those of today's notation, tables and costs.
"""

import argparse
import sys
from pathlib import Path

from polynet_keras.models.cost import StageCost, network_cost
from polynet_keras.models.polynomial import Polynomial
from polynet_keras.models.structure import STAGES, STRUCTURES

FOLDER = Path(__file__).parents[1] / "docs"
UNITS = ("ir", "2-way", "3-way", "poly-2", "mpoly-2", "I + F + F^2 + GF", "poly-3", "mpoly-3")
COLUMNS = 3
WIDTH, ROW, HEAD = 300, 44, 62
"""Of a unit: its width, the height of a row, and of its caption with the identity."""
BOX, STEP, FIRST = 34, 62, 64
"""Side of a block, from one to the next, and where the first one begins, in pixels."""
COLOURS = {"F": "#4051b5", "G": "#00796b", "H": "#b25d00"}
LEGEND = ("Equal letters share their", "convolutions. The line above", "the blocks is the identity.")

NETWORK = "polynet-g5"
TILE, GAP, LINE, COLUMN = 11, 9, 312, (14, 150, 590, 700, 800)
"""Of the network's picture: side of a block, space between units, width of a line of units, and the columns' edges: the
left ones of the names and the units, the right ones of the numbers."""

STYLE = (
    "svg{background:#fff}path{fill:none;stroke:#555;stroke-width:1.6}circle{fill:#fff;stroke:#555;stroke-width:1.6}"
    "text{font-family:sans-serif;font-size:15px;fill:#222}.name{font-weight:bold}.right{text-anchor:end}"
    ".block{fill:#fff;text-anchor:middle;font-size:17px}.small{font-size:13px}"
    # The ground changes too: a page may be dark where the system is light, and the other way round.
    "@media(prefers-color-scheme:dark){svg{background:#1e2129}path,circle{stroke:#aaa}circle{fill:#1e2129}"
    "text{fill:#ddd}.block{fill:#fff}}"
)


def rows_of(polynomial: Polynomial) -> dict[str, int]:
    """The row of each application: a chain stays in its row, and a branch gets one of its own."""
    rows: dict[str, int] = {}
    used = 0
    for application in polynomial.applications:
        before = application[1:]
        continues = before and not any(other[1:] == before for other in rows)
        rows[application] = rows[before] if continues else used
        used += not continues
    return rows


def powers(polynomial: Polynomial) -> str:
    """The sum as the paper writes it."""
    return str(polynomial).replace("^2", "²").replace("^3", "³")


def unit(polynomial: Polynomial, left: float, top: float) -> list[str]:
    """The lines of one unit, whose corner is at (left, top)."""
    rows = rows_of(polynomial)
    name = polynomial.name if polynomial.name != str(polynomial) else "any other"
    identity, end = top + HEAD, left + WIDTH - 44
    lines = [
        f'<text class="name" x="{left + 14}" y="{top + 24}">{name}</text>',
        f'<text class="right" x="{left + WIDTH - 14}" y="{top + 24}">{powers(polynomial)}</text>',
        f'<path d="M{left + 14} {identity}H{end - 11}"/>',
        f'<path class="out" d="M{end + 11} {identity}H{end + 34}"/>',
    ]
    for application, row in rows.items():
        x, y = left + FIRST + STEP * (len(application) - 1), identity + ROW * (row + 1)
        if len(application) == 1:
            lines.append(f'<path d="M{left + 30} {identity}V{y}H{x}"/>')
        else:
            before = identity + ROW * (rows[application[1:]] + 1)
            lines.append(f'<path d="M{x - STEP + BOX} {before}H{x - 14}V{y}H{x}"/>')
        if application in polynomial.terms:
            goes_on = any(other[1:] == application for other in rows)
            lane = y - ROW / 2 + 2 - 7 * (len(application) - 1) if goes_on else y  # above the row, apart from others
            lines.append(f'<path d="M{x + BOX + 8 * goes_on} {y}V{lane:g}H{end}V{identity + 11}"/>')
        letter = application[0]
        lines.append(f'<rect x="{x}" y="{y - BOX / 2}" width="{BOX}" height="{BOX}" rx="6" fill="{COLOURS[letter]}"/>')
        lines.append(f'<text class="block" x="{x + BOX / 2}" y="{y + 6}">{letter}</text>')
    lines.append(f'<circle cx="{end}" cy="{identity}" r="11"/>')
    lines.append(f'<path d="M{end - 5} {identity}H{end + 5}M{end} {identity - 5}V{identity + 5}"/>')
    return lines


def document(lines: list[str], width: float, height: float, about: str) -> str:
    size = f'viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{about}">'
    return "\n".join([opening, f"<style>{STYLE}</style>", *lines, "</svg>\n"])


def draw_units() -> str:
    """The picture of all units."""
    lines, top = [], 0.0
    polynomials = [Polynomial.parse(text) for text in UNITS]
    for start in range(0, len(polynomials), COLUMNS):
        row = polynomials[start : start + COLUMNS]
        for place, polynomial in enumerate(row):
            lines += unit(polynomial, place * WIDTH, top)
        for number, text in enumerate(LEGEND if len(row) < COLUMNS else ()):
            lines.append(
                f'<text class="small" x="{len(row) * WIDTH + 14}" y="{top + HEAD + 22 * number}">{text}</text>'
            )
        top += HEAD + ROW * (1 + max(max(rows_of(polynomial).values()) for polynomial in row)) + ROW
    about = "Residual units as polynomials of Inception blocks: one letter is one block with weights of its own."
    return document(lines, COLUMNS * WIDTH, top, about)


def small_units(modules: tuple[Polynomial, ...], top: float) -> tuple[list[str], float]:
    """The units of a stage as small blocks, and the height that they take."""
    lines, left, line_height = [], COLUMN[1], 0
    for module in modules:
        rows = rows_of(module)
        width, height = TILE * max(map(len, rows)), TILE * (max(rows.values()) + 1)
        if left + width > COLUMN[1] + LINE:
            left, top, line_height = COLUMN[1], top + line_height + GAP, 0
        for application, row in rows.items():
            x, y = left + TILE * (len(application) - 1), top + TILE * row
            colour = COLOURS[application[0]]
            lines.append(f'<rect x="{x}" y="{y:g}" width="{TILE - 1}" height="{TILE - 1}" rx="2" fill="{colour}"/>')
        left, line_height = left + width + GAP, max(line_height, height)
    return lines, top + line_height


def part_lines(part: StageCost, modules: tuple[Polynomial, ...], top: float) -> tuple[list[str], float]:
    """One part of the network: name, units, size of the output, parameters, multiply-accumulates."""
    numbers = (
        " × ".join(f"{side:,}" for side in part.output_shape),
        f"{part.parameters / 1e6:.2f} M",
        f"{part.macs / 1e9:.2f} G" if part.macs > 1e8 else f"{part.macs / 1e6:.0f} M",
    )
    lines = [f'<text class="name" x="{COLUMN[0]}" y="{top + 22:g}">{part.name}</text>']
    for right, number in zip(COLUMN[2:], numbers, strict=True):
        lines.append(f'<text class="right" x="{right}" y="{top + 22:g}">{number}</text>')
    bottom = top + 34
    if modules:
        lines.append(f'<text class="small" x="{COLUMN[0]}" y="{top + 42:g}">{len(modules)} units</text>')
        lines.append(f'<text x="{COLUMN[1]}" y="{top + 22:g}">{part.modules.replace(" x ", " × ")}</text>')
        blocks, end = small_units(modules, top + 34)
        lines += blocks
        bottom = max(end + 14, top + 54)
    return lines, bottom


def draw_network() -> str:
    """The plan of the released network, from the image to the classes."""
    structure = STRUCTURES[NETWORK]
    stages = {f"stage {stage.upper()}": modules for stage, modules in zip(STAGES, structure.stages, strict=True)}
    heads = ("output at 331 px", "parameters", "MACs")
    lines = [
        f'<text class="small right" x="{right}" y="22">{head}</text>'
        for right, head in zip(COLUMN[2:], heads, strict=True)
    ]
    top = 32.0
    for part in network_cost(structure):
        lines.append(f'<path d="M{COLUMN[0]} {top:g}H{COLUMN[-1]}" opacity=".4"/>')
        added, top = part_lines(part, stages.get(part.name, ()), top)
        lines += added
    about = f"The plan of {NETWORK}: its stages with their units, sizes, parameters and multiply-accumulates."
    return document(lines, COLUMN[-1] + COLUMN[0], top + 6, about)


PICTURES = {"modules.svg": draw_units, "plan.svg": draw_network}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the pictures")
    arguments = parser.parse_args()
    for name, draw in PICTURES.items():
        if arguments.write:
            (FOLDER / name).write_text(draw())
        elif not (FOLDER / name).exists() or (FOLDER / name).read_text() != draw():
            sys.exit(f"{name} is out of date; renew it: python tools/draw_modules.py --write")


if __name__ == "__main__":
    main()
