"""Limits for decoding: the formats, and the claims in a file that are checked before a decoder believes them.

A few bytes can claim tiles of gigabytes, overlapping tables, or a thousand passes over the picture, and decoders
allocate what is claimed. So Python reads the headers first, and allocates nothing that is not in the file. Decoders do
not get anything that the pixels do not need: profiles, texts, further frames and pages, and EXIF except orientation.
"""

import contextlib
import re
import struct
import zlib

import numpy as np

from polynet_keras.data.picture import Picture, TooLargeError, check_size
from polynet_keras.data.tiff_header import directory_entries, read_tiff

MAX_PIXELS = 89_478_485
"""The largest image that is decoded, Pillow's own bound: a few kilobytes of PNG can claim to be gigabytes of pixels.
In RGB it takes 268 MB."""
MAX_ENCODED_BYTES = 1 << 28
"""The largest image file that is read."""
MAX_SCANS = 100
"""Most scans of a JPEG, as in libtiff. A progressive one has about ten; each costs a pass over the image."""
MAX_METADATA = 1 << 24
"""Most bytes before a GIF's first picture."""
HEAD = 1 << 16
"""Bytes that contain the header of most files."""
MAX_TEXT = 1 << 20
"""Most bytes of an unpacked text that is searched for an orientation."""

JPEG_SIGNATURE, PNG_SIGNATURE = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
"""Markers of a JPEG."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""The accepted formats, by Pillow's names. Pillow reads forty others, some by starting another program."""


def first_picture(encoded: bytes, max_pixels: int = MAX_PIXELS) -> Picture:
    """Reads the header of an image file, whose format it detects by content.

    Raises:
        TooLargeError: the file claims more than a limit.
        ValueError: the file has none of `FORMATS`, or its header is damaged.
    """
    if not encoded:
        raise ValueError("it is empty")
    read = next((read for signature, read in READERS if signature.match(encoded)), None)
    if read is None:
        raise ValueError(f"its format is not one of {', '.join(FORMATS)}; convert it to one of these")
    try:
        picture = read(encoded, max_pixels)
    except (struct.error, IndexError):
        raise ValueError("it ends before its pixels") from None
    check_size(picture.width, picture.height, max_pixels)
    return picture


def claimed_pixels(encoded: bytes) -> int:
    """Returns the pixels of the first picture; 0 for a file without one."""
    for part in (encoded[:HEAD], encoded):  # that of a JPEG or a GIF is a header, most often, and needs no second look
        with contextlib.suppress(ValueError):
            picture = first_picture(part)
            return picture.width * picture.height
    return 0


def jpeg_orientation(encoded: bytes) -> int:
    """Returns the orientation of a JPEG that all decoders read alike; 0 for an incomplete one.

    Decoders may refuse a truncated JPEG, or fill it with grey. If a progressive one lacks its last scans, libjpeg makes
    up the missing data (block smoothing), and each version does so differently.
    """
    try:
        picture, frame, scan = _jpeg_segments(encoded, MAX_PIXELS)
        return picture.orientation if _is_whole(encoded, frame, scan) else 0
    except (ValueError, struct.error, IndexError):
        return 0


def _is_whole(encoded: bytes, frame: bytes, scan: int) -> bool:
    if frame[1] not in PROGRESSIVE:
        return encoded.endswith(END_OF_IMAGE) or encoded.find(END_OF_IMAGE, scan) >= 0
    end = encoded.find(END_OF_IMAGE, scan)
    if end < 0:
        return False
    missing = {(component, place): 1 for component in frame[10::3] for place in SMOOTHED}
    while (scan := encoded.find(START_OF_SCAN, scan, end)) >= 0:
        after = scan + 5 + 2 * encoded[scan + 4]
        first, last, bits = encoded[after : after + 3]
        for component in encoded[scan + 5 : after : 2]:
            missing |= dict.fromkeys(((component, place) for place in SMOOTHED if first <= place <= last), bits & 15)
        scan = after
    return not any(missing.values())


def _scans(encoded: bytes, position: int) -> int:
    """Counts the scans from a position on; `bytes.count` takes four times as long, a tenth of the time for decoding."""
    values = np.frombuffer(encoded, "uint8", offset=position)
    return int(np.count_nonzero((values[:-1] == START_OF_SCAN[0]) & (values[1:] == START_OF_SCAN[1])))


PROGRESSIVE = (0xC2, 0xCA)
"""Markers of progressive frames: Huffman-coded, arithmetic-coded."""
SMOOTHED = range(1, 10)
"""The coefficients whose missing lowest bits make libjpeg smooth a block (`jdcoefct.c`)."""


def _jpeg(encoded: bytes, max_pixels: int) -> Picture:
    return _jpeg_segments(encoded, max_pixels)[0]


def _jpeg_segments(encoded: bytes, max_pixels: int) -> tuple[Picture, bytes, int]:
    """Returns the picture, the segment of its frame, and the position of its first scan."""
    kept, position, size, exif, xmp, frame = [b"\xff\xd8"], 2, (0, 0), b"", b"", b""
    while True:
        position = encoded.find(b"\xff", position)
        if position < 0:
            raise ValueError("it ends before its pixels")
        marker = encoded[position + 1]
        if marker in (0x00, 0xFF):  # stuffing, filling
            position += 1
            continue
        if marker == 0xDA:  # the first scan
            break
        if marker == 0xD9:
            raise ValueError("it ends before its pixels")
        if marker in (0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            position += 2
            continue
        (length,) = struct.unpack_from(">H", encoded, position + 2)
        end = position + 2 + length
        content = encoded[position + 4 : end]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", content, 1)
            check_size(width, height, max_pixels)
            size, frame = (width, height), encoded[position:end]
        elif marker == 0xE1 and content.startswith(b"Exif\0\0"):
            exif = exif or content[6:]
        elif marker == 0xE1 and content.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp = xmp or content
        # Of the segments without pixels, decoders need JFIF's and Adobe's, which define the colours.
        if marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(encoded[position:end])
        position = end
    scans = _scans(encoded, position)
    if scans > MAX_SCANS:
        raise TooLargeError(f"a JPEG of {scans:,} scans is over the limit of {MAX_SCANS}")
    content = b"".join([*kept, memoryview(encoded)[position:]])  # megabytes, copied once
    return Picture("JPEG", *size, content, _orientation(exif, xmp)), frame, position


def _png(encoded: bytes, max_pixels: int) -> Picture:
    width, height = struct.unpack_from(">II", encoded, 16)
    kept, position, exif, xmp = [encoded[:8]], 8, b"", b""
    while position < len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, position)
        end = position + 12 + length
        # Critical chunks have a capital first; of the others, tRNS alone says something of the pixels.
        if not kind[0] & 0x20 or kind == b"tRNS":
            kept.append(encoded[position:end])
        elif kind == b"eXIf":
            exif = encoded[position + 8 : end - 4].removeprefix(b"Exif\0\0")
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            name, text = _png_text(kind, encoded[position + 8 : end - 4])
            if name == b"XML:com.adobe.xmp":
                xmp = text
            elif name == b"Raw profile type exif" and not exif:  # ImageMagick's, from before there was eXIf
                lines = text.split(b"\n")[3:]
                with contextlib.suppress(ValueError):
                    exif = bytes.fromhex(b"".join(lines).decode("ascii")).removeprefix(b"Exif\0\0")
        if kind == b"IEND":
            break
        position = end
    return Picture("PNG", width, height, b"".join(kept), _orientation(exif, xmp))


def _png_text(kind: bytes, content: bytes) -> tuple[bytes, bytes]:
    """Returns the keyword, and the text if it may contain an orientation."""
    name, _, text = content.partition(b"\0")
    if name not in (b"XML:com.adobe.xmp", b"Raw profile type exif"):
        return name, b""
    packed = kind == b"zTXt"
    if packed:
        text = text[1:]
    elif kind == b"iTXt":
        packed = text[:1] == b"\1"
        text = text[2:].split(b"\0", 2)[-1]  # behind a language and a translated keyword
    try:
        return name, zlib.decompressobj().decompress(text, MAX_TEXT) if packed else text[:MAX_TEXT]
    except zlib.error:
        return name, b""


def _gif(encoded: bytes, max_pixels: int) -> Picture:
    width, height, flags = struct.unpack_from("<HHB", encoded, 6)
    start = position = 13 + (flags >> 7) * (3 << (flags % 8 + 1))
    control = b""
    while encoded[position] != 0x2C:  # the first picture
        if encoded[position] == 0x3B:
            raise ValueError("it ends before its pixels")
        if encoded[position] != 0x21:
            position += 1
        else:  # an extension, in blocks of up to 255 bytes
            end = position + 2
            while encoded[end]:
                end += 1 + encoded[end]
                if end > MAX_METADATA:
                    break
            if encoded[position + 1] == 0xF9:
                control = encoded[position : end + 1]
            position = end + 1
        if position > MAX_METADATA:
            raise TooLargeError(f"its first picture begins after {position:,} bytes, more than {MAX_METADATA:,}")
    left, top, wide, high = struct.unpack_from("<HHHH", encoded, position + 1)
    only = b"".join((encoded[:start], control, encoded[position:]))
    return Picture("GIF", max(width, left + wide), max(height, top + high), only)


def _webp(encoded: bytes, max_pixels: int) -> Picture:
    kept, position, width, height, exif, xmp, drawn = [], 12, 0, 0, b"", b"", False
    while position + 8 <= len(encoded):
        kind, length = struct.unpack_from("<4sI", encoded, position)
        end = position + 8 + length
        content = encoded[position + 8 : end]
        if kind == b"EXIF":
            exif = content.removeprefix(b"Exif\0\0")
        elif kind == b"XMP ":
            xmp = content
        elif not drawn and kind in (b"VP8X", b"ANIM", b"ALPH", b"ANMF", b"VP8 ", b"VP8L"):
            wide = high = 0
            if kind == b"VP8X":
                # Without its flags for a profile, EXIF and XMP.
                content = bytes([content[0] & ~0x2C]) + content[1:]
                wide, high = (1 + int.from_bytes(content[at : at + 3], "little") for at in (4, 7))
            elif kind == b"VP8 ":
                wide, high = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 6))
            elif kind == b"VP8L":
                (sides,) = struct.unpack_from("<I", content, 1)
                wide, high = 1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF)
            if end > len(encoded):
                raise ValueError("it is truncated")
            drawn = kind in (b"ANMF", b"VP8 ", b"VP8L")  # further frames are left out
            width, height = max(width, wide), max(height, high)
            kept.append(kind + struct.pack("<I", length) + content + bytes(length % 2))
        position = end + length % 2
    body = b"WEBP" + b"".join(kept)
    return Picture("WEBP", width, height, b"RIFF" + struct.pack("<I", len(body)) + body, _orientation(exif, xmp))


def _bmp(encoded: bytes, max_pixels: int) -> Picture:
    (size,) = struct.unpack_from("<I", encoded, 14)
    if size == 12:
        width, height, compression = *struct.unpack_from("<HH", encoded, 18), 0
    else:
        width, height, _, _, compression = struct.unpack_from("<IiHHI", encoded, 18)
    if compression in (1, 2) and 256 * width > max_pixels:  # run lengths: two bytes may pass over 255 rows
        raise TooLargeError(f"a run-length encoded BMP of {width} px in a row is over the limit of {max_pixels // 256}")
    return Picture("BMP", width, abs(height), encoded)


def _ppm(encoded: bytes, max_pixels: int) -> Picture:
    kind = encoded[:2]
    found = PPM_HEADERS[kind in (b"P1", b"P4")].match(encoded)
    if not found:
        raise ValueError("its header is damaged")
    numbers = [int(number) for number in found.groups()]
    # Written anew, without comments, which Pillow reads byte by byte.
    header = kind + b"\n" + b"".join(b"%d\n" % number for number in numbers)
    return Picture("PPM", numbers[0], numbers[1], header + encoded[found.end() :])


PPM_SPACE = rb"(?:[ \t\n\v\f\r]|#[^\n\r]*+[\n\r])++"
PPM_HEADERS = [
    re.compile(rb"P[1-6]" + count * (PPM_SPACE + rb"(\d{1,10})") + rb"[ \t\n\v\f\r]", re.DOTALL) for count in (3, 2)
]
"""Headers with the largest value of a sample, and without."""


def _orientation(exif: bytes, xmp: bytes) -> int:
    """Returns the orientation of EXIF's first directory (CIPA DC-008, 4.6.4), or else of XMP."""
    found = 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order:
        try:
            (start,) = struct.unpack_from(order + "I", exif, 4)
            for tag, kind, count, _, value in directory_entries(exif, order, False, start):
                if tag == 0x0112 and count == 1 and kind in (1, 3, 4):
                    (found,) = struct.unpack_from(order + {1: "B", 3: "H", 4: "I"}[kind], exif, value)
                    break
        except struct.error:  # it was cut, or never was a directory
            pass
    if not found and (match := re.search(rb'tiff:Orientation(?:="|>)([0-9])', xmp)):
        found = int(match[1])
    return int(found) if found in range(1, 9) else 1


READERS = tuple(
    (re.compile(signature, re.DOTALL), read)
    for signature, read in (
        (re.escape(JPEG_SIGNATURE), _jpeg),
        (re.escape(PNG_SIGNATURE), _png),
        (rb"RIFF....WEBP", _webp),
        (rb"GIF8[79]a", _gif),
        (rb"BM", _bmp),
        (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", read_tiff),
        (rb"P[1-6][ \t\n\v\f\r#]", _ppm),
    )
)
"""Readers by the beginning of the file."""
