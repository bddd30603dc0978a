"""A proxy before a tracking server, which can be made to fail in every way that servers do."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple
from urllib.parse import urlsplit

HOST = "127.0.0.1"
_NOT_PASSED_ON = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})


class Request(NamedTuple):
    """A request that reached the proxy."""

    time: float
    name: str
    """The last part of its path: ``log-batch``, ``get``, …"""


class _Exchange(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    server: _Listener
    body: bytes
    request_taken: Request

    def setup(self) -> None:
        super().setup()
        self.server.connections.append(self.connection)

    def _exchange(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.request_taken = Request(time.monotonic(), name)
        self.server.proxy.take(self)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _exchange  # noqa: N815  # http.server's names

    def answer(self, status: int, body: bytes, content_type: str) -> None:
        """Answer the client, if it is still there."""
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # http.server's name
        """Say nothing."""


class _Listener(socketserver.ThreadingTCPServer):
    """The listening socket and the threads of its connections."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, proxy: Proxy, port: int) -> None:
        self.proxy = proxy
        self.connections: list[socket.socket] = []
        super().__init__((HOST, port), _Exchange, bind_and_activate=False)
        # So that the port stays ours while nobody listens on it.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.server_bind()

    def listen(self) -> None:
        self.server_activate()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is none."""

    def hang_up(self) -> None:
        """Close the listening socket and every connection."""
        self.shutdown()
        self.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Proxy:
    """Passes requests on to a server until it is told to do otherwise, and notes each."""

    def __init__(self, server_uri: str) -> None:
        address = urlsplit(server_uri)
        self._server = (str(address.hostname), int(address.port or 80))
        self.requests: list[Request] = []
        self.headers: list[Mapping[str, str]] = []
        self._served: list[Request] = []
        self._act: Callable[[_Exchange], None] = self._forward
        self._only = ""
        self._released = threading.Event()
        self._reserved = _Listener(self, 0)  # bound and never listening
        self._port = int(self._reserved.server_address[1])
        self.uri = f"http://{HOST}:{self._port}"
        self._listener: _Listener | None = None
        self._listen()

    # ---- what a test tells it -------------------------------------------------------------------

    def work(self) -> None:
        """Pass requests on."""
        self._behave(self._forward)
        if self._listener is None:
            self._listen()

    def refuse(self) -> None:
        """Let nobody connect, and close the connections there are."""
        if self._listener is not None:
            self._listener.hang_up()
            self._listener = None

    def hang(self, only: str = "") -> None:
        """Never answer, where the path contains `only`."""
        self._behave(self._never_answer, only)

    def fail(self, status: int, error_code: str | None = None, only: str = "") -> None:
        """Answer with a status: in MLflow's form with an error code, else as others would."""
        body = b"<html>no</html>"
        content_type = "text/html"
        if error_code is not None:
            body = json.dumps({"error_code": error_code, "message": "as the test says"}).encode()
            content_type = "application/json"
        self._behave(lambda exchange: exchange.answer(status, body, content_type), only)

    def lose_answers(self, only: str = "") -> None:
        """Pass requests on, and close the connection instead of answering."""
        self._behave(self._forward_without_answer, only)

    def delay(self, seconds: float) -> None:
        """Pass requests on so much later."""

        def act(exchange: _Exchange) -> None:
            time.sleep(seconds)
            self._forward(exchange)

        self._behave(act)

    def close(self) -> None:
        """End it."""
        self._released.set()
        self.refuse()
        self._reserved.server_close()

    def names(self) -> list[str]:
        """The last part of the path of every request, in order."""
        return [request.name for request in self.requests]

    def batches_served(self) -> int:
        """How often the server has taken metrics, whether the client knows or not."""
        return sum(request.name == "log-batch" for request in self._served)

    # ---- what it does ---------------------------------------------------------------------------

    def _listen(self) -> None:
        self._listener = _Listener(self, self._port)
        self._listener.listen()

    def _behave(self, act: Callable[[_Exchange], None], only: str = "") -> None:
        self._act, self._only = act, only
        self._released.set()
        self._released = threading.Event()

    def take(self, exchange: _Exchange) -> None:
        """Deal with a request."""
        self.requests.append(exchange.request_taken)
        self.headers.append(dict(exchange.headers))
        act = self._act if self._only in exchange.path else self._forward
        act(exchange)

    def _never_answer(self, exchange: _Exchange) -> None:
        exchange.close_connection = True
        self._released.wait()

    def _forward_without_answer(self, exchange: _Exchange) -> None:
        exchange.close_connection = True
        self._response_to(exchange)

    def _forward(self, exchange: _Exchange) -> None:
        try:
            status, body, content_type = self._response_to(exchange)
        except OSError:
            exchange.close_connection = True
            return
        exchange.answer(status, body, content_type)

    def _response_to(self, exchange: _Exchange) -> tuple[int, bytes, str]:
        connection = http.client.HTTPConnection(*self._server, timeout=60)
        headers = {
            name: value
            for name, value in exchange.headers.items()
            if name.lower() not in _NOT_PASSED_ON
        }
        with contextlib.closing(connection):
            connection.request(exchange.command, exchange.path, exchange.body, headers)
            response = connection.getresponse()
            content_type = response.getheader("Content-Type", "application/octet-stream")
            body = response.read()
        self._served.append(exchange.request_taken)
        return response.status, body, content_type
