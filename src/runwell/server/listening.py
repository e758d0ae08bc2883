"""The socket, and uvicorn on it: listens, and stops without cutting anybody off.

At the first signal no connection is accepted any more, requests that wait are answered at once and
the others are finished. A second signal ends those too.
"""

import asyncio
import contextlib
import errno
import ipaddress
import os
import signal
import socket
from collections.abc import Callable, Generator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from runwell.core import failpoints
from runwell.core.errors import ConfigurationError

_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 75
#: The request line and headers of a request; what comes in one read may be more.
MAX_HEAD_BYTES = 64 * 1024


def open_socket(host: str, port: int) -> socket.socket:
    """Bind a socket; raises ConfigurationError that says why that can't be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise ConfigurationError(
            f"RUNWELL_HOST is {host!r}, which is no address of this machine: use 127.0.0.1 "
            "(this machine only) or 0.0.0.0 (all networks)"
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # From here on a second server on this port is refused, before anything else is started.
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _cannot_listen(error, host, port) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """How a client of this machine reaches a socket."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_local(listener: socket.socket) -> bool:
    """Whether only programs of this machine reach a socket."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


class HttpServer(uvicorn.Server):
    """uvicorn for one application, stopped by `stop` instead of by signals of its own."""

    def __init__(
        self,
        application: ASGIApp,
        *,
        before_stop: Callable[[], None],
        stop_seconds: float,
    ) -> None:
        """Make it; `before_stop` is called at its stop, to end the requests that wait."""
        super().__init__(
            uvicorn.Config(
                application,
                http=_Connection,
                # The loop is that of whoever calls `listen`.
                loop="none",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=round(stop_seconds),
            )
        )
        self._before_stop = before_stop

    async def listen(self, listener: socket.socket) -> None:
        """Serve until `stop` was called and all requests are answered."""
        await self.serve([listener])

    def stop(self) -> None:
        """Stop; called a second time, without waiting for requests."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, and let those that wait answer."""
        self._before_stop()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave signals to `stop_on_signals`: uvicorn would raise them again at its end."""
        yield


class _Connection(HttpToolsProtocol):
    """uvicorn's connection, with a limit on a request's head, which its parser would keep whole."""

    _is_in_head = False
    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("The headers of the request are too large.")

    def on_message_begin(self) -> None:
        self._is_in_head, self._head_bytes = True, 0
        super().on_message_begin()
        if failpoints.ARE_ON:
            # A test breaks connections: an application has no other way to.
            self.scope["extensions"] = {failpoints.BREAKS: {"close": self.transport.close}}

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()


@contextlib.contextmanager
def stop_on_signals(stop: Callable[[str], None]) -> Generator[None]:
    """Call `stop` with the name of each SIGTERM and SIGINT that comes in the block."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop, number.name)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


def _cannot_listen(error: OSError, host: str, port: int) -> ConfigurationError:
    where = f"{host}:{port}"
    match error.errno:
        case errno.EADDRINUSE:
            return ConfigurationError(
                f"port {port} of {host} is in use, perhaps by another Runwell server: stop that "
                "one, or choose another port with RUNWELL_PORT or --port"
            )
        case errno.EACCES | errno.EPERM:
            return ConfigurationError(
                f"this user may not listen on {where}: choose a port above 1023 with RUNWELL_PORT "
                "or --port"
            )
        case errno.EADDRNOTAVAIL:
            return ConfigurationError(
                f"RUNWELL_HOST is {host!r}, which is no address of this machine: use 127.0.0.1 "
                "(this machine only) or 0.0.0.0 (all networks)"
            )
        case number:
            why = os.strerror(number) if number is not None else str(error)
            return ConfigurationError(f"can't listen on {where}: {why}")
