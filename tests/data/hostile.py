"""Image files as real folders hold them: every kind that trips a reader, with what a correct reading of each gives."""

import functools
import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

ORIENTATIONS = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}
"""From the stored pixels to upright ones, by the value of EXIF's tag 0x0112 (CIPA DC-008, 4.6.4 A)."""


@dataclass(frozen=True)
class HostileImage:
    """A file and what a reader has to make of it.

    Attributes:
        name: of the file; its extension does not always tell the truth.
        encoded: its bytes.
        pixels: uint8 array (height, width, 3): upright RGB of the first frame, the colours that are stored with alpha
            dropped, of 16 bits the upper eight. None of a file that has to be refused.
        reason: for a refused file, a part of the message; else None.
        alpha: uint8 array (height, width), where the file has one.
    """

    name: str
    encoded: bytes
    pixels: np.ndarray | None
    reason: str | None = None
    alpha: np.ndarray | None = None

    def pixels_of(self, channels: int) -> np.ndarray:
        """uint8 array (height, width, channels): grey by ITU-R BT.601, in 16 bits, or with alpha, 255 where there is
        none."""
        if channels == 1:
            red, green, blue = np.moveaxis(self.pixels.astype(int), -1, 0)
            return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16)[..., np.newaxis].astype("uint8")
        if channels == 4:
            alpha = np.full(self.pixels.shape[:2], 255, "uint8") if self.alpha is None else self.alpha
            return np.dstack([self.pixels, alpha])
        return self.pixels


@functools.cache
def hostile_images() -> tuple[HostileImage, ...]:
    """The corpus, the same at each call. Its pixels are those that were written, or of JPEGs the decoder's own."""
    return (*_jpegs(), *_pngs(), *_other_formats(), *_tiffs(), *_damaged(), *_bombs(), *_not_images())


def _photograph(height: int = 45, width: int = 70) -> np.ndarray:
    """Smooth colours under some noise: no symmetry, and sides that are no multiple of a JPEG's 8 or 16 px blocks."""
    y, x = np.mgrid[:height, :width]
    colours = np.stack([255 * x / width, 255 * y / height, 255 * (x + 2 * y) / (width + 2 * height)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 10, colours.shape)
    return np.clip(colours + noise, 0, 255).astype("uint8")


def _encode(image: Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _as_stored(encoded: bytes) -> np.ndarray:
    """Pillow's pixels, in the file's own channels and orientation."""
    return np.asarray(Image.open(io.BytesIO(encoded)))


def _rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., np.newaxis], 3, axis=-1)


def _oriented(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def _jpegs():
    photograph = Image.fromarray(_photograph())
    plain = _encode(photograph, "JPEG", quality=90)
    for name, encoded in (
        ("rgb_420.jpg", _encode(photograph, "JPEG", subsampling="4:2:0")),
        ("rgb_444.jpg", _encode(photograph, "JPEG", subsampling="4:4:4")),
        ("progressive.jpg", _encode(photograph, "JPEG", progressive=True)),
        ("jpeg_named.png", plain),
        ("bytes_after_the_end.jpg", plain + b"\0" * 100 + b"trailer of a camera"),
        # Where the size is known a damaged stream is decoded to its end, and what is shown is anyone's guess.
        ("garbage_in_the_middle.jpg", _with_garbage(plain)),
    ):
        yield HostileImage(name, encoded, _as_stored(encoded))
    coarse = _encode(photograph, "JPEG", progressive=True, subsampling="4:2:0")
    scan = coarse.index(b"\xff\xda", coarse.index(b"\xff\xda") + 2)
    # What the other scans would say libjpeg makes up, and each version otherwise.
    yield HostileImage("first_scan_alone.jpg", coarse[:scan] + plain[-2:], _as_stored(coarse[:scan] + plain[-2:]))
    yield HostileImage("cut_behind_its_first_scan.jpg", coarse[:scan], None, "truncated")
    yield HostileImage("without_an_end.jpg", plain[:-2], None, "truncated")
    yield HostileImage("bytes_between_segments.jpg", plain[:20] + bytes(7) + plain[20:], _as_stored(plain))
    yield HostileImage("arithmetic.jpg", _arithmetic_jpeg(), np.full((8, 8, 3), 128, "uint8"))
    malformed = _with_exif(plain, b"MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 30)
    yield HostileImage("malformed_exif.jpg", malformed, _as_stored(plain))

    grey = _encode(photograph.convert("L"), "JPEG")
    yield HostileImage("grey.jpg", grey, _rgb(_as_stored(grey)))

    ink = np.dstack([_photograph(), _photograph()[..., 1] // 4])  # CMYK; Pillow writes it inverted, as Adobe does
    cmyk = _encode(Image.fromarray(ink, "CMYK"), "JPEG", quality=95)
    stored = _as_stored(cmyk).astype("float64")
    yield HostileImage(
        "cmyk.jpg", cmyk, np.rint((255 - stored[..., :3]) * (255 - stored[..., 3:]) / 255).astype("uint8")
    )

    adobe = cmyk.index(b"\xff\xee")
    # Which way round the ink is, nothing says then: Pillow takes it for Adobe's, as who writes such files does.
    bare = cmyk[:adobe] + cmyk[adobe + 2 + int.from_bytes(cmyk[adobe + 2 : adobe + 4], "big") :]
    yield HostileImage(
        "cmyk_without_adobe.jpg", bare, np.rint((255 - stored[..., :3]) * (255 - stored[..., 3:]) / 255).astype("uint8")
    )

    for value, upright in ORIENTATIONS.items():
        encoded = _encode(photograph, "JPEG", exif=_oriented(value))
        yield HostileImage(f"orientation_{value}.jpg", encoded, upright(_as_stored(encoded)))

    second = Image.fromarray(255 - _photograph())
    two_frames = _encode(photograph, "MPO", save_all=True, append_images=[second])
    yield HostileImage("two_frames_mpo.jpg", two_frames, _as_stored(two_frames))


def _arithmetic_jpeg() -> bytes:
    """One grey block, arithmetic-coded. "No difference" and "end of block" are the lower ends of their intervals, and
    an encoder leaves zeros at the end out: it has no byte (T.81, annex D)."""
    parts = (
        (0xDB, b"\0" + b"\1" * 64),
        (0xC9, struct.pack(">BHHB", 8, 8, 8, 1) + b"\1\x11\0"),
        (0xDA, b"\1\1\0\0\x3f\0"),
    )
    segments = (struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content for marker, content in parts)
    return b"\xff\xd8" + b"".join(segments) + b"\xff\xd9"


def _with_exif(jpeg: bytes, content: bytes) -> bytes:
    segment = b"Exif\0\0" + content
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


def _with_garbage(jpeg: bytes) -> bytes:
    middle = len(jpeg) // 2
    noise = np.random.default_rng(1).integers(0, 255, 60, "uint8").tobytes()  # without 255, which starts a marker
    return jpeg[:middle] + noise + jpeg[middle + len(noise) :]


def _png(pixels: np.ndarray, interlaced: bool = False) -> bytes:
    """A PNG of 8 or 16 bit, grey or RGB, without a filter; by the format's specification, not by Pillow."""
    height, width = pixels.shape[:2]
    passes = [(0, 0, 1, 1)]
    if interlaced:  # Adam7: top, left, vertical and horizontal step of each pass
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    lines = b"".join(
        b"\0" + line.tobytes()
        for top, left, down, right in passes
        for line in pixels.astype(pixels.dtype.newbyteorder(">"))[top::down, left::right]
        if line.size
    )
    return _png_file(width, height, 8 * pixels.itemsize, 2 if pixels.ndim == 3 else 0, interlaced, lines)


def _png_file(width: int, height: int, bits: int, colour: int, interlaced: bool, lines: bytes, extra: bytes = b""):
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)
    parts = (_chunk(b"IHDR", header), extra, _chunk(b"IDAT", zlib.compress(lines)), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _pngs():
    pixels = _photograph()
    generator = np.random.default_rng(2)
    deep = generator.integers(0, 2**16, (*pixels.shape[:2], 3), "uint16")
    alpha = generator.integers(0, 256, pixels.shape[:2], "uint8")
    rgba = _encode(Image.fromarray(np.dstack([pixels, alpha])), "PNG")
    grey_alpha = _encode(Image.fromarray(np.dstack([pixels[..., 0], alpha])), "PNG")
    for name, encoded, expected in (
        ("rgb.png", _png(pixels), pixels),
        ("png_named.JPEG", _png(pixels), pixels),
        ("interlaced.png", _png(pixels, interlaced=True), pixels),
        ("grey.png", _png(pixels[..., 0]), _rgb(pixels[..., 0])),
        ("grey_16_bit.png", _png(deep[..., 0]), _rgb(deep[..., 0] >> 8)),
        ("rgb_16_bit.png", _png(deep), deep >> 8),
        ("exif_orientation_6.png", _encode(Image.fromarray(pixels), "PNG", exif=_oriented(6)), np.rot90(pixels, -1)),
        ("one_pixel.png", _png(pixels[:1, :1]), pixels[:1, :1]),
        ("column_1x3000.png", _png(_photograph(3000, 1)), _photograph(3000, 1)),
        ("row_3000x1.png", _png(_photograph(1, 3000)), _photograph(1, 3000)),
    ):
        yield HostileImage(name, encoded, expected.astype("uint8"))
    yield HostileImage("rgba.png", rgba, pixels, alpha=alpha)
    yield HostileImage("grey_alpha.png", grey_alpha, _rgb(pixels[..., 0]), alpha=alpha)

    index, colours, palette = _palette()
    yield HostileImage("palette.png", _encode(palette, "PNG"), colours[index])
    transparent = np.where(index == 3, 0, 255).astype("uint8")
    yield HostileImage(
        "palette_transparent.png", _encode(palette, "PNG", transparency=3), colours[index], alpha=transparent
    )

    bits = generator.integers(0, 2, pixels.shape[:2], "uint8")
    lines = b"".join(b"\0" + np.packbits(line).tobytes() for line in bits)
    one_bit = _png_file(bits.shape[1], bits.shape[0], 1, 0, False, lines)
    yield HostileImage("one_bit.png", one_bit, _rgb(255 * bits))


def _palette(seed: int = 3) -> tuple[np.ndarray, np.ndarray, Image.Image]:
    """Indices (height, width), 16 colours (16, 3), and the image of both."""
    generator = np.random.default_rng(seed)
    index = generator.integers(0, 16, (45, 70), "uint8")
    colours = generator.permutation(256)[:48].reshape(16, 3).astype("uint8")
    image = Image.fromarray(index, "P")
    image.putpalette(colours.tobytes())
    return index, colours, image


def _other_formats():
    pixels = _photograph()
    image, second = Image.fromarray(pixels), Image.fromarray(255 - pixels)
    index, colours, palette = _palette()
    next_frame = _palette(seed=4)[2]
    for name, encoded, expected in (
        ("rgb.bmp", _encode(image, "BMP"), pixels),
        ("run_lengths.bmp", *_run_lengths()),
        ("still.gif", _encode(palette, "GIF"), colours[index]),
        ("animated.gif", _encode(palette, "GIF", save_all=True, append_images=[next_frame]), colours[index]),
        ("still.webp", _encode(image, "WEBP", lossless=True), pixels),
        ("animated.webp", _encode(image, "WEBP", lossless=True, save_all=True, append_images=[second]), pixels),
    ):
        yield HostileImage(name, encoded, expected)


def _run_lengths() -> tuple[bytes, np.ndarray]:
    """A BMP of 5 × 2 px in runs, the lowest row first, and its pixels."""
    colours = np.array([(10, 20, 30), (200, 100, 50), (0, 255, 0), (9, 8, 7)], "uint8")
    runs = bytes((3, 1, 2, 2, 0, 0)) + bytes((0, 3, 0, 1, 2, 0, 2, 3)) + bytes((0, 1))
    palette = b"".join(bytes((blue, green, red, 0)) for red, green, blue in colours)
    start = 14 + 40 + len(palette)
    head = b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start)
    head += struct.pack("<IiiHHIIiiII", 40, 5, 2, 1, 8, 1, len(runs), 0, 0, 4, 4)
    return head + palette + runs, colours[np.array([[0, 1, 2, 3, 3], [1, 1, 1, 2, 2]])]


def _tiffs():
    pixels = _photograph()
    height, width = pixels.shape[:2]
    generator = np.random.default_rng(5)
    deep = generator.integers(0, 2**16, (height, width), "uint16")
    bits = generator.integers(0, 2, (height, width), "uint8")
    size, rows = {256: width, 257: height}, b"".join(np.packbits(line).tobytes() for line in bits)
    colours = {**size, 258: (8, 8, 8), 262: 2, 277: 3}
    for name, encoded, expected in (
        ("rgb.tif", tiff(colours, pixels.tobytes()), pixels),
        ("big_endian.tiff", tiff(colours, pixels.tobytes(), ">"), pixels),
        ("deflated.tif", tiff(colours, pixels.tobytes(), compressed=True), pixels),
        ("turned.tif", tiff({**colours, 274: 6}, pixels.tobytes()), np.rot90(pixels, -1)),
        ("grey_16_bit.tif", tiff({**size, 258: 16, 262: 1}, deep.tobytes()), _rgb(deep >> 8)),
        ("white_is_zero.tif", tiff({**size, 258: 8, 262: 0}, pixels[..., 0].tobytes()), _rgb(255 - pixels[..., 0])),
        ("one_bit.tif", tiff({**size, 258: 1, 262: 1}, rows), _rgb(255 * bits)),
        (
            "grey.pgm",
            b"P5 # made by hand\n%d %d 255\n" % (width, height) + pixels[..., 0].tobytes(),
            _rgb(pixels[..., 0]),
        ),
        ("rgb.ppm", b"P6\n%d\n%d\n255\n" % (width, height) + pixels.tobytes(), pixels),
    ):
        yield HostileImage(name, encoded, expected.astype("uint8"))
    # Lab's lightness without colour, as sRGB (IEC 61966-2-1).
    light = generator.choice((100, 128, 150, 200), (height, width))
    luminance = ((light / 2.55 + 16) / 116) ** 3
    srgb = np.rint(255 * (1.055 * luminance ** (1 / 2.4) - 0.055)).astype("uint8")
    lab = np.dstack([light, 0 * light, 0 * light]).astype("uint8")
    yield HostileImage("lab.tif", tiff({**colours, 262: 8}, lab.tobytes()), _rgb(srgb))

    ten = generator.integers(0, 1024, (height, width))
    scaled = np.rint(ten / 1023 * 65535).astype(int) >> 8
    pgm = b"P5\n%d %d\n1023\n" % (width, height) + ten.astype(">u2").tobytes()
    yield HostileImage("grey_10_bit.pgm", pgm, _rgb(scaled.astype("uint8")))
    yield HostileImage(
        "grey_10_bit.tif",
        tiff({**size, 258: 10, 262: 1}, bytes(2 * width * height)),
        None,
        "of a kind that is not read",
    )
    many = tiff({**size, 258: (8,) * 9, 262: 1, 277: 9}, bytes(9 * width * height))
    yield HostileImage("nine_samples.tif", many, None, "9 samples a pixel")
    labels = tiff({**size, 258: 32, 262: 1}, bytes(4 * width * height))
    yield HostileImage("labels_32_bit.tif", labels, None, "neither 8 nor 16 bit")
    yield HostileImage(
        "huge_tiles.tif", tiff({**size, 258: 8, 262: 1, 322: 40_000, 323: 40_000, 324: 8, 325: 1}, b"0"), None, "limit"
    )


def tiff(tags: dict, data: bytes, order: str = "<", compressed: bool = False) -> bytes:
    """A TIFF of one strip, by the format's specification (TIFF 6.0), not by Pillow.

    Args:
        tags: by their numbers: integers, sequences of them, or bytes; width, height and what else the pixels need.
        data: the strip.
        order: of the bytes, `"<"` or `">"`.
        compressed: whether the strip is deflated.
    """
    data = zlib.compress(data) if compressed else data
    tags = {277: 1, 278: tags[257], 259: 8 if compressed else 1, 273: 8, 279: len(data), **tags}
    data += bytes(len(data) % 2)
    extra, entries = b"", b""
    end = 8 + len(data) + 2 + 12 * len(tags) + 4
    for tag, value in sorted(tags.items()):
        values = [value] if isinstance(value, int) else list(value)
        kind, code = (1, "B") if isinstance(value, bytes) else (4, "I") if max(values) > 0xFFFF else (3, "H")
        content = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(content) > 4:
            content, extra = struct.pack(f"{order}I", end + len(extra)), extra + content + bytes(len(content) % 2)
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + content.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + extra


def _damaged():
    pixels = _photograph()
    jpeg, png = _encode(Image.fromarray(pixels), "JPEG", quality=95), _png(pixels)
    gif, webp = _encode(_palette()[2], "GIF"), _encode(Image.fromarray(pixels), "WEBP")
    for name, encoded in (
        ("half.jpg", jpeg[: len(jpeg) // 2]),
        ("cut_header.jpg", jpeg[:100]),
        ("half.png", png[: len(png) // 2]),
        ("flipped_byte.png", png[:60] + bytes([png[60] ^ 1]) + png[61:]),
        ("half.gif", gif[: len(gif) // 2]),
        ("half.webp", webp[: len(webp) // 2]),
    ):
        yield HostileImage(name, encoded, None, "cannot be read as an image")


def _bombs():
    """A few bytes that claim to be gigabytes."""
    jpeg = bytearray(_encode(Image.fromarray(_photograph()), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")  # marker, length, precision, height, width
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    text = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000)))
    gif = b"GIF89a" + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0)
    gif += b"," + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0) + b"\x08\x02\x10\x00\0;"
    for name, encoded, reason in (
        ("bomb_12000.png", _png_file(12_000, 12_000, 8, 2, False, bytes(100)), "limit"),
        ("bomb_20000.png", _png_file(20_000, 20_000, 8, 2, False, bytes(100)), "limit"),
        ("bomb_60000.jpg", bytes(jpeg), "limit"),
        ("bomb_60000.gif", gif, "limit"),
    ):
        yield HostileImage(name, encoded, None, reason)
    # A text is never unpacked.
    yield HostileImage("bomb_of_text.png", _png_file(1, 1, 8, 2, False, bytes(4), text), np.zeros((1, 1, 3), "uint8"))


def _not_images():
    for name, encoded in (
        ("empty.png", b""),
        ("text.jpg", b"no picture at all\n"),
        ("page.jpg", b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body></body></html>\n"),
        ("zeros.jpg", bytes(5000)),
    ):
        yield HostileImage(name, encoded, None, "cannot be read as an image")
