import csv
import time

import numpy as np
import pytest

from polynet_keras.data.tables import check_table, is_table, list_table


def write(folder, *rows, header=("path", "label"), name="photos.csv", encoding="utf-8", **style):
    """A table, as the csv module writes it."""
    with open(folder / name, "w", newline="", encoding=encoding) as file:
        csv.writer(file, **style).writerows([header, *rows])
    return folder / name


@pytest.fixture
def folder(tmp_path):
    """With images of growing size; nothing opens them."""
    for size, name in enumerate(["a/1.jpg", "a/2.jpg", "b/1.jpg", 'c,"d"\n é.jpg'], start=1):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size))
    return tmp_path


def test_a_table_without_splits(folder):
    found = list_table(write(folder, ("b/1.jpg", "dog"), ("a/2.jpg", "cat"), ("a/1.jpg", "dog")), "all")
    assert list(found) == ["all"]
    images = found["all"]
    assert images.class_names == ("cat", "dog")
    assert images.paths == ("a/2.jpg", "a/1.jpg", "b/1.jpg")
    assert images.folder == folder
    np.testing.assert_array_equal(images.labels, [0, 1, 1])
    np.testing.assert_array_equal(images.sizes, [2, 1, 3])
    assert images.labels.dtype == images.sizes.dtype == "int64"


@pytest.mark.parametrize("style", [{}, {"quoting": csv.QUOTE_ALL}, {"lineterminator": "\n"}])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_quotes_and_encodings(folder, style, encoding):
    table = write(folder, ('c,"d"\n é.jpg', 'x,"y" é'), ("a/1.jpg", "猫"), encoding=encoding, **style)
    (images,) = list_table(table).values()
    assert images.class_names == ('x,"y" é', "猫")
    assert images.paths == ('c,"d"\n é.jpg', "a/1.jpg")


def test_as_pandas_writes_it(folder):
    """`DataFrame.to_csv`, with the index in a column without a name."""
    (folder / "photos.csv").write_text(',path,label,split\n0,"c,""d""\n é.jpg",1,val\n1,a/1.jpg,0,train\n')
    found = list_table(folder / "photos.csv")
    assert [(split, images.class_names, images.paths) for split, images in found.items()] == [
        ("train", ("0", "1"), ("a/1.jpg",)),
        ("val", ("0", "1"), ('c,"d"\n é.jpg',)),
    ]


def test_columns_in_any_order_case_and_number(folder, caplog):
    rows = [("7", "Valid", " a/1.jpg", "dog "), ("8", "Train", "a/2.jpg", "cat"), (), ("9", "Train", "b/1.jpg", "dog")]
    found = list_table(write(folder, *rows, header=("weight", " SPLIT", "Path", "label ")))
    assert {split: images.paths for split, images in found.items()} == {
        "train": ("a/2.jpg", "b/1.jpg"),
        "valid": ("a/1.jpg",),
    }
    assert {images.class_names for images in found.values()} == {("cat", "dog")}
    assert caplog.messages == [f"data='{folder}/photos.csv': a column is not used: 'weight'"]


def test_paths_from_anywhere(folder, monkeypatch):
    (folder / "tables").mkdir()
    table = write(folder / "tables", ("../a/1.jpg", "cat"), (f"{folder}/b/1.jpg", "dog"))
    monkeypatch.chdir(folder / "a")
    (images,) = list_table(table).values()
    assert [(images.folder / path).stat().st_size for path in images.paths] == [1, 3]


def test_named_classes(folder):
    table = write(folder, ("a/1.jpg", "dog"), ("a/2.jpg", "cat"))
    (images,) = list_table(table, class_names=["dog", "emu", "cat"]).values()
    np.testing.assert_array_equal(images.labels, [0, 2])
    with pytest.raises(ValueError, match="has the label 'cat', which is none of the 2 named classes"):
        list_table(table, class_names=["dog", "emu"])


def test_what_is_a_table(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    assert is_table("photos.CSV")
    assert not is_table("photos")
    assert not is_table(tmp_path / "folder.csv")


GOOD = [("a/1.jpg", "cat"), ("a/2.jpg", "dog")]
SPLITS = ("path", "label", "split")


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([], ("path", "label"), "has no row below its first line"),
        (GOOD, ("file", "label"), "has no column path: its first line names 'file', 'label'; a table begins with"),
        (GOOD, ("path", "class"), "has no column label: its first line names 'path', 'class'; a table begins with"),
        (GOOD, (), "has no column path: its first line names nothing"),
        ([("a/1.jpg;cat",)], ("path;label",), "; commas must separate the columns, not semicolons"),
        ([("a/1.jpg\tcat",)], ("path\tlabel",), "; commas must separate the columns, not tabs"),
        ([("a/1.jpg", "cat", "a/2.jpg")], ("path", "label", "path"), "has two columns path"),
        ([*GOOD, ("b/1.jpg", " ")], ("path", "label"), "line 4: its label is empty"),
        ([*GOOD, ("", "cat")], ("path", "label"), "line 4: its path is empty"),
        ([("a/1.jpg", "cat", "train"), ("a/2.jpg", "dog", "")], SPLITS, "line 3: its split is empty"),
        ([*GOOD, ("b/1.jpg",)], ("path", "label"), "line 4: 1 field, and 2 columns; separate fields by commas"),
        ([*GOOD, ("b/1.jpg", "cat", "x")], ("path", "label"), "line 4: 3 fields, and 2 columns; quote what holds a"),
        ([*GOOD, ("b/1.jpg",)], ("path", "label"), "line 4: 1 field, and 2 columns"),
        ([*GOOD, ("b/../a/1.jpg", "dog")], ("path", "label"), r"line 4: 'b/../a/1.jpg' is in line 2 already"),
        (
            [*GOOD, ("x.jpg", "cat"), ("y.jpg", "cat")],
            ("path", "label"),
            "2 of 4 files are not there, the first in line 4",
        ),
        ([*GOOD, ("a\\1.jpg", "cat")], ("path", "label"), r"1 of 3 files is not there, .* paths are written with /"),
        ([*GOOD, ("a", "cat")], ("path", "label"), "line 4: .*/a is a folder, not a file"),
        ([*GOOD, ("a\0b", "cat")], ("path", "label"), "line 4: its path has a null character"),
        (
            [("a/1.jpg", "cat", "trian"), ("a/2.jpg", "dog", "val")],
            SPLITS,
            "line 2: the split 'trian' is none of train, ",
        ),
        (
            [("a/1.jpg", "cat", "val"), ("a/2.jpg", "dog", "valid")],
            SPLITS,
            "has 'val' and 'valid', which are two names of",
        ),
        ([("a/1.jpg", "cat", "val"), ("a/2.jpg", "dog", "Val")], SPLITS, "has 'Val' and 'val', which are two names of"),
        ([*GOOD, ("b/1.jpg", "Cat")], ("path", "label"), "has 'Cat' and 'cat', two classes .* case; write both alike"),
        ([("a/1.jpg", "cat"), ("a/2.jpg", "cat")], ("path", "label"), "has 1 class; expected two or more"),
        ([("a/1.jpg", "a\nb"), ("a/2.jpg", "cat")], ("path", "label"), r"has the class 'a\\nb'"),
    ],
)
def test_mistakes(folder, rows, header, message):
    with pytest.raises(ValueError, match=f"data='{folder}/photos.csv'.*{message}") as error:
        list_table(write(folder, *rows, header=header))
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\na/1.jpg,caf\xe9\n", "is not UTF-8 text; save it as CSV in UTF-8"),
        ("path,label\n".encode("utf-16"), "is not UTF-8 text"),
        (b'path,label\na/1.jpg,"cat\n', "line 2: unexpected end of data"),
        (b'path,label\na/1.jpg,"cat" 1\n', "line 2: "),
        (b'path,label\na/1.jpg,"' + b"x\n" * 100_000, r"line \d+: field larger than field limit"),
        (b"", "its first line names nothing"),
    ],
)
def test_files_that_are_no_tables(folder, content, message):
    (folder / "photos.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list_table(folder / "photos.csv")
    with pytest.raises(ValueError, match=r"none.csv' cannot be read: No such file"):
        list_table(folder / "none.csv")


def test_a_table_is_checked_to_its_end_and_a_large_one_by_its_header(folder, monkeypatch, caplog):
    good = write(folder, ("b/1.jpg", "dog", "val", ""), ("a/2.jpg", "cat", "", ""), header=("path", "label", "x", ""))
    assert check_table(good, "all") == ["all"]
    assert not caplog.text  # of what is not used, the list tells
    with pytest.raises(ValueError, match=r"photos.csv', line 2: its label is empty"):
        check_table(write(folder, ("nowhere.jpg", "")), "all")
    monkeypatch.setattr("polynet_keras.data.tables.CHECKED_BYTES", 5)
    assert check_table(write(folder, ("nowhere.jpg", "")), "all") == []
    with pytest.raises(ValueError, match="has no column label"):
        check_table(write(folder, header=("path",)), "all")


def test_texts_in_place_of_labels_are_soon_told_apart(tmp_path):
    """A column of captions, each another class: the time may not grow with the square of their number."""
    rows = [(f"{number}.jpg", f"caption {number}") for number in range(4000)]
    for path, _ in rows:
        (tmp_path / path).touch()
    began = time.process_time()
    assert len(list_table(write(tmp_path, *rows))["train"].class_names) == 4000
    assert time.process_time() - began < 0.4
