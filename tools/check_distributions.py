"""Compares what the built wheel and sdist hold with the list in .ci/distributions.txt, and follows the README's links.

    python -m build
    python tools/check_distributions.py dist

A new kind of file is added to the list by hand, and to `package_data` in setup.py if the wheel lacks it.
"""

import posixpath
import re
import sys
import tarfile
import zipfile
from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIST = ROOT / ".ci" / "distributions.txt"


def listed_patterns(text: str) -> dict[str, list[str]]:
    """The patterns of each section."""
    sections: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("["):
            sections[line.strip("[]")] = patterns = []
        elif line and not line.startswith("#"):
            patterns.append(line)
    return sections


def problems(files: Collection[str], patterns: Collection[str], required: Collection[str]) -> list[str]:
    """What is wrong with the files of a distribution, a line each."""
    return [
        *(f"{name} is not listed" for name in sorted(files) if not any(fnmatchcase(name, p) for p in patterns)),
        *(f"no file matches {p}" for p in patterns if not any(fnmatchcase(name, p) for name in files)),
        *(f"{name} is missing" for name in sorted(set(required) - set(files))),
    ]


def wheel_files(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as wheel:
        return {entry.filename for entry in wheel.infolist() if not entry.is_dir()}


def sdist_files(path: Path) -> set[str]:
    with tarfile.open(path) as sdist:
        return {entry.name.partition("/")[2] for entry in sdist if not entry.isdir()}  # without polynet_keras-0.1.0/


def dead_links(path: Path, files: Collection[str]) -> list[str]:
    """The links of an sdist's README that lead to none of its files or folders, a line each."""
    with tarfile.open(path) as sdist:
        (readme,) = (entry for entry in sdist if re.fullmatch(r"[^/]+/README\.md", entry.name))
        text = sdist.extractfile(readme).read().decode()
    links = (link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link)
    places = {posixpath.normpath(link) for link in links if link}
    return [
        f"README.md links to {place}, which is missing"
        for place in sorted(places)
        if place not in files and not any(name.startswith(f"{place}/") for name in files)
    ]


def source_files(*folders: str) -> set[str]:
    """What is in these folders of the checkout."""
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    return {path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts}


def main(folder: Path) -> None:
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    patterns = listed_patterns(LIST.read_text())
    sources = source_files("polynet_keras", "weights")
    read = source_files("docs", "examples", "benchmarks")
    in_wheel = {f"polynet_keras/{name}" if name.startswith("weights/") else name for name in sources}
    failed = False
    for path, section, files, required in (
        (wheel, "wheel", wheel_files(wheel), in_wheel),
        (sdist, "sdist", sdist_files(sdist), sources | read),
    ):
        found = problems(files, patterns[section], required)
        if "README.md" in files:
            found += dead_links(path, files)
        failed |= bool(found)
        print(f"{path.name}: {len(files)} files, {len(found)} problems")
        for line in found:
            print(f"  {line}")
    if failed:
        sys.exit(f"see {LIST.relative_to(ROOT)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
