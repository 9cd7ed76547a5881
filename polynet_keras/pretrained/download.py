"""Fetching a file over HTTP: resumed, retried, from mirrors in order, checked before it is moved into place."""

import contextlib
import errno
import hashlib
import http.client
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import requests
import urllib3
from absl import logging
from tqdm import tqdm

from polynet_keras.basics.holding import locked
from polynet_keras.pretrained.reaching import reach, within

ATTEMPTS = 5
"""How often in a row a URL may fail without a step forward."""
BACKOFF = 1.0
"""Seconds before the second attempt; each further one waits twice as long as the one before."""
ADDRESS_TIMEOUT = 2.0
"""Seconds for one address of a server; the libraries try all of them, one after the other."""
TIMEOUT_VARIABLE = "POLYNET_DOWNLOAD_TIMEOUT"
DEFAULT_TIMEOUT = 30.0
"""Seconds without a further `CHUNK` bytes after which a server is given up."""
ANSWER_SECONDS = 5.0
"""Seconds until all servers have been reached and have answered, unless `TIMEOUT_VARIABLE` says how long to wait for
each answer. An offline user learns it after this time, also behind a silent proxy."""
LEAST_ANSWER = 1.0
"""Seconds that a server which was reached has to answer in any case."""
SEARCH_SECONDS = 4.0
"""The time to find all servers together, with retries: without a network a call ends soon."""
LEAST_SHARE = 0.5
"""The seconds of this time that a server always has."""
MAX_RETRY_AFTER = 60.0
"""The total time, in seconds, that one server may ask to wait (`Retry-After`); then the next server is tried."""
CHUNK = 1 << 16
STEP = 1 << 20
"""Bytes that count as a step forward."""
MAX_BYTES = 2 << 30
"""The largest file that is accepted where its size is not known: a server must not fill the disk."""
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that another attempt may change."""

PERMANENT = (
    requests.TooManyRedirects,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.SSLError,
)
"""What another attempt would not change."""
TRANSIENT_FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException)


class DownloadError(OSError):
    """No URL gave the file; the message has the reason of each."""


class WrongHashError(ValueError):
    """A file is not the one that was expected."""


class _BusyError(requests.ConnectionError):
    """An answer that another attempt may change.

    Attributes:
        retry_after: seconds that the server asks to wait; `None` where it does not say.
    """

    def __init__(self, message: str, retry_after: float | None):
        super().__init__(message)
        self.retry_after = retry_after


class _RefusedError(Exception):
    """An answer that another attempt would not change."""


class _OtherFileError(_RefusedError):
    """It sends another file, so that what was fetched so far is of no use."""


FAILURES = (*TRANSIENT_FAILURES, ValueError, _RefusedError)
"""Of a server, not of this machine. Libraries raise a `ValueError` of headers that are none."""


def download(urls: Sequence[str], target: Path, verify: Callable[[Path], None], *, size: int | None = None) -> None:
    """Fetches `target` from the first URL that gives it.

    A URL that answers anything else is left, with a warning, for the next one. What it gave of a file that was cut off
    (a `.part` beside the target) is kept and resumed by the next call; what is no part of the file is not kept. Other
    processes that want the same file wait for this one. Proxies are those of the environment (`HTTPS_PROXY` and its
    kin), as `requests` reads it; `POLYNET_DOWNLOAD_TIMEOUT` has the seconds after which a silent server is given up.

    Args:
        urls: tried in order.
        target: the file; its folder is made.
        verify: raises `WrongHashError` for a file that is not the one wanted.
        size: of the file in bytes, where it is known.

    Raises:
        DownloadError: no URL gave the right file. Where none can be reached, after `SEARCH_SECONDS`.
        OSError: the target cannot be written.
    """
    timeout = _timeout()
    answer = None if TIMEOUT_VARIABLE in os.environ else ANSWER_SECONDS / max(1, len(urls))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    with locked(target):
        if target.is_file():  # another process was faster
            with contextlib.suppress(WrongHashError):
                verify(target)
                return
        reasons = []
        search = SEARCH_SECONDS
        for number, url in enumerate(urls):
            partial = partial_file(target, url)
            left = urls[number + 1 :]
            share = max(LEAST_SHARE, search / (len(left) + 1))
            started = time.monotonic()
            try:
                _fetch(url, partial, verify, size, timeout, answer, share)
            except FAILURES as error:
                # The next server still gets its own time if this one took more than its share.
                search -= min(share, time.monotonic() - started)
                if isinstance(error, (WrongHashError, _OtherFileError)):
                    partial.unlink(missing_ok=True)
                reasons.append(f"{url}: {_reason(error)}")
                if left:
                    logging.warning("%s; %s is asked", reasons[-1], left[0])
                continue
            os.replace(partial, target)
            for other in urls:
                partial_file(target, other).unlink(missing_ok=True)
            return
    raise DownloadError(f"{target.name} could not be fetched. {'; '.join(reasons)}")


def partial_file(target: Path, url: str) -> Path:
    """What was fetched so far; one for each URL, so that a server that starts over spoils no other's."""
    return target.with_name(f"{target.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")


def _timeout() -> float:
    text = os.environ.get(TIMEOUT_VARIABLE, DEFAULT_TIMEOUT)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{TIMEOUT_VARIABLE}={text!r} must be a number of seconds > 0")
    return seconds


def _fetch(
    url: str,
    partial: Path,
    verify: Callable[[Path], None],
    size: int | None,
    timeout: float,
    answer: float | None,
    share: float,
) -> None:
    """Makes `partial` the whole, verified file.

    Args:
        timeout: seconds for each further part of the file.
        answer: seconds until the server was reached and has begun to answer for the first time; `None` for `timeout`
            after it was reached.
        share: seconds for reaching the server, and for asking it again before it has sent anything.
    """
    started = time.monotonic()
    deadline = started + share
    reach(url, share)
    failures = wrong = 0
    patience = MAX_RETRY_AFTER
    first = furthest = _length(partial)
    while True:
        resumed = _length(partial) > 0
        try:
            waits = timeout
            if answer is not None and furthest <= first:
                waits = max(LEAST_ANSWER, started + answer - time.monotonic())
            _append(url, partial, size, timeout, waits)
            verify(partial)
            return
        except WrongHashError:
            wrong += 1
            if not resumed or wrong == 2:
                raise
            # The partial file may have been the beginning of another file: start again.
            partial.unlink()
            first = furthest = 0
            continue
        except TRANSIENT_FAILURES as error:
            failures = 1 if _length(partial) >= furthest + STEP else failures + 1
            furthest = max(furthest, _length(partial))
            asked = getattr(error, "retry_after", None) or 0.0
            if asked > patience:
                raise _RefusedError(f"{_reason(error)}, and asks to retry in {asked:,.0f} s") from None
            patience -= asked
            deadline, started = deadline + asked, started + asked
            pause = max(asked, BACKOFF * 2 ** (failures - 1))
            late = isinstance(error, requests.Timeout) or time.monotonic() + pause > deadline
            in_vain = furthest <= first and late
            if failures == ATTEMPTS or in_vain or isinstance(error, PERMANENT):
                raise
            attempt = f"attempt {failures + 1} of {ATTEMPTS}"
            logging.warning("%s: %s; %s follows in %.3g s", url, _reason(error), attempt, pause)
        time.sleep(pause)


def _append(url: str, partial: Path, size: int | None, timeout: float, answer: float) -> None:
    """Adds to `partial` what it still lacks; starts over where the server does not resume.

    Args:
        timeout: seconds for each further part of the file.
        answer: seconds until the head of the answer is there.
    """
    start = _length(partial)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    connecting = max(ADDRESS_TIMEOUT, timeout) if TIMEOUT_VARIABLE in os.environ else ADDRESS_TIMEOUT
    # The whole head of the answer must come in time, with all redirections, and not only its first byte.
    with within(
        answer,
        lambda: requests.get(url, headers=headers, stream=True, timeout=(connecting, timeout)),
        f"{url} to answer",
    ) as response:
        status = f"{response.status_code} {response.reason}"
        if start and response.status_code == requests.codes.requested_range_not_satisfiable:
            total = _total(response.headers.get("Content-Range", ""))
            if total == start:
                return  # there was nothing left to fetch
            partial.unlink()
            raise requests.ConnectionError("the partial file is longer than the server's; it starts over")
        if response.status_code in TRANSIENT:
            raise _BusyError(f"the server answers {status}", _retry_after(response.headers.get("Retry-After")))
        resumed = response.status_code == requests.codes.partial_content
        if response.status_code != requests.codes.ok and not resumed:
            raise _RefusedError(f"the server answers {status}")
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise _OtherFileError(f"the server sends the file as {encoding[:20]!r}, which it was not asked for")
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            partial.unlink(missing_ok=True)
            raise requests.ConnectionError("the server resumes elsewhere than it was asked to; it starts over")
        if not resumed:
            start = 0
        announced = response.headers.get("Content-Length", "")
        total = start + int(announced) if announced.isdecimal() else None
        limit = MAX_BYTES if size is None else size
        if total is not None and (total > limit or size not in (None, total)):
            raise _OtherFileError(f"the server's file has {total:,} bytes, expected {size or f'at most {limit:,}'}")
        _write(response, partial, start, total, limit, timeout)
        if total is not None and _length(partial) < total:
            raise requests.ConnectionError(f"the server hung up after {_length(partial):,} of {total:,} bytes")


def _write(
    response: requests.Response, partial: Path, start: int, total: int | None, limit: int, timeout: float
) -> None:
    name = partial.name.rpartition(".")[0].rpartition(".")[0]
    # `read` waits until all that was asked for is there: a server that sends a byte now and then would hold it for
    # years. urllib3 has `read1` since 2.3.
    read = getattr(response.raw, "read1", response.raw.read)
    with (
        open(partial, "r+b" if start else "wb") as file,
        # Without a terminal it shows nothing.
        tqdm(total=total, initial=start, unit="B", unit_scale=True, unit_divisor=1024, desc=name, disable=None) as bar,
    ):
        file.seek(start)
        since, received = time.monotonic(), 0
        try:
            while chunk := read(CHUNK):
                if file.tell() + len(chunk) > limit:
                    raise _OtherFileError(f"the server sends more than {limit:,} bytes")
                file.write(chunk)
                bar.update(len(chunk))
                received += len(chunk)
                if received >= CHUNK:
                    since, received = time.monotonic(), 0
                elif time.monotonic() - since > timeout:
                    raise requests.ConnectionError(f"the server sent {received:,} bytes in {timeout:g} s")
        finally:
            file.truncate()
            file.flush()
            os.fsync(file.fileno())


def _reason(error: Exception) -> str:
    """One line, without what the libraries below wrap around it."""
    if isinstance(error, requests.ConnectTimeout):
        return "no connection in time"
    while error.args and isinstance(cause := getattr(error, "reason", error.args[0]), Exception):
        error = cause
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error.args[0] if error.args else error).rpartition("): ")[2]


def _retry_after(header: str | None) -> float | None:
    """Returns the seconds of a `Retry-After`, which has a number or a date; `None` if it cannot be read."""
    if header is None:
        return None
    try:
        return urllib3.util.Retry().parse_retry_after(header)
    except (urllib3.exceptions.HTTPError, ValueError, TypeError, OverflowError):
        return None


def _total(content_range: str) -> int | None:
    _, _, total = content_range.rpartition("/")
    return int(total) if total.isdecimal() else None


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
