import sys
import xml.etree.ElementTree as ElementTree

import pytest

from polynet_keras.models.cost import network_cost
from polynet_keras.models.polynomial import NAMED, Polynomial
from polynet_keras.models.structure import STRUCTURES
from tools import draw_modules
from tools.draw_modules import COLOURS, PICTURES, UNITS, draw_network, draw_units, main, rows_of

SVG = "{http://www.w3.org/2000/svg}"


def test_the_pictures_are_those_of_the_code(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["draw_modules.py"])
    main()
    monkeypatch.setattr(draw_modules, "FOLDER", tmp_path)
    with pytest.raises(SystemExit, match=r"modules.svg is out of date; renew it: python tools/draw_modules.py --write"):
        main()
    monkeypatch.setattr(sys, "argv", ["draw_modules.py", "--write"])
    main()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {n: draw() for n, draw in PICTURES.items()}


def test_the_units_are_every_named_one_and_another():
    assert set(NAMED) < set(UNITS)
    root = ElementTree.fromstring(draw_units())
    blocks = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "block"]
    assert "".join(blocks) == "F" + "FG" + "FGH" + "FF" + "FG" + "FFG" + "FFF" + "FGH"


def test_the_plan_has_a_small_block_for_every_application():
    root = ElementTree.fromstring(draw_network())
    colours = [rect.get("fill") for rect in root.iter(f"{SVG}rect")]
    applications = [
        application[0]
        for stage in STRUCTURES["polynet-g5"].stages
        for module in stage
        for application in module.applications
    ]
    assert colours == [COLOURS[letter] for letter in applications]
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert [part.name for part in network_cost("polynet-g5")] == [text for text in texts if text.split()[0] in PARTS]
    assert "19 × 19 × 1,152" in texts
    assert "10 × [poly-3, 2-way]" in texts


PARTS = ("stem", "stage", "reduction", "head")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("poly-3", {"F": 0, "FF": 0, "FFF": 0}),
        ("3-way", {"F": 0, "G": 1, "H": 2}),
        ("I + F + G + HF", {"F": 0, "G": 1, "HF": 0}),
        ("I + F + FF + GF", {"F": 0, "FF": 0, "GF": 1}),
    ],
)
def test_a_branch_has_a_row_of_its_own(text, rows):
    assert rows_of(Polynomial.parse(text)) == rows
