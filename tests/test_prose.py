"""Phrases that read as translated do not come back: docs/contributing/style.md has the rules, this test some examples.

It searches the pages, and the docstrings, comments and messages of the package.
"""

import re

import pytest

from tests.documents import PAGES, ROOT

STYLE = ROOT / "docs" / "contributing" / "style.md"
"""It quotes what it replaces."""
TEXTS = [
    ROOT / "CONTRIBUTING.md",
    *(page for page in PAGES if page != STYLE),
    *sorted((ROOT / "polynet_keras").rglob("*.py")),
]

INSTEAD = {
    "how manieth": "its index",
    "as ever": "still",
    "(?:is|are|was|were) told": "is reported, or gets",
    "of which the": "whose",
    "for so long": "for this time",
    "(?:is|are) there already": "already exists",
    "in work": "in flight",
    "given back": "returned",
    "without a word": "without a message",
    "(?<=, )say[,.;:)]": "for example",
    "under way": "running",
    "passed over": "skipped, or ignored",
    "in good order": "gracefully",
    "go(?:es)? on (?:from|with)": "resumes",
    "where (?:there|it) is none": "if there is none",
    "one a line": "one per line",
    "asks? again": "retries",
    "(?:file|set|table|line|it) is whole": "is complete",
    "most alike": "most similar",
    "(?<!there )is no (?:text|number|JSON|object|file|address|condition)": "is not a",
}
"""By phrase: what to write."""
LINE_ENDS = re.compile(r"[ \t]*[\"']?[ \t]*\n[ \t]*(?:# |f?[\"'])?")
"""Of a phrase that goes on in the next line of a comment, or of a text in quotes."""


def found_in(text: str) -> list[str]:
    text = LINE_ENDS.sub(" ", text)
    return [
        f"{text[max(0, found.start() - 30) : found.end() + 30]!r}: write {instead!r}"
        for phrase, instead in INSTEAD.items()
        for found in re.finditer(rf"(?i)(?<!\w){phrase}(?!\w)", text)
    ]


@pytest.mark.parametrize(
    "text",
    ["The file is there already.", 'raise ValueError("the model is "\n    f"told")', "# for\n# so long", "one, say."],
)
def test_a_phrase_is_found_where_a_line_ends_too(text):
    assert len(found_in(text)) == 1


def test_usual_words_are_written():
    found = [f"{path.relative_to(ROOT)}: {one}" for path in TEXTS for one in found_in(path.read_text())]
    assert not found, "\n".join(["docs/contributing/style.md says why:", *found])
