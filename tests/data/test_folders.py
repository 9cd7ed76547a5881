import hashlib
import os
import re
import unicodedata

import numpy as np
import pytest

from polynet_keras.data.folders import IMAGE_SUFFIXES, list_folder, list_splits, read_class_names, split_folders


def make(root, *paths):
    """Files of growing size; nothing opens them."""
    for size, path in enumerate(paths, start=1):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(size))


def test_images_of_any_depth_by_class(tmp_path):
    make(tmp_path, "dog/b.jpg", "dog/a/z.PNG", "cat/1.webp", "cat/.hidden.jpg", ".git/x.jpg", "cat/.x/1.jpg", "top.jpg")
    make(tmp_path, "cat/notes.txt", "dog/a.jpg")
    found = list_folder(tmp_path)
    assert found.class_names == ("cat", "dog")
    assert found.paths == ("cat/1.webp", "dog/a.jpg", "dog/a/z.PNG", "dog/b.jpg")
    np.testing.assert_array_equal(found.labels, [0, 1, 1, 1])
    np.testing.assert_array_equal(found.sizes, [3, 2, 2, 1])
    assert found.labels.dtype == found.sizes.dtype == "int64"
    assert len(found) == 4


@pytest.mark.parametrize("seed", range(3))
def test_random_trees_against_a_walk(tmp_path, seed):
    generator = np.random.default_rng(seed)
    names = ["a.jpg", "b.JPEG", "c.txt", ".d.png", "e.gif", "f.svg"]
    for _ in range(60):
        folders = generator.choice(["x", "y", ".z", "train", "é ü"], generator.integers(0, 4))
        make(tmp_path, "/".join([f"class{generator.integers(4)}", *folders, generator.choice(names)]))
    expected = []
    for folder, folders, files in os.walk(tmp_path):
        folders[:] = [name for name in folders if name[0] != "."]
        for file in files:
            if file[0] != "." and os.path.splitext(file)[1].lower() in (".jpg", ".jpeg", ".gif"):
                expected.append(os.path.relpath(os.path.join(folder, file), tmp_path))
    found = list_folder(tmp_path)
    assert found.paths == tuple(sorted(expected, key=lambda path: (path.split("/")[0], path)))
    assert [found.class_names[label] for label in found.labels] == [path.split("/")[0] for path in found.paths]


def test_what_a_system_leaves_among_photographs_is_passed_over_and_told(tmp_path, caplog):
    caplog.set_level("INFO", logger="absl")
    wanted = ["train/cat/1.jpg", "train/dog/deep/2.jpg", "val/cat/3.jpg"]
    left = ["__MACOSX/train/cat/._1.jpg", "train/__MACOSX/cat/._1.jpg", "train/cat/._1.jpg", "train/dog/deep/._2.JPG"]
    left += ["train/.ipynb_checkpoints/1-checkpoint.jpg", "train/dog/.cache/2.jpg", "val/cat/@eaDir/3.jpg/small.jpg"]
    make(tmp_path, *wanted, *left, "train/.DS_Store", "val/cat/.DS_Store")
    found = list_splits(tmp_path)
    assert [f"{split}/{path}" for split, images in found.items() for path in images.paths] == wanted
    assert found["val"].class_names == ("cat", "dog")
    assert caplog.messages == [
        f"data='{tmp_path}': ignored folders '__MACOSX'",
        f"data='{tmp_path}/train': ignored folders '.cache', '.ipynb_checkpoints', '__MACOSX' and 2 hidden image files",
        f"data='{tmp_path}/val': ignored folders '@eaDir'",
    ]
    caplog.clear()
    make(tmp_path, "clean/a/1.jpg", "clean/b/_1.jpg", "clean/b/__MACOSX.jpg")
    assert len(list_folder(tmp_path / "clean")) == 3
    assert not caplog.messages


def test_files_that_no_name_makes_images_are_told(tmp_path, caplog):
    make(
        tmp_path,
        "a/1.jpg",
        "a/2.HEIC",
        "a/3.heic",
        "a/deep/4",
        "b/1.png",
        "b/n\n.t\nxt",
        *(f"b/{i}.{i}" for i in range(5)),
    )
    assert list_folder(tmp_path).paths == ("a/1.jpg", "b/1.png")
    [message] = caplog.messages
    assert message.startswith(f"data='{tmp_path}': left out 9 files (2 .heic, 1 without a suffix, ")
    assert ", ".join(IMAGE_SUFFIXES) in message
    assert " and 3 others): " in message
    assert message.isprintable()
    make(tmp_path, "c/1.heic", "c/2.heic")
    with pytest.raises(
        ValueError, match=r"class 'c' of data='.*' has 0 images, but 2 other files \(images are .bmp, .*\)"
    ):
        list_folder(tmp_path)


def test_class_names_decide_the_labels(tmp_path):
    make(tmp_path, "cat/1.jpg", "dog/1.jpg")
    np.testing.assert_array_equal(list_folder(tmp_path, ["dog", "bird", "cat"]).labels, [2, 0])
    (tmp_path / "classes.txt").write_text("dog\n\n cat \n")
    assert list_folder(tmp_path).class_names == ("dog", "cat")
    np.testing.assert_array_equal(list_folder(tmp_path).labels, [1, 0])
    assert list_folder(tmp_path, ["cat", "dog"]).class_names == ("cat", "dog")


def test_a_split_that_lacks_a_class_does_not_shift_labels(tmp_path):
    make(tmp_path, "val/cat/1.jpg", "val/dog/1.jpg", "train/ant/1.jpg", "train/dog/1.jpg", "train/dog/2.jpg")
    splits = list_splits(tmp_path)
    assert list(splits) == ["train", "val"]
    assert {images.class_names for images in splits.values()} == {("ant", "cat", "dog")}
    np.testing.assert_array_equal(splits["train"].labels, [0, 2, 2])
    np.testing.assert_array_equal(splits["val"].labels, [1, 2])
    assert splits["val"].folder == tmp_path / "val"
    assert splits["val"].paths == ("cat/1.jpg", "dog/1.jpg")
    (tmp_path / "classes.txt").write_text("dog\ncat\nant\n")
    np.testing.assert_array_equal(list_splits(tmp_path)["val"].labels, [1, 0])
    np.testing.assert_array_equal(list_splits(tmp_path, class_names=["x", "ant", "cat", "dog"])["val"].labels, [2, 3])


def test_a_folder_of_classes_is_one_split(tmp_path):
    make(tmp_path, "cat/1.jpg", "dog/1.jpg")
    assert split_folders(tmp_path) == {}
    assert list_splits(tmp_path, "test").keys() == {"test"}
    assert list_splits(tmp_path)["train"].class_names == ("cat", "dog")


def test_split_folders(tmp_path):
    make(
        tmp_path, *(f"{name}/cat/1.jpg" for name in ("held_out", "Test", "valid", "Training")), "readme.txt", ".x/x.jpg"
    )
    assert list(split_folders(tmp_path)) == ["training", "valid", "test", "held_out"]
    assert split_folders(tmp_path)["training"] == tmp_path / "Training"


def test_splits_beside_other_folders_need_a_word(tmp_path, caplog):
    """Photographs of trains, or a folder that lies about: nobody can tell."""
    caplog.set_level("INFO", logger="absl")
    make(tmp_path, *(f"{name}/{one}/1.jpg" for name in ("cat", "train", "val") for one in "ab"), "cat/2.jpg")
    message = (
        r"has folders with names of splits \('train', 'val'\) beside others \('cat'\)\. "
        r"If all are classes, say --layout=classes; if the others are to be left out, --layout=splits"
    )
    with pytest.raises(ValueError, match=message):
        list_splits(tmp_path)
    assert list_splits(tmp_path, layout="classes")["train"].class_names == ("cat", "train", "val")
    assert list(list_splits(tmp_path, layout="splits")) == ["train", "val"]
    assert caplog.messages == [f"data='{tmp_path}': left out folders that are not splits: 'cat'"]
    with pytest.raises(ValueError, match="layout='split' must be one of auto, classes, splits"):
        list_splits(tmp_path, layout="split")
    with pytest.raises(
        ValueError, match="layout='splits', but .* has no folder train, training, val, .*; it has 'a', 'b'"
    ):
        list_splits(tmp_path / "cat", layout="splits")
    assert list_splits(tmp_path / "cat")["train"].class_names == ("a", "b")


@pytest.mark.parametrize("names", [("val", "valid"), ("Train", "train"), ("test", "testing"), ("dev", "VALIDATION")])
def test_two_spellings_of_one_split(tmp_path, names):
    make(tmp_path, *(f"{name}/{one}/1.jpg" for name in names for one in "ab"))
    with pytest.raises(ValueError, match="has '.*' and '.*', which are two names of one split; keep one") as error:
        list_splits(tmp_path)
    assert all(f"'{name}'" in str(error.value) for name in names)


def test_splits_without_classes(tmp_path):
    make(tmp_path, "train/1.jpg", "test/1.jpg")
    with pytest.raises(ValueError, match="the splits train, test hold no folders of classes, .* say --layout=classes"):
        list_splits(tmp_path)
    assert list_splits(tmp_path, layout="classes")["train"].class_names == ("test", "train")


COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("one", "other", "how"),
    [
        ("Cat", "cat", "upper and lower case; give both one name, or name them in classes.txt"),
        (
            COMPOSED,
            DECOMPOSED,
            r"how an accent is encoded \(.*\\(xe9|u0301).* and .*\\(xe9|u0301).*\); give both one name",
        ),
        (COMPOSED.upper(), DECOMPOSED, "upper and lower case; give"),
    ],
)
def test_class_folders_whose_names_nearly_agree(tmp_path, one, other, how):
    """Of two classes three would be made, half of whose held-out images are counted wrong."""
    make(tmp_path, f"data/train/{one}/1.jpg", "data/train/dog/1.jpg", f"data/val/{other}/1.jpg", "data/val/dog/1.jpg")
    with pytest.raises(ValueError, match=how) as error:
        list_splits(tmp_path / "data")
    assert f"'train/{one}' and 'val/{other}'" in str(error.value)
    make(tmp_path, f"folder/{one}/1.jpg", f"folder/{other}/1.jpg")
    with pytest.raises(ValueError, match=how):
        list_folder(tmp_path / "folder")
    (tmp_path / "folder" / "classes.txt").write_text(f"{one}\n{other}\n")
    assert list_folder(tmp_path / "folder").class_names == (one, other)


def test_system_files_and_images_that_lie_in_no_class(tmp_path, caplog):
    caplog.set_level("WARNING", "absl")
    left = ["Thumbs.db", "desktop.ini", ".DS_Store"]
    make(tmp_path, "cat/1.jpg", "dog/1.jpg", *left, *(f"cat/{name}" for name in left))
    make(tmp_path, "$RECYCLE.BIN/1.jpg", "lost+found/1.jpg", "System Volume Information/1.jpg", "thumbs.db/1.jpg")
    assert list_folder(tmp_path).class_names == ("cat", "dog")
    assert not caplog.messages
    make(tmp_path, "1.jpg", "2.PNG", ".3.png", "notes.txt")
    list_folder(tmp_path)
    assert caplog.messages == [f"data='{tmp_path}': left out 2 images that lie in no class's folder"]


def test_empty_classes_are_all_named(tmp_path):
    make(tmp_path, "cat/1.jpg", "dog/1.heic", "dog/2.heic", "emu/notes.txt")
    (tmp_path / "fox").mkdir()
    with pytest.raises(ValueError, match="classes 'dog', 'emu', 'fox' of data='.*' have 0 images, but 3 other files"):
        list_folder(tmp_path)


def test_links(tmp_path):
    make(tmp_path, "elsewhere/1.jpg", "data/dog/1.jpg", "data/dog/2.jpg")
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "dog" / "gone.jpg").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "data" / "dog" / "pipe.jpg")
    found = list_folder(tmp_path / "data")
    assert found.paths == ("cat/1.jpg", "dog/1.jpg", "dog/2.jpg", "dog/gone.jpg")
    np.testing.assert_array_equal(found.sizes, [1, 2, 3, 0])
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "data")
    with pytest.raises(ValueError, match="again/cat: leads back to a folder that contains it; remove the link"):
        list_folder(tmp_path / "data")


def test_links_to_what_is_no_file_are_passed_over(tmp_path):
    """As a FIFO in the folder itself is: to read one waits for ever, or until memory is full."""
    make(tmp_path, "data/cat/1.jpg", "data/dog/1.jpg")
    os.mkfifo(tmp_path / "pipe")
    folder = tmp_path / "data" / "cat"
    (folder / "pipe.jpg").symlink_to(tmp_path / "pipe")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "twice.jpg").symlink_to("pipe.jpg")
    (folder / "circle.jpg").symlink_to("circle.jpg")
    (tmp_path / "data" / "around").symlink_to("around")
    found = list_folder(tmp_path / "data")
    assert found.paths == ("cat/1.jpg", "cat/circle.jpg", "dog/1.jpg")
    np.testing.assert_array_equal(found.sizes, [1, 0, 2])


@pytest.mark.parametrize(
    ("name", "shown"),
    [(b"\xff\xfe", "\\xff\\xfe"), (b"a\nb", "a\\nb"), (b"a\x1b[31m", "a\\x1b[31m"), ("a\u2028b".encode(), "a\\u2028b")],
)
def test_classes_whose_names_cannot_be_written(tmp_path, name, shown):
    """A model's card, the CSV of results and the answers of a service hold them."""
    make(tmp_path, "cat/1.jpg", f"{os.fsdecode(name)}/1.jpg")
    with pytest.raises(ValueError, match=f"data='{tmp_path}' has the class '{re.escape(shown)}': .* rename it"):
        list_splits(tmp_path)
    (tmp_path / "names.txt").write_text("cat\na\x1bb\n")
    with pytest.raises(ValueError, match=r"names.txt has the class 'a\\x1bb'"):
        read_class_names(tmp_path / "names.txt")


def test_classes_in_any_script(tmp_path):
    make(tmp_path, "猫/1.jpg", "собака 2/1.jpg", "café, “noir”/1.jpg", "👩‍🔬/1.jpg")
    assert len(list_folder(tmp_path).class_names) == 4


def test_fingerprint(tmp_path):
    make(tmp_path, "cat/1.jpg", "dog/1.jpg")
    expected = hashlib.sha256(b"cat\ndog" + b"\0cat/1.jpg\x001\x000" + b"\0dog/1.jpg\x002\x001").hexdigest()
    assert list_folder(tmp_path).fingerprint == expected
    others = {list_folder(tmp_path, names).fingerprint for names in (["dog", "cat"], ["cat", "dog", "emu"])}
    (tmp_path / "cat" / "1.jpg").write_bytes(bytes(7))
    others.add(list_folder(tmp_path).fingerprint)
    (tmp_path / "cat" / "1.jpg").rename(tmp_path / "cat" / "2.jpg")
    others.add(list_folder(tmp_path).fingerprint)
    assert len(others | {expected}) == 5


def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"\xff.jpg")
    make(tmp_path, f"cat/{name}", "dog/1.jpg")
    found = list_folder(tmp_path)
    assert found.paths[0] == f"cat/{name}"
    assert len(found.fingerprint) == 64


def test_mistakes(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere' is not there; expected a folder with one folder of images for"):
        list_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"holds 0 folders; expected .* DATA/cat/1.jpg, two classes or more"):
        list_folder(tmp_path)
    make(tmp_path, "cat/1.jpg")
    with pytest.raises(ValueError, match="holds 1 folder; expected"):
        list_folder(tmp_path)
    make(tmp_path, "dog/notes.txt")
    with pytest.raises(
        ValueError, match=r"class 'dog' of data='.*' has 0 images, but 1 other file \(images are .bmp, .*\); add some"
    ):
        list_folder(tmp_path)
    with pytest.raises(ValueError, match=r"holds the folder 'cat', which is none of the 2 classes that are named"):
        list_folder(tmp_path, ["dog", "Cat"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty' holds none of the 2 classes that are named"):
        list_folder(tmp_path / "empty", ["dog", "cat"])


def test_class_names_files(tmp_path):
    file = tmp_path / "names.txt"
    for content, message in (
        (b"cat\ndog\ncat\n", "names.txt: names the class 'cat' twice"),
        (b"cat\n\n", "names.txt: has 1 class; expected two or more, one per line"),
        (b"\xff\xfe\n", "names.txt: not a text file in UTF-8, one class name a line"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_class_names(file)
    with pytest.raises(ValueError, match="none.txt: cannot be read: No such file"):
        read_class_names(tmp_path / "none.txt")
    file.write_bytes("Mäuse\r\nmade of\n".encode())
    assert read_class_names(file) == ("Mäuse", "made of")
