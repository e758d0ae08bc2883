"""Sends requests over connections that are kept open: a pool per event loop, one for blocking.

A pool belongs to the process that made it: a forked child starts with none and leaves the parent's
connections alone. The pool of an event loop is closed when the loop shuts down its generators, as
`asyncio.run` does. Servers that the environment has a proxy for are reached by `proxied.py`.
"""

import asyncio
import atexit
import functools
import importlib
import os
import select
import socket
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import AsyncGenerator
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, cast
from urllib.request import getproxies, proxy_bypass

from runwell.client.transport import ApiConnectionError, Outcome, Pause, Request, Response, Step
from runwell.client.wire import (
    MalformedAnswerError,
    Origin,
    ResponseReader,
    encode_request,
    origin_of,
)

if TYPE_CHECKING:
    from runwell.client.proxied import ProxiedClients

#: More requests of one event loop wait for one of these to end; as many are kept while idle.
MAX_CONNECTIONS: Final = 100
_READ_BYTES: Final = 256 * 1024


class HttpTransport:
    """The transport that talks to a server."""

    async def perform(self, step: Step) -> Outcome:
        """Send a request, or pause, without blocking the event loop."""
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        try:
            return await (await _pool_of_this_loop()).send(step)
        except (OSError, UnicodeError, MalformedAnswerError) as error:
            return _no_answer(step, error)

    def perform_blocking(self, step: Step) -> Outcome:
        """Send a request, or pause."""
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        try:
            return _blocking_pool.send(step)
        except (OSError, UnicodeError, MalformedAnswerError) as error:
            return _no_answer(step, error)


class _Connection(asyncio.Protocol):
    """One connection of an event loop; one exchange at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._reader: ResponseReader | None = None
        self._answer: asyncio.Future[Response] | None = None
        self.is_open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._reader is None or self._answer is None or self._answer.done():
            # Nobody has asked: what comes next on this connection belongs to nothing.
            self.close()
            return
        try:
            response = self._reader.feed(data)
        except MalformedAnswerError as error:
            self._answer.set_exception(error)
        else:
            if response is not None:
                self._answer.set_result(response)

    def eof_received(self) -> None:
        if self._reader is not None and self._answer is not None and not self._answer.done():
            try:
                self._answer.set_result(self._reader.feed_eof())
            except MalformedAnswerError as error:
                self._answer.set_exception(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or MalformedAnswerError("the connection was closed"))

    async def exchange(self, data: bytes, reader: ResponseReader) -> Response:
        """Send a request and wait for its response."""
        if self._transport is None:
            raise MalformedAnswerError("the connection was never made")
        self._reader, self._answer = reader, asyncio.get_running_loop().create_future()
        self._transport.write(data)
        try:
            return await self._answer
        finally:
            self._reader = self._answer = None

    def close(self) -> None:
        """End the connection at once."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()


class _Pool:
    """The connections of one event loop."""

    def __init__(self) -> None:
        self._idle: defaultdict[Origin, list[_Connection]] = defaultdict(list)
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._proxied: ProxiedClients | None = None
        self.keeper: AsyncGenerator[None, None] | None = None

    async def send(self, request: Request) -> Response:
        origin = origin_of(request.url)
        data = encode_request(request)
        async with self._slots, asyncio.timeout(request.timeout):
            proxy = _proxy_of(origin)
            if proxy is not None:
                self._proxied = self._proxied or _load_proxied()
                return await self._proxied.send(request, proxy)
            return await self._exchange(origin, data)

    async def aclose(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
        if self._proxied is not None:
            await self._proxied.aclose()
        # One turn of the loop, in which the sockets are closed.
        await asyncio.sleep(0)

    async def _exchange(self, origin: Origin, data: bytes) -> Response:
        while True:
            connection, is_fresh = self._take(origin), False
            if connection is None:
                connection, is_fresh = await _connect(origin), True
            reader, is_done = ResponseReader(), False
            try:
                response = await connection.exchange(data, reader)
                is_done = reader.keeps_alive
            except (OSError, MalformedAnswerError):
                if is_fresh or reader.has_begun:
                    raise
                # The server closed an idle connection just then; it has not read the request.
                continue
            finally:
                if is_done and len(self._idle[origin]) < MAX_CONNECTIONS:
                    self._idle[origin].append(connection)
                else:
                    connection.close()
            return response

    def _take(self, origin: Origin) -> _Connection | None:
        idle = self._idle[origin]
        while idle:
            connection = idle.pop()
            if connection.is_open:
                return connection
        return None


class _BlockingPool:
    """The connections of all blocking callers of this process; any thread may use it."""

    def __init__(self) -> None:
        self._idle: defaultdict[Origin, list[socket.socket]] = defaultdict(list)
        self._lock = threading.Lock()
        self._proxied: ProxiedClients | None = None

    def send(self, request: Request) -> Response:
        origin, deadline = origin_of(request.url), time.monotonic() + request.timeout
        data = encode_request(request)
        proxy = _proxy_of(origin)
        if proxy is not None:
            self._proxied = self._proxied or _load_proxied()
            return self._proxied.send_blocking(request, proxy)
        while True:
            connection, is_fresh = self._take(origin), False
            if connection is None:
                connection, is_fresh = _connect_blocking(origin, deadline), True
            reader, is_done = ResponseReader(), False
            try:
                response = _exchange_blocking(connection, data, reader, deadline)
                is_done = reader.keeps_alive
            except (OSError, MalformedAnswerError) as error:
                if is_fresh or reader.has_begun or isinstance(error, TimeoutError):
                    raise
                continue
            finally:
                self._put_back(origin, connection, is_done)
            return response

    def close(self) -> None:
        """Close what is idle. Safe in a forked child: no bytes are sent."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
        if self._proxied is not None:
            self._proxied.close()

    def _take(self, origin: Origin) -> socket.socket | None:
        with self._lock:
            idle = self._idle[origin]
            while idle:
                connection = idle.pop()
                if not _is_readable(connection):
                    return connection
                connection.close()
        return None

    def _put_back(self, origin: Origin, connection: socket.socket, is_usable: bool) -> None:
        with self._lock:
            if is_usable and len(self._idle[origin]) < MAX_CONNECTIONS:
                self._idle[origin].append(connection)
            else:
                connection.close()


_pools: dict[asyncio.AbstractEventLoop, _Pool] = {}
_blocking_pool = _BlockingPool()
# What a forked child inherits stays referenced: to collect it would touch the parent's event loop.
_inherited: list[dict[asyncio.AbstractEventLoop, _Pool]] = []


def _forget_parent() -> None:
    global _pools, _blocking_pool
    _inherited.append(_pools)
    _pools = {}
    _blocking_pool.close()
    _blocking_pool = _BlockingPool()


os.register_at_fork(after_in_child=_forget_parent)


@atexit.register
def _close_at_exit() -> None:
    _blocking_pool.close()


async def _pool_of_this_loop() -> _Pool:
    loop = asyncio.get_running_loop()
    pool = _pools.get(loop)
    if pool is None:
        for closed in [other for other in _pools if other.is_closed()]:
            del _pools[closed]
        pool = _pools[loop] = _Pool()
        pool.keeper = _close_with(loop, pool)
        await anext(pool.keeper)
    return pool


async def _close_with(loop: asyncio.AbstractEventLoop, pool: _Pool) -> AsyncGenerator[None, None]:
    # The loop notes a generator at its first step and closes it when it shuts down: the one signal
    # of its end that asyncio gives.
    try:
        yield
    finally:
        _pools.pop(loop, None)
        await pool.aclose()


async def _connect(origin: Origin) -> _Connection:
    loop = asyncio.get_running_loop()
    tls = _tls_context() if origin.is_tls else None
    _, connection = await loop.create_connection(_Connection, origin.host, origin.port, ssl=tls)
    return connection


def _connect_blocking(origin: Origin, deadline: float) -> socket.socket:
    connection = socket.create_connection((origin.host, origin.port), _left(deadline))
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not origin.is_tls:
            return connection
        return _tls_context().wrap_socket(connection, server_hostname=origin.host)
    except BaseException:
        connection.close()
        raise


def _exchange_blocking(
    connection: socket.socket, data: bytes, reader: ResponseReader, deadline: float
) -> Response:
    connection.settimeout(_left(deadline))
    connection.sendall(data)
    while True:
        connection.settimeout(_left(deadline))
        received = connection.recv(_READ_BYTES)
        if not received:
            return reader.feed_eof()
        response = reader.feed(received)
        if response is not None:
            return response


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _is_readable(connection: socket.socket) -> bool:
    """Whether an idle connection has something to read: its end, or what nobody asked for."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))


@functools.cache
def _tls_context() -> ssl.SSLContext:
    return ssl.create_default_context()


@functools.cache
def _proxy_of(origin: Origin) -> str | None:
    """The proxy that the environment (or macOS' settings) names for a server."""
    if origin.host == "localhost" or _is_loopback(origin.host) or proxy_bypass(origin.host):
        return None
    proxies = getproxies()
    return proxies.get("https" if origin.is_tls else "http") or proxies.get("all")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _load_proxied() -> "ProxiedClients":
    # httpx takes longer to import than all the rest of the client: only who has a proxy pays it.
    module = importlib.import_module("runwell.client.proxied")
    return cast("ProxiedClients", module.ProxiedClients())


def _no_answer(request: Request, error: Exception) -> ApiConnectionError:
    if isinstance(error, TimeoutError):
        reason = f"no answer within {request.timeout:g} seconds"
    elif isinstance(error, ConnectionRefusedError):
        reason = "nothing listens there: is the server running? `runwell dev` starts a local one"
    else:
        reason = str(error) or type(error).__name__
    url = request.url.partition("?")[0]
    failure = ApiConnectionError(f"{request.method} {url}: {reason}")
    failure.__cause__ = error
    return failure
