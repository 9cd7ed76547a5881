"""Image files as pixels: every mode, depth and orientation, and what is refused."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from polynet_keras.basics import extras
from polynet_keras.data.image_files import decode_image, read_image
from tests.data.hostile import tiff


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK", "LA", "I;16"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_any_mode(tmp_path, mode, channels):
    pixels = np.zeros((4, 6), "uint16" if mode == "I;16" else "uint8")
    pixels[:, 3:] = 255 * (257 if mode == "I;16" else 1)
    image = Image.fromarray(pixels)
    file = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    (image if mode == "I;16" else image.convert(mode)).save(file)
    found = read_image(file, channels)
    assert found.shape == (4, 6, channels)
    assert found.dtype == "uint8"
    np.testing.assert_array_equal(found[..., 0], pixels // (257 if mode == "I;16" else 1))


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    """To the higher of their two bytes."""
    values = [0, 1, 255, 256, 257, 511, 512, 0x1234, 0x7FFF, 0x8000, 0xFEFF, 0xFF00, 0xFFFF]
    Image.fromarray(np.array([values], "uint16")).save(tmp_path / "deep.tif")
    found = read_image(tmp_path / "deep.tif", 1)
    assert found[0, :, 0].tolist() == [0, 0, 0, 1, 1, 1, 2, 0x12, 0x7F, 0x80, 0xFE, 0xFF, 0xFF]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("bits", "order", "white"), [(12, "<", 1), (16, "<", 1), (16, ">", 1), (16, "<", 0)])
def test_deep_grey_is_scaled_by_the_bits_that_the_file_says(bits, order, white, compressed):
    """`white` is TIFF's PhotometricInterpretation: of 0, the number 0 is white."""
    values = np.arange(16, dtype="uint16") << (bits - 4)
    if bits == 12:  # two samples in three bytes, the upper bits first
        high, low = values[::2], values[1::2]
        data = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], -1).astype("uint8").tobytes()
    else:
        data = values.astype(f"{order}u2").tobytes()
    tags = {256: 16, 257: 1, 258: bits, 262: white, 339: 1}
    found = decode_image(tiff(tags, data, order, compressed), 1, "deep.tif")
    assert found.ravel().tolist() == list(range(0, 256, 16) if white else range(255, 0, -16))


@pytest.mark.parametrize(
    ("bits", "kind", "dtype"), [(8, 2, "int8"), (16, 2, "<i2"), (32, 1, "<u4"), (32, 2, "<i4"), (32, 3, "<f4")]
)
def test_numbers_whose_white_nobody_knows_are_refused(bits, kind, dtype):
    """Labels of 0 to 255 in 32 bits, heights, temperatures: any scale would be a guess."""
    data = np.full(16, 100, dtype).tobytes()
    named = f"{['', '', 'signed ', 'floating-point '][kind]}{bits}-bit numbers"
    with pytest.raises(ValueError, match=rf"deep.tif: .* its pixels are neither 8 nor 16 bit: its samples are {named}"):
        decode_image(tiff({256: 16, 257: 1, 258: bits, 262: 1, 339: kind}, data), 1, "deep.tif")


def test_exif_orientation_is_followed(tmp_path):
    image = Image.fromarray(np.zeros((4, 6), "uint8"))
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg", 1).shape == (6, 4, 1)


def png_of(width, height):
    """A PNG that claims a size and has next to no pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def test_what_is_no_image_is_named(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype("uint8")).save(tmp_path / "good.png")
    cases = {
        "text.jpg": (b"no picture at all", "cannot be read as an image"),
        "empty.png": (b"", "cannot be read as an image"),
        "cut.png": ((tmp_path / "good.png").read_bytes()[:3000], "cannot be read as an image"),
        "large.png": (png_of(12_000, 12_000), "over the limit"),
        "bomb.png": (png_of(100_000, 100_000), "over the limit"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: .*{message}"):
            read_image(tmp_path / name, 3)
    for name in ("none.png", "good.png/none.png"):
        with pytest.raises(ValueError, match=f"{name}: no such file$"):
            read_image(tmp_path / name, 3)
    with pytest.raises(ValueError, match="it is a folder, not a file"):
        read_image(tmp_path, 3)


@pytest.mark.parametrize("what", ["/dev/zero", "/dev/null", "pipe"])
def test_what_is_no_file_is_not_read(tmp_path, what):
    """A FIFO without a writer, and a device without an end: nothing waits, nothing fills the memory."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "image.png").symlink_to(tmp_path / what)
    with pytest.raises(ValueError, match=r"image.png: cannot be read as an image: it is a pipe or a device"):
        read_image(tmp_path / "image.png", 3)


def test_a_file_of_more_bytes_than_the_limit_is_not_read(tmp_path, monkeypatch):
    """A quarter of a gibibyte; the file is a hole on the disk."""
    hole = tmp_path / "hole.png"
    hole.touch()
    os.truncate(hole, 2**28 + 1)
    with pytest.raises(ValueError, match=r"hole.png: 268,435,457 bytes are over the limit of 268,435,456$"):
        read_image(hole, 3)
    file = tmp_path / "image.png"
    Image.new("RGB", (4, 3)).save(file)
    size = file.stat().st_size
    monkeypatch.setattr("polynet_keras.data.image_files.MAX_ENCODED_BYTES", size)
    assert read_image(file, 3).shape == (3, 4, 3)
    monkeypatch.setattr("polynet_keras.data.image_files.MAX_ENCODED_BYTES", size - 1)
    with pytest.raises(ValueError, match=rf"image.png: {size} bytes are over the limit of {size - 1}$"):
        read_image(file, 3)


def test_an_image_of_more_pixels_than_the_limit_is_not_decoded(tmp_path, monkeypatch):
    """Nor does Pillow warn of it, whose limit is this one: it is not asked."""
    claimed = png_of(Image.MAX_IMAGE_PIXELS + 1, 1)
    (tmp_path / "claimed.png").write_bytes(claimed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=r": 89478486 x 1 px is over the limit of 89,478,485 pixels"):
            read_image(tmp_path / "claimed.png", 3)
    file = tmp_path / "image.png"
    Image.new("RGB", (4, 3)).save(file)
    monkeypatch.setattr("polynet_keras.data.image_files.MAX_PIXELS", 12)
    assert read_image(file, 3).shape == (3, 4, 3)
    monkeypatch.setattr("polynet_keras.data.image_files.MAX_PIXELS", 11)
    with pytest.raises(ValueError, match="4 x 3 px is over the limit of 11 pixels"):
        read_image(file, 3)


def test_an_empty_file_says_so(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(ValueError, match=r"empty.png: cannot be read as an image: it is empty$"):
        read_image(tmp_path / "empty.png", 3)


def test_decoding_needs_pillow(monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match="not installed: pillow"):
        decode_image(b"anything", 3, "a.png")
