"""Servers that misbehave, on this machine: each call takes the next step of a script, the last one for ever."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = [
    "FakeServer",
    "answer",
    "drip",
    "drip_chunks",
    "drip_headers",
    "drip_lengths",
    "endless_100",
    "hang",
    "hang_up",
    "redirect",
]


class QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that break off, as these tests make them do."""

    def handle_error(self, request, client_address):
        pass


class FakeServer:
    """Answers POST and GET by the script and keeps (method, path, headers, body) of every request in `requests`.

    A step finds the body at `handler.body`. With an SSL `context` the server speaks TLS.
    """

    def __init__(self, *script, context=None):
        self.requests, self.over = [], threading.Event()
        fake, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with lock:
                    fake.requests.append((self.command, self.path, dict(self.headers), body))
                    step = script[min(len(fake.requests), len(script)) - 1]
                self.body = body
                self.over, self.close_connection = fake.over, True
                try:
                    step(self)
                except OSError:
                    return  # the client had enough, which is what these tests want

            def do_GET(self):
                self.do_POST()

            def log_message(self, *arguments):
                """Keep the tests' output clean."""

        self._server = QuietServer(("127.0.0.1", 0), Handler)
        self.scheme = "https" if context else "http"
        if context:
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}/"

    @property
    def port(self):
        return self._server.server_address[1]

    @property
    def calls(self):
        return [path.strip("/") for _, path, _, _ in self.requests]

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *raised):
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def answer(content, status=200, *, length=None, headers=()):
    """All of `content`, with an honest Content-Length unless told otherwise."""

    def step(handler):
        handler.send_response(status)
        for name, value in (("Content-Length", len(content) if length is None else length), *headers):
            handler.send_header(name, str(value))
        handler.send_header("Connection", "close")  # as it will be; else the next call may go into the closing one
        handler.end_headers()
        handler.wfile.write(content)

    return step


def redirect(url, status=307):
    return answer(b"", status, headers=[("Location", url)])


def drip(seconds):
    """One byte at a time of a body that never ends."""

    def step(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(10**6))
        handler.end_headers()
        while not handler.over.wait(seconds):
            handler.wfile.write(b" ")

    return step


def drip_chunks(seconds):
    """As `drip`, in HTTP's chunks."""

    def step(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while not handler.over.wait(seconds):
            handler.wfile.write(b"1\r\n \r\n")

    return step


def drip_headers(seconds):
    """One byte at a time of a header that never ends."""

    def step(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
        while not handler.over.wait(seconds):
            handler.wfile.write(b"x")

    return step


def drip_lengths(seconds):
    """One digit at a time of the length of a chunk."""

    def step(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while not handler.over.wait(seconds):
            handler.wfile.write(b"0")

    return step


def endless_100(seconds):
    """`100 Continue` for ever."""

    def step(handler):
        while not handler.over.wait(seconds):
            handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    return step


def hang(handler):
    """No answer at all."""
    handler.over.wait(30)


def hang_up(handler):
    """The connection ends without an answer."""
    handler.connection.close()
