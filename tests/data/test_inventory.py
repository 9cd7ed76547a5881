import shutil

import numpy as np
import pytest
from PIL import Image

from polynet_keras.data import image_files, inventory
from polynet_keras.data.examples import Source
from polynet_keras.data.inventory import look_at, tell_inventory
from polynet_keras.data.sources import open_source
from tests.data.arrays import examples_of, png, random_images


def write(folder, counts, size=(9, 7), seed=0, suffix="png", **how):
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image = Image.fromarray(rng.integers(0, 256, (*size, 3)).astype("uint8"))
            image.save(folder / name / f"{seed}-{i}.{suffix}", **how)


@pytest.fixture
def told(caplog):
    """What is logged of a folder, in one text; warnings begin with `warning: `."""

    def tell(folder, on_error="error", strict=False, validation_share=None):
        caplog.clear()
        source = open_source(folder, seed=3, validation_share=validation_share)
        caplog.clear()
        with caplog.at_level("INFO", "absl"):
            tell_inventory("photos", source, on_error, strict)
        return "\n".join("warning: " * (one.levelname == "WARNING") + one.getMessage() for one in caplog.records)

    return tell


def test_a_folder_that_is_split_at_random(tmp_path, told):
    write(tmp_path, {"cat": 10, "dog": 5})
    assert told(tmp_path) == (
        "photos: 2 classes, 12 images to train on\n"
        "       to train on  held out\n"
        "  cat            8         2\n"
        "  dog            4         1\n"
        "  all           12         3\n"
        "held out: 20 % of each class, drawn with seed 3\n"
        "image sizes: all 7 x 9 px"
    )


def test_a_share_to_choose_by(tmp_path, told):
    write(tmp_path, {"cat": 10, "dog": 5})
    assert told(tmp_path, validation_share=0.25) == (
        "photos: 2 classes, 9 images to train on\n"
        "       to train on  validation  held out\n"
        "  cat            6           2         2\n"
        "  dog            3           1         1\n"
        "  all            9           3         3\n"
        "held out: 20 % of each class, drawn with seed 3\n"
        "validation: 25 % of each class to train on, drawn with the seed of the run; the best epoch is chosen by it\n"
        "image sizes: all 7 x 9 px"
    )


def test_a_folder_of_splits(tmp_path, told):
    write(tmp_path / "train", {"cat": 6, "dog": 5})
    write(tmp_path / "val", {"dog": 2}, (20, 30), 1)
    write(tmp_path / "test", {"cat": 1}, (200, 1300), 2)
    assert told(tmp_path) == (
        "photos: 2 classes, 11 images to train on\n"
        "       to train on  validation  held out\n"
        "  cat            6           0         1\n"
        "  dog            5           2         0\n"
        "  all           11           2         1\n"
        f"held out: {tmp_path}, test\n"
        f"validation: {tmp_path}, val; the best epoch is chosen by it\n"
        "image sizes: median 7 x 9, smallest 7 x 9, largest 1,300 x 200 px"
    )


def test_many_classes(tmp_path, told):
    write(tmp_path, {f"{i:02d}": 5 + i for i in range(23)}, (2, 2))
    lines = told(tmp_path).splitlines()
    assert [line.split()[0] for line in lines[2:22]] == [f"{i:02d}" for i in range(20)]
    assert lines[22] == "  and 3 more classes, of 20 to 22 images to train on"
    assert lines[23].split()[0] == "all"


def test_one_class_more(tmp_path, told):
    write(tmp_path, {f"{i:02d}": 5 for i in range(21)}, (2, 2))
    assert "\n  and 1 more class, of 4 to 4 images to train on\n" in told(tmp_path)


def test_small_classes_are_warned_of(tmp_path, told):
    write(tmp_path, {"cat": 4, "dog": 5, "emu": 2})
    assert "warning: 2 classes have fewer than 5 images: cat (4), emu (2)" in told(tmp_path)
    shutil.rmtree(tmp_path / "emu")
    write(tmp_path / "splits" / "train", {"cat": 4, "dog": 5})
    write(tmp_path / "splits" / "val", {"cat": 9, "dog": 9}, seed=1)
    assert "warning: 1 class has fewer than 5 images: cat (4)" in told(tmp_path / "splits")


def test_an_image_is_as_large_as_it_is_held(tmp_path, told):
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path, {"cat": 5, "dog": 5}, (30, 20), suffix="jpg", exif=exif)
    assert "image sizes: all 30 x 20 px" in told(tmp_path)


def test_headers_behind_much_else(tmp_path, told, monkeypatch):
    monkeypatch.setattr(image_files, "HEAD", 20)
    write(tmp_path, {"cat": 5, "dog": 5}, suffix="jpg", comment=b"x" * 3000)
    assert "image sizes: all 7 x 9 px" in told(tmp_path)


def test_what_is_no_image(tmp_path, told):
    write(tmp_path, {"cat": 5, "dog": 5})
    (tmp_path / "cat" / "0-0.png").write_text("<html>")
    (tmp_path / "dog" / "x.png").touch()
    (tmp_path / "dog" / "gone.png").symlink_to("nowhere")
    text = told(tmp_path)
    assert "image sizes: all 7 x 9 px" in text
    assert "warning: 3 of 12 files are not readable images: " in text
    assert f"{tmp_path}/cat/0-0.png (its format is not one of JPEG, PNG, " in text
    assert f"{tmp_path}/dog/x.png (it is empty)" in text
    assert f"{tmp_path}/dog/gone.png (No such file or directory)" in text
    assert "; a run ends at the first; --on_error=skip leaves them out" in text
    assert "; a run leaves them out" in told(tmp_path, on_error="skip")
    for path in tmp_path.rglob("*.png"):
        path.unlink()
        path.touch()
    text = told(tmp_path)
    assert "image sizes: none of 12 images can be read" in text
    assert " and 9 more; a run" in text


def test_copies_between_splits(tmp_path, told):
    write(tmp_path / "train", {"cat": 5, "dog": 5})
    write(tmp_path / "val", {"cat": 2, "dog": 2}, seed=1)
    assert "two splits" not in told(tmp_path, strict=True)
    shutil.copy(tmp_path / "train" / "dog" / "0-3.png", tmp_path / "val" / "cat" / "copy.png")
    told_of = (
        f"1 image is in two parts of the data, byte by byte, such as {tmp_path}/train/dog/0-3.png and "
        f"{tmp_path}/val/cat/copy.png: accuracy on them says nothing about new images"
    )
    assert f"warning: {told_of}" in told(tmp_path)
    with pytest.raises(ValueError, match=f"^{told_of}. Remove one of each pair, or leave --strict out$"):
        told(tmp_path, strict=True)


def test_large_data_are_looked_at_in_part(tmp_path, told, monkeypatch):
    write(tmp_path, {"cat": 10, "dog": 10})
    monkeypatch.setattr(inventory, "FILES_LOOKED_AT", 12)
    assert "image sizes: all 7 x 9 px (12 images looked at)" in told(tmp_path)
    monkeypatch.setattr(inventory, "SECONDS", -1.0)
    assert "image sizes: all 7 x 9 px (1 image looked at)" in told(tmp_path)


def test_images_that_are_no_files():
    source = open_source("digits", 0)
    look = look_at([source.training, source.held_out])
    assert (look.looked_at, look.total) == (200, 1797)
    assert (look.sizes == 8).all()


def test_labels_that_are_not_known(caplog):
    images = random_images(4, size=30)
    training, held_out = (examples_of([png(image) for image in images], np.zeros(4, int)) for _ in range(2))
    for one in (training, held_out):
        object.__setattr__(one, "labels", None)
    with caplog.at_level("INFO", "absl"):
        tell_inventory("records", Source(training, held_out, 5), "error")
    assert caplog.messages == [
        "records: 1 class, 4 images to train on\n       to train on  held out\n  all            4         4\n"
        "held out: 20 % of all images, drawn with seed 5",
        "image sizes: all 90 x 30 px",
    ]


def test_labels_that_were_read_for_the_weights_of_the_classes(caplog):
    """What is held out, and what chooses, was drawn before anybody knew them."""
    images = random_images(4, size=30)
    training, held_out, validation = (examples_of([png(image) for image in images], np.arange(4)) for _ in range(3))
    for one in (held_out, validation):
        object.__setattr__(one, "labels", None)
    with caplog.at_level("INFO", "absl"):
        tell_inventory("records", Source(training, held_out, 5, {}, validation, 0.5), "error")
    assert "held out: 20 % of all images, drawn with seed 5" in caplog.text
    assert "validation: 50 % of all images to train on, drawn with the seed of the run" in caplog.text
