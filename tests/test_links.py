"""Every link leads somewhere, as far as that can be seen offline: files, headings, and the form of addresses.

`mkdocs build --strict` checks the links between the pages in docs/ once more, as the site has them.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for pattern in ("*.md", ".github/**/*.md", "docs/**/*.md", "examples/**/*.md", "weights/*.md")
    for page in ROOT.glob(pattern)
)
FOLDERS = ("benchmarks", "docs", "examples", "polynet_keras", "tests", "tools", "weights")
TEXTS = sorted(
    [
        *PAGES,
        *(ROOT / name for name in ("CITATION.cff", "mkdocs.yml", "pyproject.toml", "setup.py")),
        *(file for folder in FOLDERS for kind in ("html", "py", "yaml") for file in ROOT.glob(f"{folder}/**/*.{kind}")),
    ]
)
NOT_HTTPS = {
    "http://data.lip6.fr/cadene/pretrainedmodels/polynet-f71d82a5.pth": "a published file; its hash is checked",
    "http://ns.adobe.com/xap/1.0/": "the name of a marker",
    "http://www.w3.org/2000/svg": "the name of a namespace",
}

FENCED = re.compile(r"(?ms)^ *(```+|~~~+)[^\n]*\n.*?^ *\1 *$")
HEADING = re.compile(r"(?m)^#+ +(.+?) *#*$")
TARGET = re.compile(
    r"""\]\(\s*<?([^()\s>]+(?:\([^()\s]*\)[^()\s]*)?)>?[^)]*\)|^\[[^\]]+\]:\s+(\S+)|(?:href|src)="([^"]+)""", re.M
)
URL = re.compile(r"https?://[^\s<>\"'`\\|{}]+")
MENTION = re.compile(r"(?<![\w./-])(?:docs|benchmarks|tools)/[a-z0-9_/-]+\.[a-z]+\b")
SECTION = re.compile(r"(docs/[\w/-]+\.md)`?, ([A-Z][^).]*)\)")
"""As in "(docs/distribution.md, Security of a cluster)"."""
ARXIV = re.compile(r"(?i)\barxiv\b(.{0,20}?)(\d{4}\.\d{4,5})(v\d+)?")


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def targets(page: Path) -> Iterator[str]:
    """What the links of a page lead to; code is no link."""
    text = re.sub(r"`[^`\n]*`", "", FENCED.sub("", page.read_text()))
    for found in TARGET.finditer(text):
        yield next(filter(None, found.groups()))


def headings(page: Path) -> list[str]:
    return HEADING.findall(FENCED.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    times: Counter[str] = Counter()
    for heading in headings(page):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        anchor = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        found.add(f"{anchor}-{times[anchor]}" if times[anchor] else anchor)
        times[anchor] += 1
    return found


def urls(text: str) -> list[str]:
    """The addresses in a text, without the punctuation after them."""
    found = []
    for url in URL.findall(text):
        url = url.rstrip(".,;:!*")
        while url.endswith((")", "]")) and url.count("(") < url.count(")") + url.count("]"):
            url = url[:-1].rstrip(".,;:!*")
        found.append(url)
    return found


def is_local(url: str) -> bool:
    """Whether an address is of this machine, of a network without a domain, or only the beginning of a pattern."""
    return bool(re.match(r"https?://(localhost|127\.|\[|$|[A-Z]|[\w-]+(:\d+)?(/|$))", url))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links(page):
    for target in targets(page):
        if urlsplit(target).scheme:
            continue
        path, _, anchor = unquote(target).partition("#")
        assert not path.startswith("/"), f"{target}: a link is relative to its page"
        file = (page.parent / path).resolve() if path else page
        assert file.is_relative_to(ROOT), f"{target} is outside of this repository"
        assert file.exists(), f"{target}: there is no file {path}"
        if anchor:
            assert file.suffix == ".md", f"{target}: anchors of pages alone can be checked"
            assert anchor in anchors(file), f"{target}: {name_of(file)} has no heading of this anchor"


def test_files_and_headings_that_a_text_names():
    for file in TEXTS:
        text = file.read_text()
        for mention in MENTION.findall(text):
            assert (ROOT / mention).exists(), f"{name_of(file)}: {mention} does not exist"
        for page, section in SECTION.findall(text):
            known = headings(ROOT / page)
            assert " ".join(section.split()) in known, f"{name_of(file)}: {page} has no heading {section!r}"


def test_addresses():
    """Of the web, and of papers on arXiv."""
    seen = defaultdict(set)
    for file in TEXTS:
        if file == Path(__file__):
            continue
        text = file.read_text()
        of_tests = file.is_relative_to(ROOT / "tests")
        for url in urls(text):
            if of_tests or is_local(url) or url in NOT_HTTPS:
                continue
            parts = urlsplit(url)
            assert parts.scheme == "https", f"{name_of(file)}: {url} is not https"
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), f"{name_of(file)}: {url} names no host"
            seen[re.sub(r"^https://(www\.)?|/$", "", url)].add(url)
        for between, number, version in ARXIV.findall(text):
            where = f"{name_of(file)}: arXiv{between}{number}{version}"
            assert between in (":", ".org/abs/"), f"{where}: write arXiv:{number}, or https://arxiv.org/abs/{number}"
            assert not version, f"{where}: leave out the version, or the same paper has two addresses"
            assert 1 <= int(number[2:4]) <= 12, f"{where}: {number} is no number of arXiv's: year, month, number"
    twice = [found for found in seen.values() if len(found) > 1]
    assert not twice, f"two spellings of one address: {twice}"


def test_a_text_of_a_link_has_one_address():
    """A paper that is cited twice has the same address."""
    found = defaultdict(set)
    for page in PAGES:
        for text, url in re.findall(r"\[([^\]]{10,})\]\((https://[^)\s]+)\)", page.read_text()):
            found[" ".join(text.lower().split())].add(url)
    several = {text: found[text] for text in found if len(found[text]) > 1}
    assert not several
