"""Reads the images in a request's body, within limits on its size and time."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from polynet_keras.deployment.serving.refusal import RefusalError, overloaded
from polynet_keras.deployment.serving.settings import ServingSettings

FORM = "multipart/form-data"
RAW = ("", "application/octet-stream", "application/x-www-form-urlencoded")
"""Accepted types besides `image/...`; `curl --data-binary` sends the last one for any file."""
MAX_FIELDS = 16
"""The largest number of a form's fields besides its files; they are ignored."""
MAX_FIELD_BYTES = 4096
PIECE = 8192
"""The bytes of a form that are parsed in one turn: each byte of a hostile form costs a microsecond."""
MAX_NAME = 100
"""The largest number of characters of a file's name in an answer."""


@dataclass(frozen=True)
class Upload:
    """A file from a client, with its name; `"image"` if it has none."""

    name: str
    encoded: bytes


class Buffer:
    """Counts the bytes of all bodies in memory."""

    def __init__(self, limit: int):
        self._limit = limit
        self.held = 0

    @contextmanager
    def body(self, limit: int) -> Iterator["Body"]:
        """Yields one body of at most `limit` bytes, until the context ends."""
        body = Body(self, limit)
        try:
            yield body
        finally:
            self.held -= body.size

    def take(self, size: int) -> None:
        if self.held + size > self._limit:
            raise overloaded(f"too many requests are arriving: their bodies exceed {self._limit:,} bytes")
        self.held += size


class Body:
    """Counts the bytes of one body."""

    def __init__(self, buffer: Buffer, limit: int):
        self._buffer, self._limit = buffer, limit
        self.size = 0

    def add(self, size: int) -> None:
        self.check(self.size + size)
        self._buffer.take(size)
        self.size += size

    def check(self, size: int) -> None:
        if size > self._limit:
            raise RefusalError(413, f"the body is over the limit of {self._limit:,} bytes")


def media_type(request: Request) -> str:
    """Returns `FORM`, or `""` for a raw image.

    Raises:
        RefusalError: 415 for any other type.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise RefusalError(415, f"Content-Encoding: {coding[:MAX_NAME]} is not accepted; send the file as it is")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        return FORM
    if kind in RAW or kind.startswith("image/"):
        return ""
    raise RefusalError(415, f"Content-Type: {kind[:MAX_NAME]} is not accepted; send the bytes of an image, or {FORM}")


async def read_image(request: Request, body: Body, settings: ServingSettings) -> Upload:
    """Returns the one image of a request: its raw body, or the one file of a form.

    Raises:
        RefusalError: 400 for a form without exactly one file, 408, 413, 415.
    """
    if media_type(request) == FORM:
        (upload,) = await _read_form(request, body, settings, 1)
        return upload
    async with _in_time(settings):
        encoded = b"".join([chunk async for chunk in _chunks(request, body)])
    _check_size(encoded, "image", settings)
    return Upload("image", encoded)


async def read_images(request: Request, body: Body, settings: ServingSettings) -> list[Upload]:
    """Returns the files of a form, in their order and without decoding them.

    Raises:
        RefusalError: 400 for a body that is not a form, or a form with no files or too many; 408, 413, 415.
    """
    if media_type(request) != FORM:
        raise RefusalError(415, f"a batch is {FORM} with a file for each image")
    return await _read_form(request, body, settings, settings.max_images)


async def _read_form(request: Request, body: Body, settings: ServingSettings, files: int) -> list[Upload]:
    # The parser would decode names with any codec of Python: some raise, some return text that UTF-8 cannot write.
    _, options = parse_options_header(request.headers["content-type"])
    charset = options.get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in ("utf-8", "utf8"):
        raise RefusalError(415, f"Content-Type: charset={charset[:MAX_NAME]} is not accepted; send the form in utf-8")
    parser = MultiPartParser(
        request.headers,
        _pieces(_chunks(request, body)),
        max_files=files,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD_BYTES,
    )
    parser.spool_max_size = settings.max_batch_bytes + 1  # in memory, within the checked limits, and not on a disk
    try:
        async with _in_time(settings):
            form = await parser.parse()
    except MultiPartException as error:
        raise RefusalError(400, f"the form cannot be read: {error.message}") from None
    uploads = []
    try:
        for _, file in form.multi_items():
            if isinstance(file, UploadFile):
                uploads.append(Upload((file.filename or "image")[:MAX_NAME], await file.read()))
    finally:
        await form.close()
    if not uploads:
        raise RefusalError(400, "the form has no file")
    if files == 1:
        _check_size(uploads[0].encoded, uploads[0].name, settings)
    return uploads


def _check_size(encoded: bytes, name: str, settings: ServingSettings) -> None:
    if len(encoded) > settings.max_bytes:
        raise RefusalError(413, f"{name}: {len(encoded):,} bytes are over the limit of {settings.max_bytes:,}")


async def _chunks(request: Request, body: Body) -> AsyncGenerator[bytes, None]:
    body.check(int(request.headers.get("content-length", 0)))  # h11 has checked that it is a number
    async for chunk in request.stream():
        body.add(len(chunk))
        yield chunk


async def _pieces(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async for chunk in chunks:
        for start in range(0, len(chunk), PIECE):
            yield chunk[start : start + PIECE]
            await asyncio.sleep(0)


class _in_time:  # noqa: N801 -- a context, as asyncio.timeout
    """A context that answers 408 if a body does not arrive in time."""

    def __init__(self, settings: ServingSettings):
        self._seconds = settings.body_timeout
        self._timeout = asyncio.timeout(settings.body_timeout)

    async def __aenter__(self):
        await self._timeout.__aenter__()

    async def __aexit__(self, *error):
        try:
            return await self._timeout.__aexit__(*error)
        except TimeoutError:
            reason = f"the body did not arrive within {self._seconds:g} s"
            raise RefusalError(408, reason, {"Connection": "close"}) from None
