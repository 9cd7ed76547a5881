"""The access log: a line for each request, which nobody can forge, and which no answer waits for."""

import dataclasses
import json
import queue
import re
import socket
import struct
import threading

import pytest

from polynet_keras.deployment.serving import access_log as module
from polynet_keras.deployment.serving.access_log import Access, AccessLog, combined, json_line
from tests.deployment.running import running
from tests.deployment.test_service import CHINA, Gate, first_of
from tests.waiting import wait_until

ACCESS = Access(0.0, "::1", "POST", "/v1/classify", "top=3", "HTTP/1.1", 200, 71, 0.01234, None, "curl/8.5.0")
EVIL = 'a" 200 0 "\\\r\n\x1b[31mé'


def test_the_combined_format():
    when = r"\[0[1-2]/Jan/1970:\d\d:\d\d:00 [+-]\d{4}\]|\[31/Dec/1969:\d\d:\d\d:00 [+-]\d{4}\]"
    line = combined(ACCESS)
    assert re.fullmatch(
        rf'::1 - - ({when}) "POST /v1/classify\?top=3 HTTP/1\.1" 200 71 "-" "curl/8\.5\.0" 0\.012', line
    )
    unread = dataclasses.replace(
        ACCESS, method=None, path=None, query=None, protocol=None, seconds=None, user_agent=None, status=400
    )
    assert re.fullmatch(rf'::1 - - ({when}) "-" 400 71 "-" "-" -', combined(unread))


def test_the_json_format():
    found = json.loads(json_line(ACCESS))
    assert re.fullmatch(r"19(69|70)-\d\d-\d\dT\d\d:\d\d:00\.000[+-]\d\d:\d\d", found.pop("time"))
    assert found == {
        "client": "::1",
        "method": "POST",
        "path": "/v1/classify",
        "query": "top=3",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 71,
        "seconds": 0.01234,
        "referrer": None,
        "user_agent": "curl/8.5.0",
    }


def test_no_text_of_a_client_passes_for_another_field_or_line():
    evil = dataclasses.replace(ACCESS, client=EVIL, path=EVIL, query=EVIL, referrer=EVIL, user_agent=EVIL)
    line = combined(evil)
    assert line.isascii()
    assert line.isprintable()
    assert line.count('"') == 6
    assert line.startswith(r"a\x22\x20200\x200\x20\x22\x5C\x0D\x0A\x1B[31m\xE9 - - [")
    assert json_line(evil).isprintable()
    assert json.loads(json_line(evil))["user_agent"] == EVIL


def lines_of(path, count):
    """As many lines as are expected, and no more."""
    wait_until(lambda: path.exists() and path.read_text().count("\n") >= count, f"{count} lines")
    lines = path.read_text().splitlines()
    assert len(lines) == count
    return [json.loads(line) for line in lines]


def test_every_request_is_a_line(tmp_path):
    """Those too that the application knows nothing of. A file that was renamed is opened anew."""
    path = tmp_path / "access.log"
    with running(log=(str(path), "json"), forwarded_allow_ips=["127.0.0.1"], header_timeout=0.2) as it:
        headers = {
            "X-Forwarded-For": "9.9.9.9, 10.0.0.7",
            "Referer": "http://a/",
            "User-Agent": 'b\xe9"'.encode("latin-1"),
        }
        answer = it.client.post("/v1/classify?top=1", content=CHINA, headers=headers)
        (first,) = lines_of(path, 1)
        assert (first["client"], first["status"], first["bytes"]) == ("10.0.0.7", 200, len(answer.content))
        assert (first["method"], first["path"], first["query"]) == ("POST", "/v1/classify", "top=1")
        assert (first["referrer"], first["user_agent"]) == ("http://a/", 'bé"')
        assert 0 < first["seconds"] < 30

        path.rename(tmp_path / "access.log.1")
        it.client.head("/healthz")
        it.client.get("/no%0Apath")
        assert first_of(it, b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        chunked = b"POST /v1/classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert first_of(it, chunked + b"1\r\nx\r\n" * 300).startswith(b"HTTP/1.1 413 ")
        assert first_of(it, b"GET /slow HTTP/1.1\r\n").startswith(b"HTTP/1.1 408 ")
        found = lines_of(path, 5)
        by_status = {one["status"]: one for one in found}
        assert by_status[200]["method"] == "HEAD"
        assert by_status[200]["bytes"] == 0
        assert by_status[404]["path"] == "/no%0Apath"
        assert by_status[413]["path"] == "/v1/classify"  # not 499, which the application was told
        for status in (400, 408):
            assert (by_status[status]["client"], by_status[status]["path"]) == ("127.0.0.1", None)
        assert all(one["bytes"] > 0 for one in found if one["status"] >= 400)
        assert it.metric("access_log_lost_total") == 0


def test_a_client_that_leaves_is_a_line(tmp_path):
    path, gate = tmp_path / "access.log", Gate()
    with running(gate, log=(str(path), "json")) as it:
        with socket.create_connection(("127.0.0.1", it.port), timeout=30) as connection:
            head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Length: {len(CHINA)}\r\n\r\n"
            connection.sendall(head.encode() + CHINA)
            assert gate.entered.wait(30)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        (line,) = lines_of(path, 1)
        assert (line["status"], line["path"]) == (499, "/v1/classify")
        gate.open.set()


def test_nobody_waits_for_what_is_not_written(monkeypatch, tmp_path):
    """As behind a pipe that nobody reads."""
    lost, written, go_on = [], queue.Queue(), threading.Event()
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    monkeypatch.setattr(module, "END_SECONDS", 0.05)

    def emit(self, record):
        written.put(record.msg)
        assert go_on.wait(30)

    monkeypatch.setattr(module._File, "emit", emit)
    log = AccessLog(str(tmp_path / "access.log"), "combined", lambda: lost.append(1))
    log.put(ACCESS)
    written.get(timeout=30)
    for _ in range(5):
        log.put(ACCESS)
    assert len(lost) == 2
    log.close()
    assert log._thread.is_alive()
    go_on.set()
    for _ in range(3):
        written.get(timeout=30)


def test_a_disk_that_is_full_is_told_once(caplog):
    lost = []
    log = AccessLog("/dev/full", "combined", lambda: lost.append(1))
    for _ in range(3):
        log.put(ACCESS)
    log.close()
    assert len(lost) == 3
    (told,) = caplog.messages
    assert told == "the access log /dev/full cannot be written: [Errno 28] No space left on device"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no/access.log", "access_log='no/access.log' cannot be written: No such file or directory"),
        (".", "access_log='.' cannot be written: Is a directory"),
    ],
)
def test_logs_that_cannot_be(tmp_path, monkeypatch, path, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        AccessLog(path, "json", lambda: None)
