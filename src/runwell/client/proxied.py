"""Sends requests through the proxy that the environment names, by way of httpx."""

import httpx

from runwell.client.transport import Request, Response


class ProxiedClients:
    """One client per proxy; async ones belong to the event loop that they are used in."""

    def __init__(self) -> None:
        self._async: dict[str, httpx.AsyncClient] = {}
        self._blocking: dict[str, httpx.Client] = {}

    async def send(self, request: Request, proxy: str) -> Response:
        """Send one request; no answer is an OSError."""
        client = self._async.get(proxy)
        if client is None:
            client = self._async[proxy] = httpx.AsyncClient(proxy=proxy)
        try:
            answer = await client.request(
                request.method,
                request.url,
                headers=dict(request.headers),
                content=request.body,
                timeout=request.timeout,
            )
        except httpx.HTTPError as error:
            raise _os_error(error) from error
        return Response(answer.status_code, dict(answer.headers), answer.content)

    def send_blocking(self, request: Request, proxy: str) -> Response:
        """Send one request; no answer is an OSError."""
        client = self._blocking.get(proxy)
        if client is None:
            client = self._blocking[proxy] = httpx.Client(proxy=proxy)
        try:
            answer = client.request(
                request.method,
                request.url,
                headers=dict(request.headers),
                content=request.body,
                timeout=request.timeout,
            )
        except httpx.HTTPError as error:
            raise _os_error(error) from error
        return Response(answer.status_code, dict(answer.headers), answer.content)

    async def aclose(self) -> None:
        """Close the async clients."""
        for client in self._async.values():
            await client.aclose()
        self._async.clear()

    def close(self) -> None:
        """Close the blocking clients."""
        for client in self._blocking.values():
            client.close()
        self._blocking.clear()


def _os_error(error: httpx.HTTPError) -> OSError:
    if isinstance(error, httpx.TimeoutException):
        return TimeoutError(str(error))
    return ConnectionError(f"through the proxy: {error}")
