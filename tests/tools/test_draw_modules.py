import sys
import xml.etree.ElementTree as ElementTree

import pytest

from polynet_keras.models.polynomial import Polynomial
from tools import draw_modules
from tools.draw_modules import PICTURE, UNITS, draw, main, rows_of


def test_the_picture_is_that_of_the_notation(monkeypatch, tmp_path):
    assert PICTURE.read_text() == draw()
    root = ElementTree.fromstring(draw())
    blocks = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text") if text.get("class") == "block"]
    assert "".join(blocks) == "F" + "FF" + "FG" + "FG" + "FFF" + "FGH"
    assert len(UNITS) == 6
    monkeypatch.setattr(sys, "argv", ["draw_modules.py"])
    main()
    monkeypatch.setattr(draw_modules, "PICTURE", tmp_path / "modules.svg")
    (tmp_path / "modules.svg").write_text("<svg/>")
    with pytest.raises(SystemExit, match=r"modules.svg is out of date; renew it: python tools/draw_modules.py --write"):
        main()


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
