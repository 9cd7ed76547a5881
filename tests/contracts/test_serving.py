"""What this package uses of uvicorn, Starlette and python-multipart that is not documented (`names.py`)."""

import asyncio
import logging
import socket
import sys

import h11
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from tests.contracts.names import contract

QUIET = {"ws": "none", "lifespan": "off", "log_config": None, "log_level": "critical"}
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"


async def echo(scope, receive, send):
    """Answers with what it received of the body."""
    message = await receive()
    body = message["type"].encode() + b":" + message.get("body", b"")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Connection:
    """A connection of uvicorn's over real sockets, and what happened in it."""

    def __init__(self, protocol_class=H11Protocol, app=echo):
        self.config = Config(
            app, ws="none", lifespan="off", log_config=None, log_level="critical", timeout_keep_alive=5
        )
        self.config.load()
        self.state = ServerState()
        self._class = protocol_class

    async def __aenter__(self):
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        _, self.protocol = await loop.create_connection(
            lambda: self._class(config=self.config, server_state=self.state, app_state={}), sock=ours
        )
        self.reader, self.writer = await asyncio.open_connection(sock=theirs)
        return self

    async def __aexit__(self, *error):
        self.writer.close()
        self.protocol.transport.abort()
        await asyncio.sleep(0)

    async def ask(self, data: bytes) -> bytes:
        """Sends data, and reads what comes of it."""
        self.writer.write(data)
        return await asyncio.wait_for(self.reader.read(4096), 10)

    async def until(self, holds) -> None:
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0.001)


def run(scenario, *arguments, **named):
    async def connected():
        async with Connection(*arguments, **named) as connection:
            return await scenario(connection)

    return asyncio.run(connected())


@contract("H11Protocol.connections")
def test_a_connection_knows_all_of_them():
    async def scenario(connection):
        assert connection.protocol.connections == {connection.protocol}
        assert connection.protocol.connections is connection.state.connections
        connection.writer.close()
        await connection.until(lambda: not connection.protocol.connections)

    run(scenario)


@contract("H11Protocol.transport")
def test_a_connection_has_a_transport():
    async def scenario(connection):
        assert isinstance(connection.protocol.transport, asyncio.Transport)
        assert not connection.protocol.transport.is_closing()
        connection.protocol.transport.write(b"straight")
        assert await connection.ask(b"") == b"straight"

    run(scenario)


@contract("H11Protocol.loop")
def test_a_connection_has_the_loop_that_it_runs_in():
    async def scenario(connection):
        assert connection.protocol.loop is asyncio.get_running_loop()

    run(scenario)


@contract("H11Protocol.conn")
def test_a_connection_has_h11s_state():
    async def scenario(connection):
        conn = connection.protocol.conn
        assert isinstance(conn, h11.Connection)
        assert conn.their_state is h11.IDLE
        assert conn.trailing_data == (b"", False)
        connection.writer.write(HEAD[:20])
        await connection.until(lambda: conn.trailing_data[0])
        assert conn.trailing_data[0] == HEAD[:20]
        connection.writer.write(HEAD[20:])
        await connection.until(lambda: conn.their_state is h11.SEND_BODY)
        assert conn.our_state is h11.SEND_RESPONSE

    run(scenario)


@contract("H11Protocol.cycle")
def test_a_connection_has_a_cycle_since_the_first_head():
    async def scenario(connection):
        assert connection.protocol.cycle is None
        answer = await connection.ask(HEAD + b"body")
        assert answer.endswith(b"http.request:body")
        assert connection.protocol.cycle.scope["method"] == "POST"

    run(scenario)


@contract("RequestResponseCycle.scope")
def test_the_scope_of_a_cycle_is_that_which_the_application_has():
    scopes = []

    async def keeps(scope, receive, send):
        scopes.append(scope)
        await echo(scope, receive, send)

    async def scenario(connection):
        await connection.ask(HEAD + b"body")
        assert connection.protocol.cycle.scope is scopes[0]

    run(scenario, app=keeps)


async def slow(scope, receive, send):
    await asyncio.sleep(3600)


@contract("RequestResponseCycle.response_started")
def test_a_cycle_knows_whether_its_answer_has_begun():
    async def begins(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await asyncio.sleep(3600)

    async def scenario(connection):
        await connection.ask(HEAD)
        cycle = connection.protocol.cycle
        assert (cycle.response_started, cycle.response_complete) == (True, False)

    async def not_begun(connection):
        connection.writer.write(HEAD)
        await connection.until(lambda: connection.protocol.cycle)
        await asyncio.sleep(0.01)
        assert connection.protocol.cycle.response_started is False

    run(scenario, app=begins)
    run(not_begun, app=slow)


@contract("RequestResponseCycle.response_complete")
def test_a_cycle_knows_whether_its_answer_is_complete():
    async def scenario(connection):
        await connection.ask(HEAD + b"body")
        assert connection.protocol.cycle.response_complete is True

    run(scenario)


@contract("RequestResponseCycle.disconnected")
def test_an_application_learns_that_a_connection_is_refused():
    received = []

    async def waits(scope, receive, send):
        received.append(await receive())

    async def scenario(connection):
        connection.writer.write(HEAD)
        await connection.until(lambda: connection.protocol.cycle)
        await asyncio.sleep(0.01)
        assert not received
        connection.protocol.cycle.disconnected = True
        connection.protocol.cycle.message_event.set()
        await connection.until(lambda: received)

    run(scenario, app=waits)
    assert received == [{"type": "http.disconnect"}]


@contract("RequestResponseCycle.message_event")
def test_an_application_that_waits_for_a_body_is_woken_by_an_event():
    async def scenario(connection):
        connection.writer.write(HEAD)
        await connection.until(lambda: connection.protocol.cycle)
        await asyncio.sleep(0.01)
        event = connection.protocol.cycle.message_event
        assert isinstance(event, asyncio.Event)
        event.set()
        assert (await connection.ask(b"")).endswith(b"http.request:")  # nothing of the body is there

    run(scenario)


@contract("H11Protocol._unset_keepalive_if_required")
def test_the_end_of_a_silent_connection_is_called_off():
    async def scenario(connection):
        await connection.ask(HEAD + b"body")
        await connection.until(lambda: connection.protocol.timeout_keep_alive_task)
        connection.protocol._unset_keepalive_if_required()
        assert connection.protocol.timeout_keep_alive_task is None
        connection.protocol._unset_keepalive_if_required()

    run(scenario)


@contract("H11Protocol.send_400_response")
def test_what_is_no_http_is_answered_by_an_overridden_method_that_sees_h11s_error():
    seen = []

    class Protocol(H11Protocol):
        def send_400_response(self, msg):
            seen.append((msg, sys.exception()))
            self.transport.write(b"no HTTP")
            self.transport.close()

    async def scenario(connection):
        assert await connection.ask(b"nonsense\r\n\r\n") == b"no HTTP"
        assert await connection.reader.read() == b""

    run(scenario, Protocol)
    ((text, error),) = seen
    assert isinstance(text, str)
    assert isinstance(error, h11.RemoteProtocolError)
    assert error.error_status_hint == 400


@contract("H11Protocol.on_response_complete")
def test_the_end_of_an_answer_is_told_by_an_overridden_method():
    ends = []

    class Protocol(H11Protocol):
        def on_response_complete(self):
            ends.append((self.cycle.response_complete, self.conn.our_state))
            super().on_response_complete()

    async def scenario(connection):
        for _ in range(2):
            await connection.ask(HEAD + b"body")
            await connection.until(lambda: connection.protocol.conn.our_state is h11.IDLE)

    run(scenario, Protocol)
    assert ends == [(True, h11.DONE)] * 2


@contract("H11Protocol.shutdown")
def test_a_server_that_ends_calls_an_overridden_method():
    ended = []

    class Protocol(H11Protocol):
        def shutdown(self):
            ended.append(self)
            super().shutdown()

    async def scenario():
        listening = socket.create_server(("127.0.0.1", 0))
        server = Server(Config(echo, http=Protocol, **QUIET))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(HEAD + b"body")
        assert await asyncio.wait_for(reader.read(4096), 10)
        server.should_exit = True
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        await asyncio.wait_for(serving, 10)

    asyncio.run(scenario())
    assert len(ended) == 1


def form(size: int) -> tuple[Headers, bytes]:
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    headers = Headers({"content-type": "multipart/form-data; boundary=edge"})
    return headers, head + b"x" * size + b"\r\n--edge--\r\n"


def parsed(size: int, spool_max_size: int | None):
    headers, body = form(size)

    async def stream():
        yield body

    async def parse():
        parser = MultiPartParser(headers, stream(), max_files=1, max_fields=1, max_part_size=10)
        if spool_max_size is not None:
            parser.spool_max_size = spool_max_size
        values = await parser.parse()
        ((_, file),) = values.multi_items()
        assert isinstance(file, UploadFile)
        return file.file._rolled, len(await file.read())

    return asyncio.run(parse())


@contract("MultiPartParser.spool_max_size")
def test_an_upload_stays_in_memory_up_to_the_size_that_is_set():
    size = 3 * 2**20
    assert parsed(size, None) == (True, size)
    assert parsed(size, size + 1) == (False, size)


@contract("python_multipart.multipart.parse_options_header")
def test_the_options_of_a_header_are_bytes():
    kind, options = parse_options_header('multipart/form-data; boundary=edge; Charset="latin-1"')
    assert kind == b"multipart/form-data"
    assert options == {b"boundary": b"edge", b"charset": b"latin-1"}
    assert parse_options_header("text/plain") == (b"text/plain", {})


@contract("logger: python_multipart")
def test_what_is_wrong_in_a_form_is_logged_where_it_can_be_silenced(caplog):
    with caplog.at_level(logging.DEBUG, logger="python_multipart"):  # a server in another test has silenced it
        parser = MultipartParser(b"edge", {})
        parser.logger.warning("a broken form")
    (record,) = caplog.records
    assert record.name.split(".")[0] == "python_multipart"
