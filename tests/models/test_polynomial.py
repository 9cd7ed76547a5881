import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from polynet_keras.models.polynomial import MAX_DEGREE, NAMED, OPERATORS, Polynomial, PolynomialSyntaxError


@st.composite
def polynomials(draw):
    """Any polynomial: random terms, their letters renamed until they are in the order of their introduction."""
    terms = draw(st.sets(st.text("FGHJ", min_size=1, max_size=4), min_size=1, max_size=5))
    for _ in range(10):  # renaming can change the order of the terms, and with it that of the letters
        ordered = sorted(terms, key=lambda term: (len(term), term[::-1]))
        letters = "".join(dict.fromkeys("".join(term[::-1] for term in ordered)))
        terms = {term.translate(str.maketrans(letters, OPERATORS[: len(letters)])) for term in ordered}
    try:
        return Polynomial(tuple(draw(st.permutations(sorted(terms)))))
    except ValueError:
        reject()


@given(polynomials())
def test_parse_of_print_is_the_identity(polynomial):
    assert Polynomial.parse(str(polynomial)) == polynomial
    assert str(Polynomial.parse(str(polynomial))) == str(polynomial)


@given(polynomials(), st.randoms())
def test_order_of_terms_does_not_matter(polynomial, random):
    shuffled = random.sample(polynomial.terms, len(polynomial.terms))
    assert Polynomial(tuple(shuffled)) == polynomial
    assert hash(Polynomial(tuple(shuffled))) == hash(polynomial)


@given(st.text(alphabet="IFGHQ +^²³0129", max_size=20))
def test_any_text_parses_or_is_refused_with_a_position(text):
    try:
        polynomial = Polynomial.parse(text)
    except PolynomialSyntaxError as fault:
        error = fault
    else:
        assert Polynomial.parse(str(polynomial)) == polynomial
        return
    assert 0 <= error.position <= len(text)
    assert "»" in str(error)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ir", "I + F"),
        ("poly-2", "I + F + F^2"),
        ("poly-3", "I + F + F^2 + F^3"),
        ("mpoly-2", "I + F + GF"),
        ("mpoly-3", "I + F + GF + HGF"),
        ("2-way", "I + F + G"),
        ("3-way", "I + F + G + H"),
    ],
)
def test_named_modules_are_those_of_the_paper(name, text):
    assert str(Polynomial.parse(name)) == text
    assert Polynomial.parse(text).name == name
    assert Polynomial.parse(f" {name.upper()} ") is NAMED[name]
    assert set(NAMED) == {"ir", "poly-2", "poly-3", "mpoly-2", "mpoly-3", "2-way", "3-way"}


@pytest.mark.parametrize("text", ["F^2 + F + I", "I+F+FF", "I + F + F²", " I +  F + F ^ 2 ", "I + F^1 + F^0002"])
def test_ways_to_write_one_polynomial(text):
    assert Polynomial.parse(text) == NAMED["poly-2"]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("I + F + F² + F³", ("F", "FF", "FFF")),
        ("I + F + G³F²", ("F", "GGGFF")),
        ("I + F + G^3F^2", ("F", "GGGFF")),
        (f"I + F^{MAX_DEGREE}", ("F" * MAX_DEGREE,)),
        ("I + F" + "F" * (MAX_DEGREE - 1), ("F" * MAX_DEGREE,)),
        ("I + F + G + H + J + K + L + M + N", ("F", "G", "H", "J", "K", "L", "M", "N")),
    ],
)
def test_a_text_is_read_as_its_terms(text, terms):
    polynomial = Polynomial.parse(text)
    assert polynomial.terms == terms
    assert Polynomial(terms) == polynomial
    assert Polynomial.parse(str(polynomial)) == polynomial


def test_the_paper_and_more():
    """The paper composes three blocks and uses three; how much more is accepted is said in the documentation."""
    assert MAX_DEGREE == 8
    assert OPERATORS == "FGHJKLMN"  # `I` is the identity


def test_terms_are_in_the_order_of_degree_and_then_of_what_is_applied_first():
    assert Polynomial.parse("I + HGF + FG + GF + FF + G + F").terms == ("F", "G", "FF", "GF", "FG", "HGF")
    assert Polynomial.parse("I + F + FGF + GFF").terms == ("F", "GFF", "FGF")  # F, F, G comes before F, G, F


def test_a_polynomial_without_a_name_is_called_by_its_sum():
    assert Polynomial.parse("I + FF").name == "I + F^2"


def test_products_do_not_commute():
    assert Polynomial.parse("I + F + G + GF") != Polynomial.parse("I + F + G + FG")


def test_applications_share_suffixes_and_come_after_their_inputs():
    polynomial = Polynomial.parse("I + JGF + HGF + F")
    assert polynomial.applications == ("F", "GF", "HGF", "JGF")
    assert polynomial.operators == "FGHJ"
    assert Polynomial.parse("I + F + G + GF + FG").applications == ("F", "G", "GF", "FG")
    assert Polynomial.parse("I + F + GFF + FGF").applications == ("F", "FF", "GF", "GFF", "FGF")


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "expected a term"),
        ("I + F +", 7, "expected a term"),
        ("I + + F", 4, "expected a term"),
        ("I + F + Q", 8, "unknown letter 'Q'"),
        ("I + F + GQ", 9, "unknown letter 'Q'"),
        ("I + f", 4, "unknown letter 'f'"),
        ("I + F^", 5, "power"),
        ("I + F^0", 5, "power"),
        (f"I + F^{MAX_DEGREE + 1}", 5, "power"),
        ("I + F^0010", 5, "power"),
        ("I + F^100", 5, "power"),
        ("I + F^123456789012", 5, "power"),
        ("I + F" + "F" * MAX_DEGREE, 4, f"at most {MAX_DEGREE} blocks"),
        ("I + F^5F^5", 4, f"at most {MAX_DEGREE} blocks"),
        ("I + F + FI", 9, "I stands alone"),
        ("I + F + I", 8, "I appears twice"),
        ("I + F + F", 8, "F appears twice"),
        ("F + GF", 0, "must have the term I"),
        ("I", 1, "a term besides I"),
        ("I + G", 4, "G comes where F is due"),
        ("I + F + H", 8, "in the order F, G, H"),
        ("I + F + HF", 8, "H comes where G is due"),
        ("poly-4", 0, "unknown module 'poly-4'"),
    ],
)
def test_a_fault_is_named_with_its_position(text, position, reason):
    with pytest.raises(PolynomialSyntaxError, match="column") as info:
        Polynomial.parse(text)
    assert (info.value.text, info.value.position) == (text, position)
    assert reason in info.value.reason
    assert reason in str(info.value)


def test_terms_are_checked_without_parsing():
    for term in ("FX", "", "I", "F" * (MAX_DEGREE + 1)):
        with pytest.raises(ValueError, match=f"^'{term}' is not a product of 1 to {MAX_DEGREE} of F, G, H"):
            Polynomial(("F", term))
    with pytest.raises(ValueError, match="appears twice"):
        Polynomial(("F", "F"))
    with pytest.raises(ValueError, match=r"Polynomial.parse reads a text"):
        Polynomial("GF")
    with pytest.raises(ValueError, match="is a text"):
        Polynomial.parse(3)
