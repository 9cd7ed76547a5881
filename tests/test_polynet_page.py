"""The numbers of docs/polynet.md are those of the code."""

import math
import re
from pathlib import Path

from polynet_keras.models import Polynomial, network_cost
from polynet_keras.models.polynomial import NAMED
from polynet_keras.models.structure import STRUCTURES

PAGE = (Path(__file__).parents[1] / "docs" / "polynet.md").read_text()


def rows(names):
    """The cells after the name, of the rows that begin with one of the names."""
    lines = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| `")]
    return {name.strip(" `"): [cell.strip(" `") for cell in rest] for name, *rest in lines if name.strip(" `") in names}


def test_the_table_of_units():
    assert set(rows(NAMED)) == set(NAMED)
    for name, (text, blocks, letters, longest, parameters, macs) in rows(NAMED).items():
        unit, cost = NAMED[name], network_cost(f"1 x [ir] | 1 x [{name}] | 1 x [ir]")[3]
        assert Polynomial.parse(text) == unit
        assert (int(blocks), int(letters)) == (len(unit.applications), len(unit.operators))
        assert int(longest) == max(map(len, unit.terms))
        assert (parameters, macs) == (f"{cost.parameters:,}", f"{cost.macs / 1e6:,.0f} M")


def test_the_table_of_paths():
    assert set(rows(STRUCTURES)) == set(STRUCTURES)
    for name, (*counts, paths) in rows(STRUCTURES).items():
        units = [unit for stage in STRUCTURES[name].stages for unit in stage]
        assert list(map(int, counts)) == [
            len(units),
            sum(len(unit.applications) for unit in units),
            sum(len(unit.operators) for unit in units),
            sum(max(map(len, unit.terms)) for unit in units),
        ]
        number, exponent = paths.split(" · 10")
        exponent = int(exponent.translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")))
        assert number == f"{math.prod(len(unit.terms) + 1 for unit in units) / 10**exponent:.1f}"


def test_the_parameters_with_shared_projections():
    shared, own = re.search(r"has ([\d,]+) trainable parameters instead of ([\d,]+)", PAGE.replace("\n", " ")).groups()
    for text, share in ((shared, True), (own, False)):
        assert text == f"{sum(part.parameters for part in network_cost('polynet-g5', share_projection=share)):,}"
