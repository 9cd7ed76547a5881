"""Fetching a file over HTTP: resumed, retried, from mirrors in order, checked before it is moved into place."""

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import requests
import urllib3
from absl import logging
from tqdm import tqdm

from polynet_keras.data.files import locked

ATTEMPTS = 5
"""How often in a row a URL may fail without a step forward."""
BACKOFF = 1.0
"""Seconds before the second attempt; each further one waits twice as long as the one before."""
CONNECT_TIMEOUT = 10.0
TIMEOUT_VARIABLE = "POLYNET_DOWNLOAD_TIMEOUT"
DEFAULT_TIMEOUT = 30.0
"""Seconds without a byte after which a server counts as stalled."""
CHUNK = 1 << 16
STEP = 1 << 20
"""Bytes that count as a step forward."""
MAX_BYTES = 2 << 30
"""The largest file that is accepted where its size is not known: a server must not fill the disk."""
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


PERMANENT = (
    requests.TooManyRedirects,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.SSLError,
)
"""What another attempt would not change."""


class DownloadError(OSError):
    """No URL gave the file; the message has the reason of each."""


class WrongHashError(ValueError):
    """A file is not the one that was expected."""


class _RefusedError(Exception):
    """An answer that another attempt would not change."""


def download(urls: Sequence[str], target: Path, verify: Callable[[Path], None], *, size: int | None = None) -> None:
    """Fetches `target` from the first URL that gives it.

    What a URL gave so far (a `.part` beside the target) is kept and resumed by the next call. Other processes that want
    the same file wait for this one. Proxies are those of the environment (`HTTPS_PROXY` and its kin), as `requests`
    reads it; `POLYNET_DOWNLOAD_TIMEOUT` has the seconds after which a silent server is given up.

    Args:
        urls: tried in order.
        target: the file; its folder is made.
        verify: raises `WrongHashError` for a file that is not the one wanted.
        size: of the file in bytes, where it is known.

    Raises:
        DownloadError: no URL gave the right file.
        OSError: the target cannot be written.
    """
    timeout = _timeout()
    with locked(target):
        if target.is_file():  # another process was faster
            with contextlib.suppress(WrongHashError):
                verify(target)
                return
        reasons = []
        for url in urls:
            partial = partial_file(target, url)
            try:
                _fetch(url, partial, verify, size, timeout)
            except (requests.RequestException, urllib3.exceptions.HTTPError, WrongHashError, _RefusedError) as error:
                logging.warning("%s: %s", url, _reason(error))
                reasons.append(f"{url}: {_reason(error)}")
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


def _fetch(url: str, partial: Path, verify: Callable[[Path], None], size: int | None, timeout: float) -> None:
    """Makes `partial` the whole, verified file."""
    failures = wrong = 0
    furthest = _length(partial)
    while True:
        try:
            _append(url, partial, size, timeout)
            verify(partial)
            return
        except WrongHashError:
            # What was resumed may have been another file's beginning: once more, from the start.
            partial.unlink()
            furthest, wrong = 0, wrong + 1
            if wrong == 2:
                raise
            continue
        except requests.RequestException as error:
            failures = 1 if _length(partial) >= furthest + STEP else failures + 1
            furthest = max(furthest, _length(partial))
            if failures == ATTEMPTS or isinstance(error, PERMANENT):
                raise
            logging.warning("%s: %s; attempt %d of %d follows", url, _reason(error), failures + 1, ATTEMPTS)
        time.sleep(BACKOFF * 2 ** (failures - 1))


def _append(url: str, partial: Path, size: int | None, timeout: float) -> None:
    """Adds to `partial` what it still lacks; starts over where the server does not resume."""
    start = _length(partial)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=(CONNECT_TIMEOUT, timeout)) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            total = _total(response.headers.get("Content-Range", ""))
            if total == start:
                return  # there was nothing left to fetch
            partial.unlink()
            raise requests.ConnectionError("the partial file is longer than the server's; it starts over")
        if response.status_code in TRANSIENT:
            raise requests.ConnectionError(f"the server answers {response.status_code} {response.reason}")
        if not response.ok:
            raise _RefusedError(f"the server answers {response.status_code} {response.reason}")
        resumed = response.status_code == requests.codes.partial_content
        if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            partial.unlink(missing_ok=True)
            raise requests.ConnectionError("the server resumes elsewhere than it was asked to; it starts over")
        if not resumed:
            start = 0
        announced = response.headers.get("Content-Length", "")
        total = start + int(announced) if announced.isdecimal() else None
        limit = MAX_BYTES if size is None else size
        if total is not None and (total > limit or size not in (None, total)):
            raise _RefusedError(f"the server's file has {total:,} bytes, expected are {size or f'at most {limit:,}'}")
        _write(response, partial, start, total, limit)
        if total is not None and _length(partial) < total:
            raise requests.ConnectionError(f"the server hung up after {_length(partial):,} of {total:,} bytes")


def _write(response: requests.Response, partial: Path, start: int, total: int | None, limit: int) -> None:
    name = partial.name.rpartition(".")[0].rpartition(".")[0]
    with (
        open(partial, "r+b" if start else "wb") as file,
        # Off a terminal it stays silent.
        tqdm(total=total, initial=start, unit="B", unit_scale=True, unit_divisor=1024, desc=name, disable=None) as bar,
    ):
        file.seek(start)
        for chunk in response.iter_content(CHUNK):
            if file.tell() + len(chunk) > limit:
                raise _RefusedError(f"the server sends more than {limit:,} bytes")
            file.write(chunk)
            bar.update(len(chunk))
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def _reason(error: Exception) -> str:
    """One line, without what the libraries below wrap around it."""
    if isinstance(error, requests.Timeout):
        return "the server is silent"
    while error.args and isinstance(cause := getattr(error, "reason", error.args[0]), Exception):
        error = cause
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error.args[0] if error.args else error).rpartition("): ")[2]


def _total(content_range: str) -> int | None:
    _, _, total = content_range.rpartition("/")
    return int(total) if total.isdecimal() else None


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
