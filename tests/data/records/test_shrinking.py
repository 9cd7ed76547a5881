"""Images that become smaller as they are written: beside the originals, and what the manifest says of it."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from polynet_keras.cli.main import main
from polynet_keras.data.image_files import decode_image
from polynet_keras.data.records.manifest import MANIFEST, load_manifest, verify_records
from polynet_keras.data.records.shrinking import Shrinking
from polynet_keras.data.records.write import write_records

PHOTOGRAPH = Image.fromarray(load_sample_image("china.jpg"))
"""640 x 427 px."""


def encoded(image, form="JPEG", **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def turned(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return {"exif": exif, "quality": 92}


@pytest.mark.parametrize(
    ("file", "shape"),
    [
        (encoded(PHOTOGRAPH, quality=92), (80, 120)),
        (encoded(PHOTOGRAPH, **turned(6)), (120, 80)),
        (encoded(PHOTOGRAPH, progressive=True, quality=92), (80, 120)),
        (encoded(PHOTOGRAPH.convert("L"), quality=92), (80, 120)),
        (encoded(PHOTOGRAPH.convert("CMYK"), quality=92), (80, 120)),
        (encoded(PHOTOGRAPH.convert("RGBA"), "PNG"), (80, 120)),
        (encoded(PHOTOGRAPH, "WEBP", quality=92), (80, 120)),
    ],
    ids=["jpeg", "turned", "progressive", "grey", "cmyk", "png", "webp"],
)
def test_a_larger_image_is_the_same_picture(file, shape):
    """Within four levels of what Pillow shrinks, in the mean: of the colours, JPEG keeps a quarter."""
    small, size = Shrinking(120)(file, "photograph")
    assert size == shape
    found = decode_image(small, 3, "")
    assert found.shape == (*shape, 3)
    with Image.open(io.BytesIO(small)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert not image.getexif()
        assert "icc_profile" not in image.info
    exact = Image.fromarray(decode_image(file, 3, "")).resize(shape[::-1], Image.Resampling.LANCZOS)
    assert np.abs(found.astype(int) - np.asarray(exact)).mean() < 4
    assert len(Shrinking(120, 50)(file, "photograph")[0]) < len(small) / 2


def test_a_profile_is_passed_over_as_in_decoding():
    file = encoded(PHOTOGRAPH, quality=92, icc_profile=b"a profile")
    assert Shrinking(120)(file, "")[0] == Shrinking(120)(encoded(PHOTOGRAPH, quality=92), "")[0]


def test_what_is_small_enough_is_copied():
    for file, size in ((encoded(PHOTOGRAPH, **turned(6)), (640, 427)), (encoded(PHOTOGRAPH, "PNG"), (427, 640))):
        small, found = Shrinking(640)(file, "photograph")
        assert (small, found) == (file, size)


def test_what_cannot_be_read_is_named():
    with pytest.raises(ValueError, match=r"^half\.jpg: cannot be read as an image: .*truncated"):
        Shrinking(120)(encoded(PHOTOGRAPH)[:20_000], "half.jpg")


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for index, name in enumerate(("a", "a", "b", "b")):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.jpg").write_bytes(encoded(PHOTOGRAPH.resize((100 + 200 * (index % 2), 90))))


def test_the_manifest_says_it(photographs):
    manifest = write_records("photos", "small", processes=1, max_side=120, quality=80)
    assert manifest.shrinking == Shrinking(120, 80)
    assert load_manifest("small") == manifest
    assert json.loads(Path("small", MANIFEST).read_text())["shrinking"] == {"max_side": 120, "quality": 80}
    assert verify_records("small") == ()
    assert manifest.splits["train"].count == 4
    with pytest.raises(ValueError, match="images shrunk to max_side=120 with quality=80, not images of any size"):
        write_records("photos", "small", processes=1)
    assert write_records("photos", "small", processes=1, max_side=120, quality=80) == manifest


def test_command(photographs, capsys):
    assert main(["records", "photos", "--output=small", "--max_side=120", "--processes=1"]) == 0
    assert "images larger than 120 px are shrunk to this side" in capsys.readouterr().out
