"""A real HTTP server on a thread, which answers as a test says; every byte is under its control."""

import contextlib
import json
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, Protocol


class Seen(NamedTuple):
    """A request as the server got it; `port` is the client's, one per connection."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    port: int


class Exchange(Protocol):
    """What a behaviour of the server may use."""

    close_connection: bool

    @property
    def wfile(self) -> "Writer":
        """Where the answer goes."""
        ...


class Writer(Protocol):
    """Where the bytes of an answer go."""

    def write(self, data: bytes, /) -> object:
        """Send bytes."""
        ...


#: How one request is answered.
Behaviour = Callable[[Exchange, Seen], None]


@dataclass
class ApiServer:
    """The server of one test."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list[Seen])
    behaviours: "queue.SimpleQueue[Behaviour]" = field(
        default_factory=queue.SimpleQueue["Behaviour"]
    )
    #: Answers that wait for the test to let them go.
    released: threading.Event = field(default_factory=threading.Event)
    #: Set when a request has arrived whose answer waits.
    arrived: threading.Event = field(default_factory=threading.Event)

    def will(self, *behaviours: Behaviour) -> None:
        """Say how the next requests are answered."""
        for behaviour in behaviours:
            self.behaviours.put(behaviour)

    def hang(self, exchange: Exchange, seen: Seen) -> None:
        """A behaviour: no answer until the test ends."""
        self.arrived.set()
        self.released.wait(30)
        exchange.close_connection = True


def answer(
    status: int, body: object, headers: Mapping[str, str] | None = None, *, close: bool = False
) -> Behaviour:
    """A behaviour: an answer with JSON, or with bytes as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return raw("\r\n".join(lines).encode() + b"\r\n\r\n" + data, close=close)


def raw(data: bytes, *, close: bool = False) -> Behaviour:
    """A behaviour: these bytes, and then perhaps the end of the connection."""

    def behave(exchange: Exchange, seen: Seen) -> None:
        exchange.wfile.write(data)
        exchange.close_connection = close

    return behave


@contextlib.contextmanager
def api_server(tls: ssl.SSLContext | None = None) -> Generator[ApiServer]:
    """A server for the length of a block."""
    api = ApiServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            seen = Seen(
                self.command,
                self.path,
                {name.lower(): value for name, value in self.headers.items()},
                self.rfile.read(length),
                int(self.client_address[1]),
            )
            api.seen.append(seen)
            api.behaviours.get(timeout=40)(self, seen)

        do_GET = do_POST = do_PUT = answer  # noqa: N815 (the names of http.server)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that goes away is no error of the test."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        host = "localhost" if tls is not None else "127.0.0.1"
        api.url = f"{'https' if tls else 'http'}://{host}:{server.server_address[1]}"
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        try:
            yield api
        finally:
            api.released.set()
            server.shutdown()
            thread.join()


def unused_url() -> str:
    """A URL where nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
