"""The pages on the design and the decisions lead somewhere: to files that exist, and to every decision."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
PAGES = [ROOT / "docs" / "design.md", *DECISIONS]
NAMED_FILE = re.compile(r"`((?!keras/)[\w.]+(?:/[\w.]+)+\.(?:py|txt|json))`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_files_that_a_page_names_exist(page):
    named = set(NAMED_FILE.findall(page.read_text()))
    missing = [name for name in named if not (ROOT / name).exists() and not (ROOT / "polynet_keras" / name).exists()]
    assert not missing, f"{page.name} names {', '.join(sorted(missing))}"


def test_decisions_are_numbered_from_one_and_all_in_the_index():
    numbers = [int(page.name[:4]) for page in DECISIONS]
    assert numbers == list(range(1, len(DECISIONS) + 1))
    index = (DECISIONS[0].parent / "index.md").read_text()
    lines = [f"* [{page.read_text().splitlines()[0].removeprefix('# ')}]({page.name})" for page in DECISIONS]
    assert sorted(re.findall(r"^\* .*", index, re.MULTILINE)) == sorted(lines)


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_its_four_parts(page):
    labels = re.findall(r"^\*\*(\w+)\.\*\*", page.read_text(), re.MULTILINE)
    assert labels == ["Decided", "Why", "Measured", "Code"]
