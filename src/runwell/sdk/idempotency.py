"""`idempotency_keys`: keys for which a task is triggered once."""

from collections.abc import Sequence
from typing import Final, Literal

from runwell.client.triggering import hash_key
from runwell.sdk.runtime import find_runtime

#: Within what a key is the same: everywhere, in one run whatever its attempts, in one attempt.
KeyScope = Literal["run", "attempt", "global"]


class IdempotencyKeys:
    """Makes keys for the `idempotency_key` option of triggers.

    Example:
        >>> from runwell import idempotency_keys
        >>> key = idempotency_keys.create(["user_1", "welcome"], scope="global")
        >>> len(key)
        64
    """

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


idempotency_keys: Final = IdempotencyKeys()
