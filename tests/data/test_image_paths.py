"""Which files a user's files, folders, patterns and lists are."""

import io
import os

import pytest

from polynet_keras.data.image_headers import MAX_ENCODED_BYTES
from polynet_keras.data.image_paths import image_paths


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        *("photos/b.jpg", "photos/a.PNG", "photos/deep/er/c.webp", "photos/notes.txt"),
        *("photos/.hidden.jpg", "photos/__MACOSX/._b.jpg", "photos/@eaDir/b.jpg", "photos/.git/d.jpg"),
        *("[1].jpg", "data.bin", "empty/notes.txt"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("five!")


ALL = ("photos/a.PNG", "photos/b.jpg", "photos/deep/er/c.webp")


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("photos", ALL),
        ("photos/", ALL),
        (["data.bin", "photos/b.jpg", "photos/deep"], ("data.bin", "photos/b.jpg", "photos/deep/er/c.webp")),
        ("photos/*.[jJ]*", ("photos/b.jpg",)),
        ("[1].jpg", ("[1].jpg",)),
        ("ph*", ALL),
        ("photos/**/*.webp", ("photos/deep/er/c.webp",)),
        ("photos/**", ("photos/a.PNG", "photos/b.jpg", "photos/deep/er/c.webp", "photos/notes.txt")),
        ("photos/**/er", ("photos/deep/er/c.webp",)),
        (["photos/b.jpg", "photos/b.jpg"], ("photos/b.jpg", "photos/b.jpg")),
        ("-", ("-",)),  # in Python there is no list on standard input
    ],
)
def test_files_folders_and_patterns(here, named, expected):
    found = image_paths(named)
    if named == "photos/**":  # as a shell has it, but for what is hidden
        assert set(found.paths) - {"photos/__MACOSX/._b.jpg", "photos/@eaDir/b.jpg"} == set(expected)
        return
    assert found.paths == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    "listed", [b"photos/b.jpg\r\n\nno [1].jpg\nphotos/deep\n", b"photos/b.jpg\0no [1].jpg\0photos/deep"]
)
def test_a_list_on_standard_input(here, listed):
    found = image_paths(["data.bin", "-"], io.BytesIO(listed))
    assert found.paths == ("data.bin", "photos/b.jpg", "no [1].jpg", "photos/deep/er/c.webp")
    assert found.sizes == {0: 5, 1: 5, 3: 5}
    assert found.refused == {2: "no [1].jpg: no such file"}


def test_names_are_bytes(here):
    with open(b"caf\xe9\n.jpg", "w") as file:
        file.write("x")
    found = image_paths("-", io.BytesIO(b"caf\xe9\n.jpg\0"))
    assert [os.fsencode(path) for path in found.paths] == [b"caf\xe9\n.jpg"]
    assert not found.refused


def test_what_cannot_be_an_image_is_refused_before_it_is_opened(here):
    os.mkfifo("pipe")
    os.symlink("nowhere", "link.jpg")
    with open("large", "wb") as file:
        file.truncate(MAX_ENCODED_BYTES + 1)
    found = image_paths(["pipe", "link.jpg", "large", "no\0name", "data.bin"])
    assert found.sizes == {4: 5}
    for index, reason in {
        0: "pipe: cannot be read as an image: it is a pipe or a device, not a file",
        1: "link.jpg: no such file",
        2: f"large: {MAX_ENCODED_BYTES + 1:,} bytes are over the limit of {MAX_ENCODED_BYTES:,}",
        3: "no\\x00name: cannot be read as an image: embedded null byte",
    }.items():
        assert found.refused[index] == reason


def test_what_is_passed_over_is_told(here, caplog):
    caplog.set_level("INFO", logger="absl")
    image_paths(["photos", "empty"])
    told = "\n".join(caplog.messages)
    assert "photos: ignored folders '.git', '@eaDir', '__MACOSX' and 1 hidden image file\n" in told
    assert "photos: left out 1 file (1 .txt): the names of images end in .bmp, " in told
    assert "empty holds no image" in told


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ([], "no image is named; name image files or folders"),
        (["-"], "no image is named; name image files or folders"),
        ("empty", "empty holds no image; the names of images end in .bmp, "),
        (["empty", "empty"], "2 folders hold no image"),
        ("*.jpeg", r"\*.jpeg: no such file, and as a pattern it matches none"),
    ],
)
def test_nothing_is_found(here, named, message):
    with pytest.raises(ValueError, match=message):
        image_paths(named, io.BytesIO())


def test_a_folder_that_cannot_be_read(here, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied", folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError, match="photos: cannot be read: Permission denied"):
        image_paths("photos")
