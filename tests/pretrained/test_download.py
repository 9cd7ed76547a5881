"""Fetching against a server on the loopback interface that does what servers do wrong."""

import contextlib
import email.utils
import gzip
import hashlib
import http.server
import socket
import threading
import time
import urllib.parse
from pathlib import Path

import numpy as np
import pytest

from polynet_keras.pretrained import download as module
from polynet_keras.pretrained import reaching
from polynet_keras.pretrained.download import DownloadError, WrongHashError, download, partial_file
from tests.children import Child

CONTENT = np.random.default_rng(0).bytes(3 * module.STEP + 12_345)


def verify(path):
    if path.read_bytes() != CONTENT:
        raise WrongHashError(f"{path.name} is another file")


class Handler(http.server.BaseHTTPRequestHandler):
    """`/MODE/...` answers as MODE says; the server keeps what was asked of it."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        requested = self.headers.get("Range")
        self.server.requests.append((self.path, requested))
        getattr(self, self.path.split("/")[1])(int(requested[6:-1]) if requested else 0)

    def send(self, body, *, status=200, announced=None, sent=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body if sent is None else body[:sent])
        if announced is not None or sent is not None:
            self.close_connection = True

    def part(self, start, **options):
        if start >= len(CONTENT):
            self.send(b"", status=416, Content_Range=f"bytes */{len(CONTENT)}")
        elif start:
            span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
            self.send(CONTENT[start:], status=206, Content_Range=span, **options)
        else:
            self.send(CONTENT, **options)

    def whole(self, start):
        self.part(start)

    def cut(self, start):
        """Hangs up after a bit more than a chunk, each time."""
        self.part(start, sent=module.STEP + 1000)

    def cut_and_forgetful(self, start):
        """Hangs up, and never resumes."""
        self.send(CONTENT, sent=module.STEP + 1000)

    def once_cut_then_no_ranges(self, start):
        self.send(CONTENT, sent=module.STEP if len(self.server.requests) == 1 else None)

    def stall(self, start):
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000])
        self.wfile.flush()
        self.server.released.wait(20)
        self.close_connection = True

    def too_short(self, start):
        """Announces less than the file has, and sends that."""
        self.send(CONTENT[:5000])

    def too_long(self, start):
        self.part(start, announced=len(CONTENT) + 500)

    def elsewhere(self, start):
        """Resumes at another place than asked."""
        if start:
            self.send(
                CONTENT[start + 7 :], status=206, Content_Range=f"bytes {start + 7}-{len(CONTENT) - 1}/{len(CONTENT)}"
            )
        else:
            self.send(CONTENT, sent=module.STEP if len(self.server.requests) == 1 else None)

    def missing(self, start):
        self.send(b"no such file", status=404)

    def broken(self, start):
        self.send(b"", status=500)

    def once_broken(self, start):
        self.broken(start) if len(self.server.requests) == 1 else self.part(start)

    def once_busy(self, start):
        """`/once_busy/.../WHEN`: busy until then."""
        asked = self.path.rpartition("/")[2]
        if len(self.server.requests) == 1:
            when = email.utils.formatdate(time.time() + 3, usegmt=True) if asked == "date" else asked
            self.send(b"", status=503, Retry_After=urllib.parse.unquote(when))
        else:
            self.part(start)

    def busy(self, start):
        self.send(b"", status=429, Retry_After=urllib.parse.unquote(self.path.rpartition("/")[2]))

    def silent(self, start):
        self.server.released.wait(20)
        self.close_connection = True

    def moved(self, start):
        self.send(b"", status=302, Location="/whole/file")

    def circle(self, start):
        self.send(b"", status=302, Location="/circle/file")

    def other(self, start):
        self.send(b"x" * len(CONTENT))

    def more(self, start):
        self.send(CONTENT + b"more")

    def cut_then_other(self, start):
        if start:
            span = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
            self.send(b"x" * (len(CONTENT) - start), status=206, Content_Range=span)
        else:
            self.send(CONTENT, sent=module.STEP + 1000)

    def page(self, start):
        self.send(b"<html>Please log in</html>", Content_Type="text/html")

    def packed(self, start):
        self.send(gzip.compress(CONTENT), Content_Encoding="gzip")

    def empty(self, start):
        self.send(b"")

    def no_content(self, start):
        self.send(b"", status=204)

    def forbidden(self, start):
        self.send(b"no", status=403)

    def teapot(self, start):
        self.send(b"no", status=418)

    def moved_nowhere(self, start):
        self.send(b"", status=301)

    def moved_to_a_file(self, start):
        self.send(b"", status=302, Location="file:///etc/passwd")

    def moved_to_no_address(self, start):
        self.send(b"", status=302, Location="http://[::1")

    def always_416(self, start):
        self.send(b"", status=416)

    def part_unasked(self, start):
        self.send(CONTENT[:100], status=206, Content_Range=f"bytes 0-99/{len(CONTENT)}")

    def other_part_unasked(self, start):
        self.send(CONTENT[100:], status=206, Content_Range=f"bytes 100-{len(CONTENT) - 1}/{len(CONTENT)}")

    def raw(self, *lines):
        with contextlib.suppress(OSError):
            self.wfile.write(b"\r\n".join((*lines, b"", b"")))
        self.close_connection = True

    def length_of_digits(self, start):
        self.raw(b"HTTP/1.1 200 OK", b"Content-Length: " + b"9" * 5000)

    def length_below_zero(self, start):
        self.raw(b"HTTP/1.1 200 OK", b"Content-Length: -5", b"", CONTENT)

    def no_http(self, start):
        self.raw(b"SSH-2.0-OpenSSH_9.6")

    def many_headers(self, start):
        self.raw(b"HTTP/1.1 200 OK", *(b"a%d: b" % number for number in range(2000)))

    def no_chunk(self, start):
        self.raw(b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", b"", b"zz", b"abc")

    def hangs_up(self, start):
        self.close_connection = True

    def drip(self, head):
        with contextlib.suppress(OSError):
            self.wfile.write(head)
            while not self.server.released.wait(0.05):
                self.wfile.write(b"x")
        self.close_connection = True

    def dripping_head(self, start):
        self.drip(b"HTTP/1.1 200 OK\r\nX-Long: ")

    def dripping_body(self, start):
        self.drip(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT))

    def endless(self, start):
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):  # the client hangs up
            while True:
                self.wfile.write(CONTENT)


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, address):
        """Clients hang up: no traceback for that."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "BACKOFF", 0.001)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server(("127.0.0.1", 0), Handler)
    server.requests, server.released = [], threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("mode", ["whole", "once_broken", "moved"])
def test_a_file_is_fetched(server, tmp_path, mode):
    target = tmp_path / "deep" / "folder" / "file.bin"
    download([f"{server.url}/{mode}/file"], target, verify, size=len(CONTENT))
    assert target.read_bytes() == CONTENT
    assert {path.name for path in target.parent.iterdir()} <= {"file.bin", "file.bin.lock"}


def test_what_was_cut_off_is_resumed(server, tmp_path):
    download([f"{server.url}/cut/file"], tmp_path / "file.bin", verify)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    starts = [int(asked[6:-1]) if asked else 0 for _, asked in server.requests]
    assert starts == sorted(set(starts))
    assert len(starts) == 4


def test_a_partial_file_of_an_earlier_call_is_resumed(server, tmp_path):
    url = f"{server.url}/whole/file"
    partial_file(tmp_path / "file.bin", url).write_bytes(CONTENT[:100_000])
    download([url], tmp_path / "file.bin", verify)
    assert server.requests == [("/whole/file", "bytes=100000-")]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "partial", [CONTENT, CONTENT + b"more", b"x" * 1000, b""], ids=["whole", "too long", "of another file", "empty"]
)
def test_any_partial_file_ends_as_the_right_one(server, tmp_path, partial):
    url = f"{server.url}/whole/file"
    partial_file(tmp_path / "file.bin", url).write_bytes(partial)
    download([url], tmp_path / "file.bin", verify)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("mode", ["once_cut_then_no_ranges", "elsewhere"])
def test_servers_that_do_not_resume_start_over(server, tmp_path, mode):
    download([f"{server.url}/{mode}/file"], tmp_path / "file.bin", verify)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("mode", "message", "requests"),
    [
        ("missing", "answers 404", 1),
        ("broken", "answers 500", module.ATTEMPTS),
        ("cut_and_forgetful", "Connection broken", module.ATTEMPTS),
        ("too_short", "is another file", 1),
        ("other", "is another file", 1),
        ("cut_then_other", "is another file", 4),
        ("circle", "30 redirects", 31),
    ],
)
def test_what_no_attempt_gives_is_an_error_that_says_why(server, tmp_path, mode, message, requests):
    url = f"{server.url}/{mode}/file"
    with pytest.raises(DownloadError, match=rf"file.bin could not be fetched. {url}: .*{message}"):
        download([url], tmp_path / "file.bin", verify)
    assert not (tmp_path / "file.bin").exists()
    assert len(server.requests) == requests


@pytest.mark.parametrize(
    ("mode", "message"), [("too_short", "has 5,000 bytes, expected"), ("too_long", "bytes, expected")]
)
def test_a_file_of_another_size_is_not_fetched(server, tmp_path, mode, message):
    with pytest.raises(DownloadError, match=message):
        download([f"{server.url}/{mode}/file"], tmp_path / "file.bin", verify, size=len(CONTENT))
    assert not list(tmp_path.glob("*.part"))


def test_a_server_that_never_stops_does_not_fill_the_disk(server, tmp_path, monkeypatch):
    largest = []
    unlink = Path.unlink

    def measured(path, **options):
        if path.suffix == ".part":
            largest.append(path.stat().st_size)
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", measured)
    with pytest.raises(DownloadError, match="sends more than"):
        download([f"{server.url}/endless/file"], tmp_path / "file.bin", verify, size=len(CONTENT))
    assert largest[0] <= len(CONTENT)
    assert not list(tmp_path.glob("*.part"))  # what is no part of the file is not kept


def test_a_server_that_stalls_is_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setenv(module.TIMEOUT_VARIABLE, "0.2")
    with pytest.raises(DownloadError, match="Read timed out"):
        download([f"{server.url}/stall/file"], tmp_path / "file.bin", verify)


UNEXPECTED = {
    "missing": "answers 404",
    "forbidden": "answers 403",
    "teapot": "answers 418",
    "broken": "answers 500",
    "no_content": "answers 204",
    "moved_nowhere": "answers 301",
    "moved_to_a_file": "No connection adapters",
    "moved_to_no_address": "Failed to parse|Invalid",
    "circle": "30 redirects",
    "page": "is another file|has 26 bytes",
    "packed": "as 'gzip', which it was not asked for",
    "empty": "is another file|has 0 bytes",
    "too_short": "is another file|has 5,000 bytes",
    "more": "is another file|bytes, expected",
    "other": "is another file",
    "always_416": "answers 416",
    "part_unasked": "is another file|has 100 bytes",
    "other_part_unasked": "resumes elsewhere",
    "length_of_digits": "digits|hung up|another file|bytes",
    "length_below_zero": "another file|sends more than",
    "no_http": "Connection aborted",
    "many_headers": "Connection aborted",
    "no_chunk": "Connection broken",
    "hangs_up": "Connection aborted",
}


@pytest.mark.parametrize("sized", [False, True], ids=["size unknown", "size known"])
@pytest.mark.parametrize("mode", UNEXPECTED)
def test_a_mirror_that_answers_anything_else_is_left_for_the_next_source(server, tmp_path, caplog, mode, sized):
    size = len(CONTENT) if sized else None
    mirror, publisher = f"{server.url}/{mode}/file", f"{server.url}/whole/file"
    for _ in range(2):  # and nothing of the first time spoils the second
        with pytest.raises(DownloadError, match=rf"{mirror}: .*({UNEXPECTED[mode]})") as info:
            download([mirror], tmp_path / "file.bin", verify, size=size)
        assert "\n" not in str(info.value)
    (tmp_path / "file.bin.lock").unlink(missing_ok=True)
    assert mode in ("no_chunk", "length_of_digits") or not list(tmp_path.iterdir())
    caplog.clear()
    download([mirror, publisher], tmp_path / "file.bin", verify, size=size)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert f"; {publisher} is asked" in caplog.messages[-1]
    assert {path.suffix for path in tmp_path.iterdir()} <= {".bin", ".lock"}


@pytest.mark.parametrize("mode", ["dripping_head", "dripping_body"])
def test_a_mirror_that_drips_is_left(server, tmp_path, monkeypatch, mode):
    """Each byte comes in time, and the file would take days."""
    monkeypatch.setenv(module.TIMEOUT_VARIABLE, "0.2")
    start = time.monotonic()
    download([f"{server.url}/{mode}/file", f"{server.url}/whole/file"], tmp_path / "file.bin", verify)
    assert time.monotonic() - start < 15
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("sources", [1, 3])
def test_a_server_that_says_nothing_is_left_in_seconds(server, tmp_path, monkeypatch, caplog, sources):
    monkeypatch.delenv(module.TIMEOUT_VARIABLE, raising=False)
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.6)
    monkeypatch.setattr(module, "LEAST_ANSWER", 0.1)
    monkeypatch.setattr(reaching, "NOTICE", 0.05)
    urls = [f"{server.url}/silent/{number}/file" for number in range(sources)]
    start = time.monotonic()
    with pytest.raises(DownloadError, match=rf"{urls[0]}: the server is silent for 0\.[0-9]+ s"):
        download(urls, tmp_path / "file.bin", verify)
    assert 0.55 <= time.monotonic() - start < 1.2
    for url in urls:
        assert f"waiting for {url} to answer, at most" in caplog.text
    assert [url for url, _ in server.requests] == [url.removeprefix(server.url) for url in urls]


def test_a_patient_user_is_asked_how_long(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(module, "LEAST_ANSWER", 0.1)
    monkeypatch.setenv(module.TIMEOUT_VARIABLE, "0.4")
    with pytest.raises(DownloadError, match=r"the server is silent for 0\.4 s"):
        download([f"{server.url}/silent/file"], tmp_path / "file.bin", verify)


def test_the_default_bounds_the_silence_of_all_servers():
    assert module.ANSWER_SECONDS <= 5
    assert module.SEARCH_SECONDS + module.LEAST_ANSWER <= 5


@pytest.mark.parametrize("when", ["0", " 2 ", "3", "date", "Wed, 21 Oct 2015 07:28:00 GMT", "soon", "-1", "9" * 5000])
def test_a_busy_server_is_asked_when_it_says(server, tmp_path, monkeypatch, when):
    """Longer than overloaded servers are asked without it."""
    monkeypatch.setattr(module, "SEARCH_SECONDS", 0.5)
    naps = []
    monkeypatch.setattr(module.time, "sleep", naps.append)
    url = f"{server.url}/once_busy/{urllib.parse.quote(when)}"
    download([url], tmp_path / "file.bin", verify)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    (nap,) = naps
    expected = {" 2 ": (2, 2), "3": (3, 3), "date": (1.5, 3)}.get(when, (module.BACKOFF, module.BACKOFF))
    assert expected[0] <= nap <= expected[1]


@pytest.mark.parametrize(("when", "naps"), [("25", [25, 25]), ("3600", []), ("Fri, 31 Dec 9999 23:59:59 GMT", [])])
def test_patience_with_a_busy_server_ends(server, tmp_path, monkeypatch, when, naps):
    slept = []
    monkeypatch.setattr(module.time, "sleep", slept.append)
    busy, good = f"{server.url}/busy/{urllib.parse.quote(when)}", f"{server.url}/whole/file"
    with pytest.raises(DownloadError, match=r"answers 429 .*, and asks to retry in [0-9,]+ s$"):
        download([busy], tmp_path / "file.bin", verify)
    assert slept == naps
    download([busy, good], tmp_path / "file.bin", verify)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("answer", ["busy/3600", "forbidden/file"])
def test_what_was_fetched_outlives_a_refusal(server, tmp_path, answer):
    url = f"{server.url}/{answer}"
    partial = module.partial_file(tmp_path / "file.bin", url)
    partial.write_bytes(CONTENT[:1000])
    with pytest.raises(DownloadError):
        download([url], tmp_path / "file.bin", verify)
    assert partial.read_bytes() == CONTENT[:1000]


def test_a_server_that_asked_for_patience_leaves_the_next_one_its_time(server, tmp_path, monkeypatch):
    shares = []
    reach = module.reach
    monkeypatch.setattr(module, "reach", lambda url, seconds: (shares.append(seconds), reach(url, seconds)))
    monkeypatch.setattr(module, "SEARCH_SECONDS", 0.5)
    monkeypatch.setattr(module, "LEAST_SHARE", 0.01)
    monkeypatch.setattr(module, "MAX_RETRY_AFTER", 0.6)
    monkeypatch.setattr(module, "_retry_after", lambda header: 0.55)
    urls = [f"{server.url}/busy/1", f"{server.url}/whole/file"]
    download(urls, tmp_path / "file.bin", verify)
    assert shares == [0.25, 0.25]


def no_name(host, port, *arguments, **options):
    raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")


def silent_resolver(host, port, *arguments, **options):
    time.sleep(20)


def unreachable(address, seconds):
    raise OSError(101, "Network is unreachable")


def black_hole(address, seconds):
    time.sleep(seconds)
    raise TimeoutError("timed out")


@pytest.mark.parametrize(
    ("name", "network", "message"),
    [
        ("getaddrinfo", no_name, "Temporary failure in name resolution|Name or service"),
        ("getaddrinfo", silent_resolver, "no connection within [0-9.]+ s"),
        ("_connected", unreachable, "Network is unreachable"),
        ("_connected", black_hole, "no connection within [0-9.]+ s|timed out"),
        (None, None, "Connection refused"),
    ],
    ids=["no name", "silent resolver", "unreachable", "black hole", "refused"],
)
@pytest.mark.parametrize("mirrors", [0, 3])
def test_without_a_network_the_search_ends_soon(tmp_path, monkeypatch, caplog, name, network, message, mirrors):
    monkeypatch.setattr(module, "SEARCH_SECONDS", 0.4)
    monkeypatch.setattr(module, "LEAST_SHARE", 0.05)
    if name:
        monkeypatch.setattr(socket if name == "getaddrinfo" else reaching, name, network)
    urls = [f"http://127.0.0.1:9/mirror{number}/file" for number in range(mirrors)] + ["http://127.0.0.1:9/file"]
    start = time.monotonic()
    with pytest.raises(DownloadError, match=rf"file.bin could not be fetched. .*({message})$") as info:
        download(urls, tmp_path / "file.bin", verify)
    assert time.monotonic() - start < 0.4 + 0.6
    assert "\n" not in str(info.value)
    assert len(caplog.messages) == mirrors  # the last one's reason is the error's


def test_the_search_has_five_seconds():
    assert module.SEARCH_SECONDS + module.LEAST_SHARE < 5


def test_servers_that_are_overloaded_are_asked_again_for_seconds_not_minutes(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BACKOFF", 0.1)
    monkeypatch.setattr(module, "SEARCH_SECONDS", 0.4)
    with pytest.raises(DownloadError, match="answers 500"):
        download([f"{server.url}/broken/file"], tmp_path / "file.bin", verify)
    assert 1 < len(server.requests) < module.ATTEMPTS


def test_mirrors_in_order(server, tmp_path):
    urls = [f"{server.url}/{mode}/file" for mode in ("missing", "other", "whole", "broken")]
    download(urls, tmp_path / "file.bin", verify)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert list(dict.fromkeys(path for path, _ in server.requests)) == ["/missing/file", "/other/file", "/whole/file"]


def test_a_mirror_spoils_nothing_of_another_server(server, tmp_path):
    good = f"{server.url}/whole/file"
    partial_file(tmp_path / "file.bin", good).write_bytes(CONTENT[:2_000_000])
    download([f"{server.url}/other/file", good], tmp_path / "file.bin", verify)
    assert server.requests[-1] == ("/whole/file", "bytes=2000000-")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("example.invalid/file", "No scheme supplied"),
        ("ftp://127.0.0.1/file", "No connection adapters"),
        ("http://", "No host supplied"),
        ("http://[::1", "Failed to parse"),
        ("http://a..b/file", "label|parse"),
    ],
)
def test_addresses_that_are_none_are_not_tried_again(server, tmp_path, url, message):
    start = time.monotonic()
    download([url, f"{server.url}/whole/file"], tmp_path / "file.bin", verify)
    with pytest.raises(DownloadError, match=message):
        download([url], tmp_path / "other.bin", verify)
    assert time.monotonic() - start < 10


def test_tls_errors_say_what_they_are(server, tmp_path, monkeypatch):
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DownloadError, match=r"https://.*: .*(WRONG_VERSION_NUMBER|record layer|SSL)"):
        download([f"{server.url.replace('http', 'https')}/whole/file"], tmp_path / "file.bin", verify)


def test_proxy_of_the_environment(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(DownloadError):
        download(["http://weights.invalid/file"], tmp_path / "file.bin", verify)
    assert server.requests[0][0] == "http://weights.invalid/file"


@pytest.mark.parametrize("value", ["soon", "0", "-1", "inf", "nan"])
def test_timeout_that_is_none(tmp_path, monkeypatch, value):
    monkeypatch.setenv(module.TIMEOUT_VARIABLE, value)
    with pytest.raises(ValueError, match=f"POLYNET_DOWNLOAD_TIMEOUT='{value}' must be a number of seconds > 0"):
        download(["http://127.0.0.1:1/file"], tmp_path / "file.bin", verify)


FETCH = """
import sys, time
from pathlib import Path
from polynet_keras.pretrained.download import download

print("ready", flush=True)
while not Path(sys.argv[3]).exists():
    time.sleep(0.001)
download([sys.argv[1]], Path(sys.argv[2]), lambda path: None)
"""


def test_processes_fetch_a_file_once(server, tmp_path):
    arguments = [f"{server.url}/whole/file", str(tmp_path / "file.bin"), str(tmp_path / "go")]
    processes = [Child(FETCH, *arguments, env={"http_proxy": None}) for _ in range(3)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        (tmp_path / "go").touch()
        for process in processes:
            assert process.wait(60) == 0
    finally:
        for process in processes:
            process.end()
    assert len(server.requests) == 1
    assert hashlib.sha256((tmp_path / "file.bin").read_bytes()).digest() == hashlib.sha256(CONTENT).digest()
