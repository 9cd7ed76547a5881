"""Guesses what a wrong notation means: the nearest text in the form of a polynomial or a structure.

This module does not decide what is valid: `polynomial` and `structure` suggest only texts that they can parse.
"""

import difflib
import re
import unicodedata
from collections.abc import Collection

from polynet_keras.models.terms import OPERATORS, by_degree, introduced, sum_of

LONGEST = 200
"""The most characters of a text that gets a suggestion, and of its products once multiplied out."""

_LOOK_ALIKES = str.maketrans(
    "АВЕІЈКМНОРСТХаеіјкмнопргстухԍΑΒΕΗΙΚΜΝΟΡΤΧινορϜ‐‑‒–—−∣│¦×∙⋅•·∗",
    "ABEIJKMHOPCTXaeijkmhonprctyxGABEHIKMNOPTXivopF------|||x*****",
)
"""Letters of other scripts that look like Latin ones, and the dashes, bars and dots that editors insert."""
_FAMILY = re.compile(r"(?P<powers>mpoly|poly)-?(?P<degree>\d)|(?P<ways>\d)-?way")
_DEPTHS = re.compile(r"(?:ir|inception-?resnet)(?:-?v\d)?-?(\d+)-(\d+)-(\d+)")
_COUNT = re.compile(r"(\d+)\s*(?:[xX*]|(?=[\[({])|\s(?=[^\W\d]))\s*")
_OPENING = re.compile(r"\s*(?:[\[{]|\((?![^()]*\)\s*(?:[^\W\d]|[\^²³+(])))\s*|.*\[")
"""The bracket that opens a stage. A round bracket may belong to a product, which continues after it."""
_TOKEN = re.compile(r"(?:\^|\*\*)?\s*\d+|[²³]|\S")


def plain_letters(text: str) -> str:
    """Returns the text in Latin letters and ASCII signs, except for `²` and `³`."""
    kept = (letter if letter in "²³" else unicodedata.normalize("NFKC", letter) for letter in text)
    return "".join(kept).translate(_LOOK_ALIKES)


def near_polynomial(text: str, names: Collection[str]) -> str | None:
    """Returns the nearest name of a module, or the nearest sum.

    Args:
        text: the text as written.
        names: names of modules.
    """
    text = plain_letters(text).strip(" \t'\"")
    name = re.sub(r"[\s_-]+", "-", text.lower())
    if name in names:
        return name
    if family := _FAMILY.fullmatch(name):
        if (named := f"{family['powers']}-{family['degree']}") in names or (named := f"{family['ways']}-way") in names:
            return named
        letters = OPERATORS[: int(family["degree"] or family["ways"])]
        powers = ["F" * degree for degree in range(1, len(letters) + 1)]
        products = [letters[:degree][::-1] for degree in range(1, len(letters) + 1)]
        return sum_of({"poly": powers, "mpoly": products, None: letters}[family["powers"]])
    if not set("+(") & set(text):
        if near := difflib.get_close_matches(name, names, 1):
            return near[0]
        if re.search("[a-z]{2}", text) or set(text.upper()) & set("ABCDEOPQRSTUVWXYZ"):
            return None  # a word, and no product of blocks
    try:
        words = _summed(_TOKEN.findall(text.upper().translate(str.maketrans("[{]}", "(())")))[::-1])
    except ValueError:
        return None
    return sum_of(_renamed(words))


def near_structure(text: str, names: Collection[str], modules: Collection[str]) -> str | None:
    """Returns the nearest name of a structure, or three stages. A missing stage becomes one repeat of the last one."""
    text = plain_letters(text).strip(" \t'\"")
    name = re.sub(r"[\s_-]+", "-", text.lower())
    if depths := _DEPTHS.fullmatch(name):
        named = "ir-{}-{}-{}".format(*depths.groups())
        return named if named in names else " | ".join(f"{depth} x [ir]" for depth in depths.groups())
    if name not in modules and not _FAMILY.fullmatch(name) and (near := difflib.get_close_matches(name, names, 1)):
        return near[0]
    parts = [part for part in text.split("|") if part.strip()]
    if len(parts) < 3:
        parts = [part for part in re.split(r"(?<=\])[\s,;|/]*|[|;/]", text) if part.strip()]
    stages = [stage for part in parts[:3] if (stage := _near_stage(part, modules))]
    if not stages or len(stages) < len(parts[:3]):
        return None
    return " | ".join([*stages, *[re.sub(r"^\d+", "1", stages[-1])] * (3 - len(stages))])


def _near_stage(text: str, modules: Collection[str]) -> str | None:
    text = text.strip()
    count = _COUNT.match(text)
    inside = text[count.end() :] if count else text
    if opening := _OPENING.match(inside):
        inside = re.split(r"[\]}]" if opening[0].strip() != "(" else r"[\])}]", inside[opening.end() :])[0]
    given = [part for part in re.split("[,;]", inside.rstrip("]} ")) if part.strip()] or ["ir"]
    found = [module for part in given if (module := near_polynomial(part, modules))]
    if len(found) < len(given):
        return None
    repeats = int(count[1][:5]) if count else 1
    return f"{max(1, min(repeats, 1000 // len(found)))} x [{', '.join(found)}]"


def _renamed(words: Collection[str]) -> list[str]:
    """Returns the terms with their letters renamed, so that they appear in the order of the operators."""
    terms = by_degree({word for word in words if word})
    for _ in range(10):  # renaming can change the order of the terms, and with it that of the letters
        letters = introduced(terms)[: len(OPERATORS)]
        table = str.maketrans(letters, OPERATORS[: len(letters)])
        terms = by_degree({term.translate(table) for term in terms})
    return terms


def _summed(tokens: list[str]) -> list[str]:
    """Returns the terms of a sum, with products of sums multiplied out. Takes its tokens from the end of the list."""
    words = _multiplied(tokens)
    while tokens and tokens[-1] == "+":
        tokens.pop()
        words += _multiplied(tokens)
    return words


def _multiplied(tokens: list[str]) -> list[str]:
    words: list[str] = []
    while tokens and tokens[-1] not in ("+", ")"):
        token = tokens.pop()
        if token == "(":
            factor = _summed(tokens)
            if tokens:
                tokens.pop()
        elif "A" <= token <= "Z":
            factor = ["" if token == "I" else token]
        else:
            continue
        power = tokens.pop() if tokens and tokens[-1][-1].isdigit() else "1"
        for _ in range({"²": 2, "³": 3}.get(power) or min(LONGEST, int(power.lstrip("^* ")))):
            words = [word + other for word in words or [""] for other in factor]
            if len(words) + sum(map(len, words)) > LONGEST:
                raise ValueError(f"more than {LONGEST} letters")
    return words
