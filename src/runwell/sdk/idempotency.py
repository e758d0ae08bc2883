"""`idempotency_keys`: keys for which a task is triggered once."""

from collections.abc import Sequence
from typing import Final, Literal, Protocol
from urllib.parse import quote

from runwell.client.transport import Call, Flow, RequestOptions, json_body
from runwell.client.triggering import hash_key, read_key
from runwell.core.schemas import ResetKeyAnswer
from runwell.sdk.client import default_client
from runwell.sdk.runtime import find_runtime

#: Within what a key is the same: everywhere, in one run whatever its attempts, in one attempt.
KeyScope = Literal["run", "attempt", "global"]


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


class _KeyFlows:
    __slots__ = ()

    def create(self, key: str | Sequence[str], *, scope: KeyScope = "run") -> str:
        """A key made of a text or several, and of the current run or attempt by the scope.

        With the scope "run" the attempts of a run share the key, so that what a first attempt
        triggered is not triggered again by a second one. Outside of a run each scope is "global".
        """
        if scope not in ("run", "attempt", "global"):
            raise ValueError(f"scope={scope!r}: choose one of run, attempt, global")
        runtime = find_runtime()
        if runtime is None or scope == "global":
            return hash_key(key)
        return hash_key(key, runtime.ctx.run.id if scope == "run" else runtime.ctx.attempt.id)

    def _reset(
        self, task: str | _HasId, key: str | Sequence[str], options: RequestOptions | None
    ) -> Flow[ResetKeyAnswer]:
        call = Call(
            method="POST",
            path=f"/api/v1/idempotencyKeys/{quote(read_key(key), safe='')}/reset",
            body=json_body({"taskIdentifier": task if isinstance(task, str) else task.id}),
            options=options,
        )
        return default_client.ask(call, ResetKeyAnswer)


class IdempotencyKeys(_KeyFlows):
    """Makes keys for the `idempotency_key` option of triggers, and gives them up.

    Example:
        >>> from runwell import idempotency_keys
        >>> key = idempotency_keys.create(["user_1", "welcome"], scope="global")
        >>> len(key)
        64
        >>> async def welcome_again() -> None:
        ...     await idempotency_keys.reset("send-welcome", key)
    """

    __slots__ = ()

    async def reset(
        self,
        task: str | _HasId,
        key: str | Sequence[str],
        *,
        request_options: RequestOptions | None = None,
    ) -> bool:
        """Let the next trigger of a task with this key make a new run; True if it had one.

        `task` is the task or its id; `key` is what was given as `idempotency_key`.
        """
        return (await default_client.run(self._reset(task, key, request_options))).was_taken


class BlockingIdempotencyKeys(_KeyFlows):
    """Makes keys for the `idempotency_key` option of triggers, and gives them up, blocking.

    Example:
        >>> from runwell.sync import idempotency_keys
        >>> def welcome_again(key: str) -> bool:
        ...     return idempotency_keys.reset("send-welcome", key)
    """

    __slots__ = ()

    def reset(
        self,
        task: str | _HasId,
        key: str | Sequence[str],
        *,
        request_options: RequestOptions | None = None,
    ) -> bool:
        """Let the next trigger of a task with this key make a new run; True if it had one."""
        return default_client.run_blocking(self._reset(task, key, request_options)).was_taken


idempotency_keys: Final = IdempotencyKeys()
blocking_idempotency_keys: Final = BlockingIdempotencyKeys()
