"""The algebra of residual units: polynomials of Inception blocks.

A residual unit of PolyNet is a polynomial over *operators*: `I` is the identity and each of `F`, `G`, `H`, ... is an
Inception block with convolutions of its own. A product is a composition read from right to left (`GF` is G applied to
the output of F), so products do not commute. Sums commute.

Source: Zhang et al., "PolyNet: A Pursuit of Structural Diversity in Very Deep Networks", CVPR 2017, section 4.
"""

import re
import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass

from polynet_keras.basics.names import shown
from polynet_keras.models.near_notation import LONGEST, near_polynomial, plain_letters
from polynet_keras.models.terms import MAX_DEGREE, OPERATORS, by_degree, sum_of, with_powers

_FACTOR = re.compile(r"(?P<letter>\S)\s*(?P<power>\^\s*(?P<digits>\d*)|[²³])?")
_SUPERSCRIPTS = {"²": 2, "³": 3}


class PolynomialSyntaxError(ValueError):
    """Raised for an invalid polynomial or structure; the message marks the fault and shows the nearest valid text.

    Attributes:
        reason: the fault at that place.
        text: the whole text.
        position: 0-based index into `text` where the fault begins.
        accepted: what is accepted there, as a clause; `""` if the reason says it.
        suggestion: the nearest valid text; `None` if there is none.
    """

    def __init__(
        self,
        reason: str,
        text: str,
        position: int,
        accepted: str = "",
        suggestion: str | None = None,
        argument: str = "",
    ):
        self.reason = reason
        self.text = text
        self.position = position
        self.accepted = accepted
        self.suggestion = suggestion
        letter = text[position : position + 1]
        latin = plain_letters(letter)
        if latin != letter and latin.isalpha():
            reason += f" ('{letter}' is {unicodedata.name(letter, '?')}, not the Latin '{latin}')"
        before = text[:position] if position <= LONGEST else f"…{text[position - LONGEST : position]}"
        named = f"{argument}=" if argument else ""
        place = f"{named}'{shown(before)}»{shown(text[position:], LONGEST)}', column {position + 1}"
        meant = "" if suggestion is None else f"did you mean '{suggestion}'?"
        hint = f"{meant} {accepted[:1].upper()}{accepted[1:]}" if meant and accepted else meant or accepted
        super().__init__(f"{place}: {reason}{'; ' if hint else ''}{hint}")

    def with_suggestion(
        self,
        near: Callable[..., str | None],
        parse: Callable[[str], object],
        *names: Collection[str],
        argument: str = "",
    ) -> "PolynomialSyntaxError":
        """Returns the same fault with the text that `near` finds, if `parse` accepts it.

        Args:
            near: finds the nearest text, or `None`.
            parse: raises a `ValueError` if it does not accept a text.
            names: the names that `near` may choose from.
            argument: name of the argument that gave the text.
        """
        suggestion = near(self.text, *names) if len(self.text) <= LONGEST else None
        try:
            parse(suggestion or "")
        except ValueError:
            suggestion = None
        return PolynomialSyntaxError(self.reason, self.text, self.position, self.accepted, suggestion, argument)


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

    Examples:
        >>> polynomial = Polynomial.parse("I + F + GF")
        >>> polynomial.terms
        ('F', 'GF')
        >>> polynomial.name
        'mpoly-2'
    """

    terms: tuple[str, ...]

    def __post_init__(self):
        if isinstance(self.terms, str):
            raise ValueError(f"terms={self.terms!r} must be a sequence of terms; Polynomial.parse reads a text")
        object.__setattr__(self, "terms", tuple(by_degree(self.terms)))
        if not self.terms:
            raise ValueError(f"a polynomial needs a term besides I; known operators are {', '.join(OPERATORS)}")
        introduced = ""
        for number, term in enumerate(self.terms):
            if not term or set(term) - set(OPERATORS) or len(term) > MAX_DEGREE:
                raise _TermError(f"{term!r} is not a product of 1 to {MAX_DEGREE} of {', '.join(OPERATORS)}", term)
            if term in self.terms[:number]:
                raise _TermError(f"the term {with_powers(term)} appears twice", term)
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
        try:
            return parse_module(text)
        except PolynomialSyntaxError as error:
            raise error.with_suggestion(near_polynomial, parse_module, NAMED) from None

    @property
    def applications(self) -> tuple[str, ...]:
        """Every composition to compute, each after the composition that is its input.

        Each is a suffix of a term (a term applies its last letter first). A suffix that terms share is listed, and
        computed, once: `I + F + GF` gives `("F", "GF")`.
        """
        suffixes = {term[i:] for term in self.terms for i in range(len(term))}
        return tuple(by_degree(suffixes))

    @property
    def operators(self) -> str:
        """The letters used, in order: each one is an Inception block with its own convolutions."""
        return "".join(sorted(set("".join(self.terms)), key=OPERATORS.index))

    @property
    def name(self) -> str:
        """The module's name in the paper (`"mpoly-2"`), or the canonical sum if it has none."""
        return next((name for name, polynomial in NAMED.items() if polynomial == self), str(self))

    def __str__(self) -> str:
        return sum_of(self.terms)


class _TermError(ValueError):
    """A fault of one term of a sum."""

    def __init__(self, reason: str, term: str):
        self.term = term
        super().__init__(reason)


def parse_module(text: str) -> Polynomial:
    """Parses as `Polynomial.parse` does, without a suggestion.

    Raises:
        PolynomialSyntaxError: the text is neither a name nor a sum.
    """
    name = text.strip().lower()
    if name in NAMED:
        return NAMED[name]
    start = len(text) - len(text.lstrip())
    if re.fullmatch(r"\w+(-\w+)+|\w*[^\W\d_A-Z]{2}\w*", plain_letters(name)):
        known = f"a module is {', '.join(NAMED)}, or a polynomial such as I + F + GF"
        raise PolynomialSyntaxError(f"unknown module '{shown(text.strip(), LONGEST)}'", text, start, known)
    return _parse_sum(text)


def _parse_sum(text: str) -> Polynomial:
    positions: dict[str, int] = {}  # of each term; "" is the identity
    position = 0
    for summand in text.split("+"):
        start = position + len(summand) - len(summand.lstrip())
        term = _parse_term(text, start, position + len(summand.rstrip()))
        if term in positions:
            repeated = f"the term {with_powers(term)}" if term else "I"
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
    """Returns the operators of the term in `text[start:end]`, powers written out; `""` for the identity."""
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
            unknown = "unknown letter" if letter.isalpha() else "unexpected"
            reason = "a polynomial has no brackets" if letter in "()[]{}" else f"{unknown} '{shown(letter)}'"
            accepted = f"a term is I, or a product of {', '.join(OPERATORS)}"
            raise PolynomialSyntaxError(reason, text, factor.start(), accepted)
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
