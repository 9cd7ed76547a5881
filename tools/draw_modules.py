"""Draws residual units from their polynomials, as SVG.

python tools/draw_modules.py --write docs/modules.svg

Without `--write` it checks that the file is the drawing of today's notation.
"""

import argparse
import sys
from pathlib import Path

from polynet_keras.models.polynomial import NAMED, Polynomial

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "modules.svg"
UNITS = ("ir", "poly-2", "mpoly-2", "2-way", "poly-3", "3-way")
COLUMNS = 3
WIDTH, ROW, HEAD = 300, 44, 62
"""Of a unit: its width, the height of a row, and of its caption with the identity."""
BOX, STEP, FIRST = 34, 62, 64
"""Side of a block, from one to the next, and where the first one begins, in pixels."""
COLOURS = {"F": "#4051b5", "G": "#00796b", "H": "#b25d00"}


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


def unit(name: str, left: float, top: float) -> list[str]:
    """The lines of one unit, whose corner is at (left, top)."""
    polynomial, rows = NAMED[name], rows_of(NAMED[name])
    identity, end = top + HEAD, left + WIDTH - 44
    lines = [
        f'<text class="name" x="{left + 14}" y="{top + 24}">{name}</text>',
        f'<text class="sum" x="{left + WIDTH - 14}" y="{top + 24}">{powers(polynomial)}</text>',
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


def draw() -> str:
    """The picture of all units."""
    lines, top = [], 0.0
    for start in range(0, len(UNITS), COLUMNS):
        names = UNITS[start : start + COLUMNS]
        for place, name in enumerate(names):
            lines += unit(name, place * WIDTH, top)
        top += HEAD + ROW * (1 + max(max(rows_of(NAMED[name]).values()) for name in names)) + ROW
    style = (
        "svg{background:#fff}path{fill:none;stroke:#555;stroke-width:1.6}circle{fill:#fff;stroke:#555;stroke-width:1.6}"
        "text{font-family:sans-serif;font-size:15px;fill:#222}.name{font-weight:bold}.sum{text-anchor:end}"
        ".block{fill:#fff;text-anchor:middle;font-size:17px}"
    )
    size = f'viewBox="0 0 {COLUMNS * WIDTH} {top:g}" width="{COLUMNS * WIDTH}" height="{top:g}"'
    about = "Residual units as polynomials of Inception blocks: one letter is one block with weights of its own."
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{about}">',
            f"<style>{style}</style>",
            *lines,
            "</svg>\n",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.write:
        arguments.write.write_text(draw())
    elif PICTURE.read_text() != draw():
        sys.exit(f"{PICTURE.name} is out of date; renew it: python tools/draw_modules.py --write docs/modules.svg")


if __name__ == "__main__":
    main()
