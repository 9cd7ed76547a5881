"""What a file claims is bounded before a decoder allocates it."""

import contextlib
import io
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from polynet_keras.data import image_headers
from polynet_keras.data.image_files import decode_image
from polynet_keras.data.image_headers import claimed_pixels, first_picture
from polynet_keras.data.picture import TooLargeError
from tests.data.hostile import ORIENTATIONS, hostile_images, tiff

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 9, 3)).astype("uint8")


def encode(form, **options):
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, form, **options)
    return file.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def exif_bomb(entries=2000, size=60_000):
    """Tags that all claim the same bytes: a reader of all of them allocates `entries` times `size`."""
    at = 8 + 2 + 12 * entries + 4
    lines = b"".join(struct.pack("<HHII", 1000 + i, 7, size - at, at) for i in range(entries))
    return (b"II*\0" + struct.pack("<IH", 8, entries) + lines).ljust(size, b"\0")


def tiled(wide, high, width=100, height=100, **more):
    tags = {256: width, 257: height, 258: (8, 8, 8), 259: 8, 262: 2, 277: 3, 322: wide, 323: high}
    return tiff({**tags, 324: 8, 325: 30, **more}, zlib.compress(bytes(10_000)))


def scans(count):
    jpeg = encode("JPEG")
    start = jpeg.index(b"\xff\xda")
    return jpeg[:start] + jpeg[start:-2] * count + jpeg[-2:]


CLAIMS = {
    "tiles": (tiled(40_000, 16_000), "tiles of 40000 x 16000 px are over the limit"),
    "a high tile": (tiled(16, 6_000_000), "tiles of 16 x 6000000 px"),
    "many padded tiles": (tiled(1_000_000, 80, 1, 30_000), "are over the limit|is over the limit"),
    "many strips": (tiff({256: 1, 257: 400_000, 262: 1, 258: 8, 278: 1}, b"\0"), "a TIFF of 400,000 strips"),
    "pages of strips": (tiff({256: 9, 257: 9, 262: 1, 258: 8, 273: 8, 279: range(300_001)}, b"\0"), "300,001 strips"),
    "tiff pixels": (tiff({256: 60_000, 257: 60_000, 262: 1, 258: 8}, b"\0"), "60000 x 60000 px is over"),
    "a fax": (tiff({256: 80_000_000, 257: 1, 262: 0, 258: 1, 259: 4}, b"\0"), "a fax of 80000000 px"),
    "bmp": (b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 50_000, 50_000, 1, 24, 0) + bytes(99), "50000 x 50000 px"),
    "bmp in runs": (
        b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, 80_000_000, 1, 1, 8, 1) + bytes(99),
        "run-length encoded BMP of 80000000 px in a row is over the limit of 349525",
    ),
    "ppm": (b"P6 #\n 40000\n30000 255\n", "40000 x 30000 px is over the limit"),
    "webp": (
        b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xfe\x3f\0" * 2 + b"VP8L\x05\0\0\0\x2f\0\0\0\0\0",
        "16383 x 16383 px is over the limit",
    ),
    "gif frame": (
        b"GIF89a\x01\0\x01\0\0\0\0," + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0) + b"\x08\x00",
        "60000 x 60000 px is over",
    ),
    "scans": (scans(101), "a JPEG of 101 scans is over the limit of 100"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_over_a_limit_are_refused_by_the_header(name, monkeypatch):
    encoded, message = CLAIMS[name]
    monkeypatch.setattr(Image, "open", None)  # no decoder is asked
    tracemalloc.start()
    with pytest.raises(TooLargeError, match=f"^x: .*(?:{message})"):
        decode_image(encoded, 3, "x")
    assert tracemalloc.get_traced_memory()[1] < 8e6 + 10 * len(encoded)
    tracemalloc.stop()


def test_what_the_service_allows_may_be_less():
    png = encode("PNG")
    assert decode_image(png, 3, "x", 45).shape == (5, 9, 3)
    with pytest.raises(TooLargeError, match="9 x 5 px is over the limit of 44 pixels"):
        decode_image(png, 3, "x", 44)
    # Tiles larger than a small image are usual; they count by what is allocated.
    with pytest.raises(TooLargeError, match="tiles of 512 x 512 px are over the limit of 100,000"):
        first_picture(tiled(512, 512), 100_000)
    assert first_picture(tiled(256, 256), 100_000).width == 100


def test_pixels_are_told_by_the_header():
    assert claimed_pixels(encode("PNG")) == 9 * 5
    assert claimed_pixels(b"no picture") == 0


def riff(*chunks):
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(one)) + one + bytes(len(one) % 2) for kind, one in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def burdened(form):
    """Each format's file with what would make Pillow allocate 100 MB and more, and no pixel different."""
    bomb, text = exif_bomb(), zlib.compress(bytes(100_000_000))
    if form == "JPEG":
        jpeg = encode(form)
        exif, pictures = b"Exif\0\0" + bomb, b"MPF\0" + bomb
        added = b"".join(
            b"\xff" + m + struct.pack(">H", len(s) + 2) + s for m, s in ((b"\xe1", exif), (b"\xe2", pictures))
        )
        return jpeg[:2] + added + jpeg[2:]
    if form == "PNG":
        png = encode(form)
        added = chunk(b"eXIf", bomb) + chunk(b"zTXt", b"a\0\0" + text) + chunk(b"iCCP", b"a\0\0" + text)
        return png[:33] + added + png[33:-12] + chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + text) + png[-12:]
    if form == "WEBP":
        lossless = encode(form, lossless=True)[20:]
        sides = (8).to_bytes(3, "little") + (4).to_bytes(3, "little")
        return riff((b"VP8X", b"\x2c\0\0\0" + sides), (b"ICCP", bomb), (b"VP8L", lossless), (b"EXIF", bomb))
    tags = dict.fromkeys(range(40_000, 41_000), b"x" * 9) | {256: 9, 257: 5, 258: (8, 8, 8), 262: 2, 277: 3}
    burden = bytearray(tiff(tags, PIXELS.tobytes() + bytes(200_000)))
    (start,) = struct.unpack_from("<I", burden, 4)
    for at in range(start + 2, start + 2 + 12 * 1011, 12):
        if burden[at + 1] == 40_000 >> 8 or struct.unpack_from("<H", burden, at)[0] >= 40_000:
            struct.pack_into("<II", burden, at + 4, 200_000, 8)  # all of them the same 200 kB
    return bytes(burden)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_what_the_pixels_do_not_need_no_decoder_is_shown(form):
    expected = np.asarray(Image.open(io.BytesIO(encode("JPEG")))) if form == "JPEG" else PIXELS
    encoded = burdened(form)
    tracemalloc.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow, from 12 on, bounds some of it itself, and warns a thousand times
        found = decode_image(encoded, 3, "x")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, expected)
    assert most < 5e6


def test_run_lengths_of_a_bmp_pass_over_few_rows():
    """Two bytes may pass over 255 rows, and Pillow writes all of them down: 255 rows of the widest are 89 MB."""
    head = struct.pack("<IiiHHIIiiII", 40, 300_000, 1, 1, 8, 1, 0, 0, 0, 2, 0)
    bmp = b"BM" + struct.pack("<IHHI", 99, 0, 0, 62) + head + bytes(8) + b"\0\2\0\xff" * 20 + b"\0\1"
    tracemalloc.start()
    decode_image(bmp, 3, "x")
    assert tracemalloc.get_traced_memory()[1] < 400e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    "encoded",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\nshowpage\n",
        b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, 99) + bytes(120),  # EPS of DOS
        b"\xd7\xcd\xc6\x9a\0\0" + bytes(60),  # WMF
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),  # FPX, MIC
        b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60),  # JPEG 2000
        b"\0\0\0\x20ftypavif" + bytes(60),
        b"8BPS\0\1" + bytes(60),
        b"P7\nWIDTH 1\n",
        b"Pf\n1 1\n-1.0\n" + bytes(4),
        b"<svg/>",
    ],
)
def test_other_formats_are_refused_whatever_their_name(encoded, monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    with pytest.raises(ValueError, match=r"^photo.jpg: cannot be read as an image: its format is not one of JPEG, PNG"):
        decode_image(encoded, 3, "photo.jpg")


@pytest.mark.parametrize("compression", [6, 34_925, 34_676, 32_809, 65_000])
def test_compressions_of_tiff_that_nobody_needs(compression):
    with pytest.raises(ValueError, match=f"TIFF's compression {compression} is not read here"):
        first_picture(tiff({256: 9, 257: 5, 258: 8, 262: 1, 259: compression}, bytes(45)))


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("where", ["JPEG", "PNG", "WEBP", "TIFF", "XMP", "raw profile", "big-endian"])
def test_orientations_wherever_they_stand(where, value):
    exif = Image.Exif()
    exif[0x0112] = value
    expected, xmp = PIXELS, b'<x tiff:Orientation="%d"/>' % value
    if where == "JPEG":
        expected, encoded = np.asarray(Image.open(io.BytesIO(encode("JPEG")))), encode("JPEG", exif=exif)
    elif where == "XMP":
        expected, jpeg = np.asarray(Image.open(io.BytesIO(encode("JPEG")))), encode("JPEG")
        content = b"http://ns.adobe.com/xap/1.0/\0" + xmp
        encoded = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + jpeg[2:]
    elif where == "raw profile":
        png, profile = encode("PNG"), (b"Exif\0\0" + exif.tobytes()[6:]).hex().encode()
        encoded = (
            png[:33]
            + chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n  9\n" + profile))
            + png[33:]
        )
    elif where == "TIFF":
        encoded = encode("TIFF", tiffinfo={274: value})
    elif where == "big-endian":
        block = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)
        encoded = encode("PNG")[:-12] + chunk(b"eXIf", block) + encode("PNG")[-12:]
    else:
        encoded = encode(where, exif=exif, lossless=True)
    np.testing.assert_array_equal(decode_image(encoded, 3, "x"), ORIENTATIONS[value](expected))


def test_the_header_says_what_the_decoder_finds():
    """Of all readable files of the corpus: no decoder meets a size that was not looked at."""
    for image in hostile_images():
        if image.pixels is not None:
            picture = first_picture(image.encoded)
            with Image.open(io.BytesIO(picture.encoded)) as opened:
                assert opened.size == (picture.width, picture.height), image.name


@pytest.mark.parametrize("seed", range(3))
def test_damaged_headers_raise_value_errors_alone(seed):
    rng = np.random.default_rng(seed)
    for image in hostile_images():
        for _ in range(5):
            content = bytearray(image.encoded[: rng.integers(1, 400)])
            for place in rng.integers(0, max(1, len(content)), 4) if content else ():
                content[place] = rng.integers(0, 256)
            with contextlib.suppress(ValueError):
                first_picture(bytes(content))


def test_one_list():
    assert image_headers.FORMATS == ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
    assert len(image_headers.READERS) == len(image_headers.FORMATS)
