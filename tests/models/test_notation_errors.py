"""Wrong notations: what is said of each, word for word, and the nearest notation that it suggests."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polynet_keras.models.polynomial import Polynomial, PolynomialSyntaxError
from polynet_keras.models.structure import Structure

PARSERS = {"structure": Structure.parse, "polynomial": Polynomial.parse}
LINES = Path(__file__).with_name("notation_errors.txt").read_text(encoding="utf-8").splitlines()
CASES = [(*line.split(": ", 1), message[4:]) for line, message in zip(LINES[::2], LINES[1::2], strict=True)]


def test_the_table_is_long():
    assert len(CASES) >= 40


@pytest.mark.parametrize(("kind", "text", "message"), CASES)
def test_a_wrong_notation_is_answered_with_the_place_and_the_nearest_one(kind, text, message):
    with pytest.raises(PolynomialSyntaxError) as info:
        PARSERS[kind](text)
    assert str(info.value) == message
    if info.value.suggestion is not None:
        PARSERS[kind](info.value.suggestion)


@pytest.mark.parametrize("text", ["2 × [ir] | 1×[I + F + F²]|1 x [I+F+F³]", "2x[ir]|1x[ir]|1x[ir]"])
def test_signs_that_editors_put_in_are_read(text):
    Structure.parse(text)


@given(st.sampled_from(sorted(PARSERS)), st.text(alphabet="IFGQfir-2^²³+|[](){}x×,; х", max_size=40))
def test_a_suggestion_is_valid_whatever_was_written(kind, text):
    try:
        PARSERS[kind](text)
    except PolynomialSyntaxError as fault:
        suggestion = fault.suggestion
    else:
        return
    if suggestion is not None:
        PARSERS[kind](suggestion)


@pytest.mark.parametrize("text", ["()^999999999999", "I^999999999999", "(" * 150, "(F+G)^99", "9" * 5000, "[" * 9999])
def test_a_hostile_text_is_refused_at_once(text):
    for parse in PARSERS.values():
        with pytest.raises(PolynomialSyntaxError):
            parse(text)


def test_a_long_text_is_shown_around_the_fault():
    text = f"1 x [{', '.join(['ir'] * 400)}, Q] | 1 x [ir] | 1 x [ir]"
    with pytest.raises(PolynomialSyntaxError) as info:
        Structure.parse(text)
    assert re.search(r"'….{200}»Q\] \| 1 x \[ir\] \| 1 x \[ir\]'", str(info.value))
    assert info.value.suggestion is None


def test_notations_are_read_without_keras():
    code = "import sys, polynet_keras.models.structure; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_powers_of_powers_end_soon():
    with pytest.raises(PolynomialSyntaxError, match="no brackets"):
        Polynomial.parse("I + (((F^150)^150)^150)^150")
