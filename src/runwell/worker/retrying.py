"""What follows a failed attempt, as far as the run's own process decides it.

The server decides by the task's options whether another attempt follows. The child must know that
too, since `on_failure` is for the last one; and what `handle_error` returns goes beyond them.
Sources: docs `errors-retrying.md`; `protocol.md` section 3.6.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Self, cast

from runwell.client.options import Retry, read_duration, read_instant
from runwell.client.transport import RateLimitError
from runwell.core.errors import ErrorCode, InternalError, TaskRunError, is_retried
from runwell.core.protocol import DequeuedRun
from runwell.core.timing import MAX_ATTEMPTS, Duration, RetryOptions, retry_delay
from runwell.sdk.hooks import ErrorHandling
from runwell.worker.failures import describe_exception, format_stack
from runwell.worker.texts import clean_text, safe_text


@dataclass(frozen=True, kw_only=True)
class AttemptFailure:
    """How an attempt failed; `next_at` is when another one follows, None for never.

    `retry_at` is the same when the server is to be told: it does not decide by the options then.
    """

    error: TaskRunError
    skip_retrying: bool
    next_at: datetime | None = None
    retry_at: datetime | None = None
    is_spent: bool = False


class BadHandlingError(Exception):
    """What a `handle_error` hook returned is not what it may return."""


class RetryPlan:
    """What holds for the attempts of a run."""

    def __init__(
        self, options: RetryOptions, *, max_attempts: int, attempts: int, may_retry: bool
    ) -> None:
        """`attempts` counts this one; without `may_retry` there is never another one."""
        self._options = options.model_copy(update={"max_attempts": max_attempts})
        self._attempts = attempts
        self._may_retry = may_retry

    @classmethod
    def of(cls, run: DequeuedRun, options: RetryOptions, *, may_retry: bool) -> Self:
        """That of a run: the number of attempts that its trigger gave wins over the task's."""
        return cls(
            options,
            max_attempts=run.max_attempts,
            attempts=run.counted_attempts or run.attempt_number,
            may_retry=may_retry,
        )

    @property
    def retry(self) -> Retry:
        """The options as their users write them."""
        options = self._options
        return Retry(
            max_attempts=options.max_attempts,
            factor=options.factor,
            min_timeout=timedelta(milliseconds=options.min_timeout_in_ms),
            max_timeout=timedelta(milliseconds=options.max_timeout_in_ms),
            randomize=options.randomize,
            out_of_memory=None if options.out_of_memory is None else options.out_of_memory.machine,
        )

    def usual(
        self, error: BaseException, described: TaskRunError, *, skip_retrying: bool = False
    ) -> AttemptFailure:
        """What the options say."""
        skip = skip_retrying or not self._may_retry
        failure = AttemptFailure(error=described, skip_retrying=skip)
        if skip or not is_retried(described) or self._attempts >= self._options.max_attempts:
            return failure
        reset = reset_time(error)
        if reset is not None:
            return replace(failure, next_at=reset, retry_at=reset)
        return replace(failure, next_at=self._after(retry_delay(self._options, self._attempts)))

    def broken(self, error: BaseException) -> AttemptFailure:
        """The hook that handles errors has one itself."""
        message = f"{type(error).__name__}: {safe_text(error)}"
        if isinstance(error, BadHandlingError):
            message = safe_text(error)
        described = InternalError(
            code=ErrorCode.HANDLE_ERROR_ERROR,
            message=clean_text(f"the hook 'handle_error' failed: {message}"),
            stack_trace=None if isinstance(error, BadHandlingError) else format_stack(error),
        )
        return self.usual(error, described)

    def decide(
        self, answer: object, failure: AttemptFailure, error: BaseException
    ) -> tuple[AttemptFailure, BaseException]:
        """What a `handle_error` hook says; raises BadHandlingError when that can't be understood.

        Also returns the error that counts from here on.
        """
        # The hook was told this instant: chance must not give another one.
        failure = replace(failure, retry_at=failure.next_at)
        if answer is None:
            return failure, error
        handling = _read_handling(answer)
        if "error" in handling:
            error = handling["error"]
            described, is_fatal = describe_exception(error)
            failure = replace(
                failure, error=described, skip_retrying=failure.skip_retrying or is_fatal
            )
        if handling.get("skip_retrying"):
            failure = replace(failure, skip_retrying=True)
        may_follow = is_retried(failure.error) and self._attempts < MAX_ATTEMPTS
        if failure.skip_retrying or not may_follow:
            return replace(failure, next_at=None, retry_at=None), error
        instant = self._instant(handling, failure.next_at)
        follows = instant is not None
        return (
            replace(failure, next_at=instant, retry_at=instant, skip_retrying=not follows),
            error,
        )

    def _instant(self, handling: ErrorHandling, usual: datetime | None) -> datetime | None:
        if "retry_at" in handling:
            return handling["retry_at"]
        if "retry_delay" in handling:
            return self._after(read_duration("retry_delay", handling["retry_delay"]))
        if "retry" in handling:
            options = handling["retry"].to_options()
            if self._attempts >= options.max_attempts:
                return None
            return self._after(retry_delay(options, self._attempts))
        return usual

    def _after(self, delay: timedelta) -> datetime:
        return datetime.now(UTC) + delay


def reset_time(error: BaseException) -> datetime | None:
    """When a rate limit of the API ends: an attempt before that would fail in the same way."""
    if not isinstance(error, RateLimitError):
        return None
    try:
        instant = datetime.fromtimestamp(int(error.headers["x-ratelimit-reset"]) / 1000, UTC)
    except (KeyError, ValueError, OverflowError, OSError):
        return None
    return instant if instant > datetime.now(UTC) else None


def _read_handling(answer: object) -> ErrorHandling:
    if not isinstance(answer, Mapping):
        raise BadHandlingError(f"it returned {_shown(answer)}: return an ErrorHandling or None")
    given = {
        key: value
        for key, value in cast("Mapping[str, object]", answer).items()
        if value is not None
    }
    for name, value in given.items():
        problem = _problem(name, value)
        if problem is not None:
            raise BadHandlingError(f"it returned {name}={_shown(value)}: {problem}")
    return cast("ErrorHandling", given)


def _problem(name: str, value: object) -> str | None:
    match name:
        case "skip_retrying":
            return None if isinstance(value, bool) else "it takes True or False"
        case "error":
            return None if isinstance(value, BaseException) else "it takes an exception"
        case "retry":
            return None if isinstance(value, Retry) else "it takes Retry(max_attempts=..., ...)"
        case "retry_at" | "retry_delay":
            return _problem_of_time(name, value)
        case _:
            return f"there is no such key, only {', '.join(ErrorHandling.__annotations__)}"


def _problem_of_time(name: str, value: object) -> str | None:
    try:
        if name == "retry_delay":
            read_duration(name, cast("Duration", value))
        elif isinstance(value, datetime):
            read_instant(name, value)
        else:
            return "it takes a datetime with a time zone"
    except ValueError as error:
        return str(error)
    return None


def _shown(value: object) -> str:
    text = safe_text(value) if isinstance(value, BaseException) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
