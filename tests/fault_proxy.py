"""A real HTTP proxy in front of the real S3 server, which fails as networks and servers fail.

`with FaultProxy(endpoint) as proxy:` listens on loopback at `proxy.endpoint`. `proxy.fault` sees every request
and answers it: by forwarding it, by an error of its own, by both, late, changed, or not at all.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from urllib.parse import unquote, urlsplit

HOP_BY_HOP = frozenset({"connection", "expect", "keep-alive", "transfer-encoding", "content-length"})


class Hangup(Exception):
    """Ends the connection without an answer."""


@dataclass(frozen=True)
class Response:
    """What the client is answered."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Request:
    """One request of the client; its body is read from the wire only when somebody asks for it."""

    def __init__(
        self, method: str, target: str, headers: dict[str, str], wire: BufferedIOBase, upstream: str
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.length = int(headers.get("Content-Length", 0))
        self._wire = wire
        self._upstream = upstream
        self._body: bytes | None = None

    @property
    def key(self) -> str:
        """The object's key, empty for requests about the whole bucket."""
        return unquote(urlsplit(self.target).path).lstrip("/").partition("/")[2]

    @property
    def conditional(self) -> bool:
        """Whether this creates an object on the condition that there is none."""
        return self.method == "PUT" and any(name.lower() == "if-none-match" for name in self.headers)

    def read_half(self) -> None:
        """Take half of the body from the wire and lose it."""
        self._wire.read(self.length // 2)

    def forward(self) -> Response:
        """Have the real server answer."""
        if self._body is None:
            self._body = self._wire.read(self.length)
        parts = urlsplit(self._upstream)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            connection.request(self.method, self.target, self._body or None, headers)
            answer = connection.getresponse()
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP}
            if self.method == "HEAD" and (length := answer.getheader("Content-Length")):
                kept["Content-Length"] = length
            return Response(answer.status, kept, answer.read())
        finally:
            connection.close()


Fault = Callable[[Request], Response]


def healthy(request: Request) -> Response:
    """No fault at all."""
    return request.forward()


def refuse(status: int, code: str) -> Fault:
    """Answer with an S3 error; the real server hears of nothing."""
    return lambda _request: s3_error(status, code)


def fail_after_success(status: int, code: str) -> Fault:
    """Carry a request out, then answer that it failed: what a lost answer and its repetition look like."""

    def fault(request: Request) -> Response:
        answer = request.forward()
        return s3_error(status, code) if answer.status < 300 else answer

    return fault


def hang_up(_request: Request) -> Response:
    """End the connection before the request was carried out."""
    raise Hangup


def hang_up_after_success(request: Request) -> Response:
    """End the connection after the request was carried out."""
    request.forward()
    raise Hangup


def die_in_upload(request: Request) -> Response:
    """Take half of what is uploaded, then end the connection; other requests pass."""
    if request.method != "PUT" or not request.length:
        return request.forward()
    request.read_half()
    raise Hangup


def slow(seconds: float) -> Fault:
    """Carry everything out, late."""

    def fault(request: Request) -> Response:
        time.sleep(seconds)
        return request.forward()

    return fault


def flip_a_byte(request: Request) -> Response:
    """Give back what was stored with one byte changed, in its right size."""
    answer = request.forward()
    if request.method != "GET" or not request.key or not answer.body or answer.status != 200:
        return answer
    middle = len(answer.body) // 2
    changed = answer.body[:middle] + bytes([answer.body[middle] ^ 1]) + answer.body[middle + 1 :]
    return replace(answer, body=changed)


def truncate(request: Request) -> Response:
    """Give back the first half of what was stored, as if that were all."""
    answer = request.forward()
    if request.method != "GET" or not request.key or answer.status != 200:
        return answer
    return replace(answer, body=answer.body[: len(answer.body) // 2])


def ignore_conditions(overwrite: Callable[[str, bytes], object]) -> Fault:
    """Behave as a server that does not know If-None-Match; `overwrite` writes past the proxy."""

    def fault(request: Request) -> Response:
        answer = request.forward()
        if request.conditional and answer.status == 412:
            overwrite(request.key, request._body or b"")
            return Response(200, {"ETag": '"overwritten"'})
        return answer

    return fault


def only(applies: Callable[[Request], bool], fault: Fault, times: int | None = None) -> Fault:
    """A fault for some requests, at most so many times; the others pass."""
    left = [times]
    lock = threading.Lock()

    def chosen(request: Request) -> Response:
        with lock:
            hit = applies(request) and left[0] != 0
            if hit and left[0]:
                left[0] -= 1
        return fault(request) if hit else request.forward()

    return chosen


def s3_error(status: int, code: str) -> Response:
    """An error as S3 servers write it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"
    return Response(status, {"Content-Type": "application/xml"}, body.encode())


class FaultProxy:
    """The proxy. Set `fault` at any time; it holds for requests that come after.

    Args:
        upstream: the real server's address. The client's signature stays right: it signs the proxy's address,
            and that is what the server is told as its own.
    """

    def __init__(self, upstream: str) -> None:
        self.fault: Fault = healthy
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except (Hangup, ConnectionError):
                    self.close_connection = True

            def _answer(self) -> None:
                request = Request(self.command, self.path, dict(self.headers), self.rfile, upstream)
                answer = proxy.fault(request)
                if request.length and request._body is None:
                    # What was not read would be taken for the next request.
                    self.rfile.read(request.length)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in answer.headers:
                    self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer

            def log_message(self, *_: object) -> None:
                """Nothing: failing is this server's work."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
