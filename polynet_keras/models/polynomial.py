"""The algebra of residual units: polynomials of Inception blocks.

A residual unit of PolyNet is a polynomial over *operators*: `I` is the identity and each of `F`, `G`, `H`, ...
is an Inception block with convolutions of its own. A product is a composition read from right to left (`GF` is G
applied to the output of F), so products do not commute; a sum does.

Source: Zhang et al., "PolyNet: A Pursuit of Structural Diversity in Very Deep Networks", CVPR 2017, section 4.
"""

import re
from dataclasses import dataclass
from itertools import groupby

OPERATORS = "FGHJKLMN"
"""The letters of Inception blocks, in the order in which a polynomial must introduce them. `I` is the identity."""

MAX_DEGREE = 8
"""The longest composition that is accepted: the paper stops at 3."""

_FACTOR = re.compile(r"(?P<letter>\S)\s*(?P<power>\^\s*(?P<digits>\d*)|[²³])?")
_SUPERSCRIPTS = {"²": 2, "³": 3}


class PolynomialSyntaxError(ValueError):
    """A text that is no polynomial or structure; the message shows the text and marks the fault.

    Attributes:
        text: the whole text.
        position: 0-based index into `text` where the fault begins.
    """

    def __init__(self, reason: str, text: str, position: int):
        self.reason = reason
        self.text = text
        self.position = position
        super().__init__(f"{reason} (at position {position}, marked by »: {text[:position]}»{text[position:]})")


@dataclass(frozen=True)
class Polynomial:
    """A residual unit `I + T1 + ... + Tk`, as a value.

    Two polynomials are equal when they sum the same terms, in whatever order they were given. `str()` gives the
    canonical text and `Polynomial.parse(str(p)) == p`.

    Args:
        terms: the terms besides the identity, each a string of operator letters in writing order: `"GF"` is G
            applied to F's output, `"FF"` is F².

    Raises:
        ValueError: no term, a text in place of terms, a repeated term, a letter outside `OPERATORS`, a term longer than
            `MAX_DEGREE`, or letters that are not introduced in the order F, G, H, ...
    """

    terms: tuple[str, ...]

    def __post_init__(self):
        if isinstance(self.terms, str):
            raise ValueError(f"terms={self.terms!r} must be a sequence of terms; Polynomial.parse reads a text")
        # Sorted by degree, then by the letters as they are applied: F, G, FF, GF (which applies F first), HGF.
        object.__setattr__(self, "terms", tuple(sorted(self.terms, key=lambda term: (len(term), term[::-1]))))
        if not self.terms:
            raise ValueError(f"a polynomial needs a term besides I; known operators are {', '.join(OPERATORS)}")
        introduced = ""
        for number, term in enumerate(self.terms):
            if not term or set(term) - set(OPERATORS) or len(term) > MAX_DEGREE:
                raise _TermError(f"{term!r} is not a product of 1 to {MAX_DEGREE} of {', '.join(OPERATORS)}", term)
            if term in self.terms[:number]:
                raise _TermError(f"the term {_with_powers(term)} appears twice", term)
            for letter in reversed(term):
                if letter in introduced:
                    continue
                if letter != OPERATORS[len(introduced)]:
                    order = f"letters must be introduced in the order {', '.join(OPERATORS)}"
                    raise _TermError(f"{order}; {letter} comes where {OPERATORS[len(introduced)]} is due", term)
                introduced += letter

    @classmethod
    def parse(cls, text: str) -> "Polynomial":
        """Reads a name of `NAMED` (`"poly-3"`) or a sum such as `"I + F + GF"`, `"I + F + F^2"`.

        Raises:
            PolynomialSyntaxError: the text is neither; the message marks the position of the fault.
        """
        if not isinstance(text, str):
            raise ValueError(f"a polynomial is a text such as 'I + F + GF'; got {text!r}")
        name = text.strip().lower()
        return NAMED[name] if name in NAMED else _parse_sum(text)

    @property
    def applications(self) -> tuple[str, ...]:
        """Every composition that has to be computed, inputs before the compositions built on them.

        Each is a suffix of a term (a term applies its last letter first); a suffix that terms share is listed,
        and so computed, once: `I + F + GF` gives `("F", "GF")`.
        """
        suffixes = {term[i:] for term in self.terms for i in range(len(term))}
        return tuple(sorted(suffixes, key=lambda term: (len(term), term[::-1])))

    @property
    def operators(self) -> str:
        """The letters used, in order: each one is an Inception block with its own convolutions."""
        return "".join(sorted(set("".join(self.terms)), key=OPERATORS.index))

    @property
    def name(self) -> str:
        """The module's name in the paper where it has one (`"mpoly-2"`), else the canonical sum."""
        return next((name for name, polynomial in NAMED.items() if polynomial == self), str(self))

    def __str__(self) -> str:
        return " + ".join(["I", *map(_with_powers, self.terms)])


def _with_powers(term: str) -> str:
    runs = ((letter, len(list(run))) for letter, run in groupby(term))
    return "".join(letter if length == 1 else f"{letter}^{length}" for letter, length in runs)


class _TermError(ValueError):
    """A fault of one term of a sum."""

    def __init__(self, reason: str, term: str):
        self.term = term
        super().__init__(reason)


def _parse_sum(text: str) -> Polynomial:
    positions: dict[str, int] = {}  # of each term; "" is the identity
    position = 0
    for summand in text.split("+"):
        start = position + len(summand) - len(summand.lstrip())
        term = _parse_term(text, start, position + len(summand.rstrip()))
        if term in positions:
            repeated = f"the term {_with_powers(term)}" if term else "I"
            raise PolynomialSyntaxError(f"{repeated} appears twice", text, start)
        positions[term] = start
        position += len(summand) + 1
    if "" not in positions:
        raise PolynomialSyntaxError("a residual unit keeps its input: the sum must have the term I", text, 0)
    try:
        return Polynomial(tuple(term for term in positions if term))
    except _TermError as error:
        raise PolynomialSyntaxError(str(error), text, positions[error.term]) from None
    except ValueError as error:  # nothing but I: what is missing is missing at the end
        raise PolynomialSyntaxError(str(error), text, len(text)) from None


def _parse_term(text: str, start: int, end: int) -> str:
    """The operators of the term in `text[start:end]`, powers written out; `""` for the identity."""
    if start >= end:
        raise PolynomialSyntaxError("expected a term such as F, GF or F^2", text, min(start, len(text)))
    letters = ""
    for factor in _FACTOR.finditer(text, start, end):
        letter = factor["letter"]
        if letter == "I":
            if text[start:end] != "I":
                raise PolynomialSyntaxError("I stands alone: it is the identity", text, factor.start())
            return ""
        if letter not in OPERATORS:
            expected = f"expected I or one of the operators {', '.join(OPERATORS)}"
            raise PolynomialSyntaxError(f"unknown letter {letter!r}: {expected}", text, factor.start())
        # Two digits, without zeros before them, are over the bound already: the others are not read.
        digits = factor["digits"]
        power = _SUPERSCRIPTS.get(factor["power"], 1) if digits is None else int(digits.lstrip("0")[:2] or 0)
        if not 1 <= power <= MAX_DEGREE:
            fault = factor.start("power")
            raise PolynomialSyntaxError(f"the power after ^ must be between 1 and {MAX_DEGREE}", text, fault)
        letters += letter * power
        if len(letters) > MAX_DEGREE:
            raise PolynomialSyntaxError(f"a term applies at most {MAX_DEGREE} blocks", text, start)
    return letters


NAMED = {
    "ir": Polynomial(("F",)),
    "poly-2": Polynomial(("F", "FF")),
    "poly-3": Polynomial(("F", "FF", "FFF")),
    "mpoly-2": Polynomial(("F", "GF")),
    "mpoly-3": Polynomial(("F", "GF", "HGF")),
    "2-way": Polynomial(("F", "G")),
    "3-way": Polynomial(("F", "G", "H")),
}
"""The modules of the paper by name; `ir` is the unit of Inception-ResNet, `I + F`."""
