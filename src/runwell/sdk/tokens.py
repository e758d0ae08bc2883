"""What waiting for a token gives."""

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass

from runwell.core.errors import RunwellError
from runwell.core.payloads import Json, decode_packet
from runwell.core.token_schemas import CreatedToken, TokenObject
from runwell.core.waits import TokenWait, WaitResult

#: A token, or its id.
TokenReference = str | CreatedToken | TokenObject


class WaitTimeoutError(RunwellError):
    """A token was not completed within its timeout.

    Example:
        >>> from runwell import WaitTimeoutError
        >>> str(WaitTimeoutError("waitpoint_1"))
        'waitpoint_1 was not completed within its timeout'
    """

    def __init__(self, token_id: str) -> None:
        super().__init__(f"{token_id} was not completed within its timeout")
        self.token_id = token_id


@dataclass(frozen=True, kw_only=True)
class TokenResult:
    """What a token came to: with `ok` its output, otherwise the error.

    Example:
        >>> from runwell import TokenResult
        >>> TokenResult(ok=True, output={"approved": True}).unwrap()
        {'approved': True}
    """

    ok: bool
    output: Json = None
    error: WaitTimeoutError | None = None

    def unwrap(self) -> Json:
        """The output; raises WaitTimeoutError."""
        if self.error is not None:
            raise self.error
        return self.output


class PendingToken:
    """A wait for a token: await it for its `TokenResult`, or await its `.unwrap()`."""

    def __init__(self, make: Callable[[], Awaitable[TokenResult]]) -> None:
        self._make = make

    def __await__(self) -> Generator[object, object, TokenResult]:
        return self._make().__await__()

    async def unwrap(self) -> Json:
        """The output; raises WaitTimeoutError when nobody completed the token in time."""
        return (await self._make()).unwrap()


def token_wait(token_id: str, wait_id: str) -> TokenWait:
    """A wait for a token."""
    return TokenWait(wait_id=wait_id, token_id=token_id)


def make_token_result(token_id: str, result: WaitResult) -> TokenResult:
    """The result of a token as user code sees it."""
    if not result.is_ok:
        return TokenResult(ok=False, error=WaitTimeoutError(token_id))
    return TokenResult(ok=True, output=decode_packet(result.output, result.output_type))
