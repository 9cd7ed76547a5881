"""The header of a TIFF file: its claims are checked, and its first page alone goes to a decoder."""

import struct
from collections.abc import Iterator

from polynet_keras.data.picture import Picture, TooLargeError, check_size

MAX_SEGMENTS = 300_000
"""Most strips or tiles of a TIFF."""
TIFF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes per value of each type; also of BigTIFF."""
TIFF_TAGS = frozenset(
    (256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 338)
) | {339, 347, 529, 530, 531, 532}
"""Tags that the pixels need (TIFF 6.0, its technical notes, libtiff)."""
TIFF_COMPRESSIONS = frozenset((1, 2, 3, 4, 5, 7, 8, 32771, 32773, 32946, 50000))
"""None, CCITT, LZW, JPEG, Deflate, PackBits, Zstandard. Not LZMA, which allocates what its stream claims; not the first
JPEG, which was abandoned in 1995; and not WebP, for which the libtiff in Pillow's wheels has only a warning."""
MAX_SAMPLES = 6
"""Most samples of a TIFF's pixel: colours and extra samples; Pillow reads no more, and logs it."""
CCITT = (2, 3, 4)
ORIENTATION = 274
COUNTS = frozenset((256, 257, 258, 259, 262, 274, 277, 278, 284, 322, 323, 339))
"""Tags that are unsigned integers."""


def read_tiff(encoded: bytes, max_pixels: int) -> Picture:
    """Reads the header of a TIFF or BigTIFF file.

    Raises:
        TooLargeError: the file claims more than a limit.
        ValueError: its pixels cannot be read, or its header is damaged; also `struct.error`.
    """
    order = "<" if encoded[:1] == b"I" else ">"
    big = encoded[2:4] in (b"+\0", b"\0+")
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), encoded, 8 if big else 4)
    tags: dict[int, tuple[int, ...]] = {}
    entries, claimed, seen = [], 0, set()
    for tag, kind, count, entry, value in directory_entries(encoded, order, big, start):
        # Of a tag that is there twice, libtiff takes the first, Pillow the last.
        if tag not in TIFF_TAGS or tag in seen:
            continue
        seen.add(tag)
        size = TIFF_TYPES.get(kind, 1) * count
        inline = size <= (8 if big else 4)
        at = value if inline else struct.unpack_from(order + ("Q" if big else "I"), encoded, value)[0]
        claimed += size
        if at + size > len(encoded) or claimed > 2 * len(encoded):
            raise ValueError(f"its tag {tag} has {size:,} bytes, and the file ends before them")
        if tag != ORIENTATION:
            entries.append(entry)
        if code := {1: "B", 3: "H", 4: "I", 16: "Q"}.get(kind):
            tags[tag] = struct.unpack_from(f"{order}{min(count, 16)}{code}", encoded, at)
        if tag in COUNTS and not tags.get(tag):
            raise ValueError(f"its tag {tag} has the type {kind}, which cannot be a count")
        if tag in (273, 279, 324, 325) and count > MAX_SEGMENTS:
            raise TooLargeError(f"a TIFF of {count:,} strips or tiles is over the limit of {MAX_SEGMENTS:,}")

    def first(tag: int, default: int = 0) -> int:
        return (tags.get(tag) or (default,))[0]

    width, height, compression = first(256), first(257), first(259, 1)
    check_size(width, height, max_pixels)
    if compression not in TIFF_COMPRESSIONS:
        raise ValueError(f"TIFF's compression {compression} is not read here")
    if compression in CCITT and width > 0xFFFF:
        raise TooLargeError(f"a fax of {width} px in a row is over the limit of {0xFFFF}")
    wide, high = (first(322), first(323)) if 322 in tags or 324 in tags else (width, min(first(278, height), height))
    if min(wide, high) < 1:
        raise ValueError(f"it claims strips or tiles of {wide} x {high} px")
    across, down = -(-width // wide), -(-height // high)
    # Decoders allocate a whole tile, and unpack it, however small the image is.
    if wide * high > max_pixels or across * wide * down * high > 2 * max_pixels:
        raise TooLargeError(f"its tiles of {wide} x {high} px are over the limit of {max_pixels:,} pixels")
    planes = first(277, 1) if first(284, 1) == 2 else 1
    if across * down * planes > MAX_SEGMENTS:
        raise TooLargeError(
            f"a TIFF of {across * down * planes:,} strips or tiles is over the limit of {MAX_SEGMENTS:,}"
        )
    if first(277, 1) > MAX_SAMPLES:
        raise ValueError(f"it has {first(277)} samples a pixel, and at most {MAX_SAMPLES} are read; convert it")
    bits = max(tags.get(258, (1,)))
    numbers = {2: "signed ", 3: "floating-point "}.get(max(tags.get(339, (1,))), "")
    if numbers or bits > 16:
        raise ValueError(
            f"its pixels are neither 8 nor 16 bit: its samples are {numbers}{bits}-bit numbers, whose white is "
            "unknown; convert it to unsigned 8 or 16 bits"
        )
    # The same file with a new directory at its end.
    directory = len(encoded) + len(encoded) % 2
    head = (
        encoded[:8] + struct.pack(order + "Q", directory) if big else encoded[:4] + struct.pack(order + "I", directory)
    )
    length = struct.pack(order + ("Q" if big else "H"), len(entries))
    only = b"".join((head, encoded[len(head) :], bytes(len(encoded) % 2), length, *entries, bytes(8 if big else 4)))
    turned = first(ORIENTATION, 1)
    return Picture("TIFF", width, height, only, turned if turned in range(1, 9) else 1, bits, tags.get(262) == (0,))


def directory_entries(encoded: bytes, order: str, big: bool, start: int) -> Iterator[tuple[int, int, int, bytes, int]]:
    """Yields tag, type, count, bytes, and position of the value in the file, for each entry of a directory."""
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), encoded, start)
    position, size = start + (8 if big else 2), 20 if big else 12
    for _ in range(min(count, 0xFFFF)):
        tag, kind, values = struct.unpack_from(order + ("HHQ" if big else "HHI"), encoded, position)
        yield tag, kind, values, encoded[position : position + size], position + (12 if big else 8)
        position += size
