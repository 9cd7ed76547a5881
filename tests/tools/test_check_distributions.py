"""What the gate finds wrong with a wheel or an sdist."""

import tarfile
import zipfile

import pytest

from tools import check_distributions
from tools.check_distributions import listed_patterns, main, problems

PATTERNS = ["package/*.py", "package/py.typed"]
README = "[a card](weights/card.md#limits), [all](weights), [here](#here), [there](https://example.org/a.md)"
FILES = {"package/__init__.py", "package/a/b.py", "package/py.typed"}


def test_files_as_listed_are_no_problem():
    assert problems(FILES, PATTERNS, FILES) == []


def test_every_kind_of_problem_is_named():
    files = {"package/__init__.py", "package/a/b.py", "package/notes.txt"}
    assert problems(files, PATTERNS, FILES) == [
        "package/notes.txt is not listed",
        "no file matches package/py.typed",
        "package/py.typed is missing",
    ]


def test_the_list_has_sections_and_comments():
    assert listed_patterns("# why\n\n[wheel]\na/*.py\nb\n\n[sdist]\nc\n") == {"wheel": ["a/*.py", "b"], "sdist": ["c"]}


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A checkout of two files with its list, and the folder with what was built of them."""
    sources = ("polynet_keras/__init__.py", "weights/card.md")
    for name in sources:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "README.md").write_text(README)
    listed = tmp_path / "list.txt"
    listed.write_text(
        "[wheel]\npolynet_keras/*.py\npolynet_keras/weights/*.md\n[sdist]\nREADME.md\npolynet_keras/*.py\nweights/*.md\n"
    )
    monkeypatch.setattr(check_distributions, "ROOT", tmp_path)
    monkeypatch.setattr(check_distributions, "LIST", listed)
    dist = tmp_path / "dist"
    dist.mkdir()
    with zipfile.ZipFile(dist / "p-1.whl", "w") as wheel:
        wheel.write(tmp_path / sources[0], sources[0])
        wheel.write(tmp_path / sources[1], "polynet_keras/weights/card.md")
    with tarfile.open(dist / "p-1.tar.gz", "w:gz") as sdist:
        for name in ("README.md", *sources):
            sdist.add(tmp_path / name, f"p-1/{name}")
    return tmp_path


def test_a_wheel_and_an_sdist_of_all_sources(built, capsys):
    main(built / "dist")
    assert capsys.readouterr().out == "p-1.whl: 2 files, 0 problems\np-1.tar.gz: 3 files, 0 problems\n"


@pytest.mark.parametrize("name", ["polynet_keras/page.html", "weights/new.md"])
def test_a_source_that_was_not_packed_is_found_in_both(built, capsys, name):
    (built / name).touch()
    with pytest.raises(SystemExit, match=r"see list\.txt"):
        main(built / "dist")
    in_wheel = name.replace("weights/", "polynet_keras/weights/")
    assert capsys.readouterr().out.splitlines() == [
        "p-1.whl: 2 files, 1 problems",
        f"  {in_wheel} is missing",
        "p-1.tar.gz: 3 files, 1 problems",
        f"  {name} is missing",
    ]


def test_a_link_to_nothing_in_the_sdist_is_found(built, capsys):
    (built / "README.md").write_text(f"{README}\n![plot](pictures/plot.png) [a card](weights/other.md)")
    with tarfile.open(built / "dist" / "p-1.tar.gz", "w:gz") as sdist:
        for name in ("README.md", "polynet_keras/__init__.py", "weights/card.md"):
            sdist.add(built / name, f"p-1/{name}")
    with pytest.raises(SystemExit):
        main(built / "dist")
    assert capsys.readouterr().out.splitlines()[2:] == [
        "  README.md links to pictures/plot.png, which is missing",
        "  README.md links to weights/other.md, which is missing",
    ]


@pytest.mark.parametrize(("section", "name", "count"), [("wheel", "p-1.whl", 2), ("sdist", "p-1.tar.gz", 3)])
def test_one_of_both_is_wrong(built, capsys, section, name, count):
    listed = built / "list.txt"
    listed.write_text(listed.read_text().replace(f"[{section}]", f"[{section}]\n*.json"))
    with pytest.raises(SystemExit):
        main(built / "dist")
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if " 0 problems" not in line] == [
        f"{name}: {count} files, 1 problems",
        "  no file matches *.json",
    ]
