"""Errors, and how they travel."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from runwell.core.errors import (
    MAX_ERROR_CHARACTERS,
    RETRIED_CODES,
    SYSTEM_CODES,
    BuiltInError,
    CustomError,
    ErrorCode,
    InternalError,
    OutOfMemoryError,
    RequestError,
    RunwellError,
    StringError,
    TaskRunError,
    clip,
    serialize_error,
)

ERROR: TypeAdapter[TaskRunError] = TypeAdapter(TaskRunError)
ERRORS: list[tuple[TaskRunError, dict[str, str]]] = [
    (
        BuiltInError(name="ValueError", message="no", stack_trace="at x"),
        {"name": "ValueError", "message": "no", "stackTrace": "at x"},
    ),
    (StringError(raw="no"), {"message": "no"}),
    (CustomError(raw='{"code":1}'), {"message": '{"code":1}'}),
    (
        InternalError(code=ErrorCode.TASK_PROCESS_OOM_KILLED, message="at 512 MB"),
        {"name": "Internal error", "message": "TASK_PROCESS_OOM_KILLED: at 512 MB"},
    ),
    (
        InternalError(code=ErrorCode.COULD_NOT_FIND_TASK, stack_trace="at y"),
        {"name": "Internal error", "message": "COULD_NOT_FIND_TASK", "stackTrace": "at y"},
    ),
]


@pytest.mark.parametrize(("error", "shown"), ERRORS)
def test_an_error_is_shown_as_the_api_shows_it(error: TaskRunError, shown: dict[str, str]) -> None:
    assert serialize_error(error) == shown


@pytest.mark.parametrize("error", [error for error, _ in ERRORS])
def test_an_error_reads_back_what_it_writes(error: TaskRunError) -> None:
    text = ERROR.dump_json(error, by_alias=True)
    assert ERROR.validate_json(text) == error


def test_an_error_of_no_known_kind_is_refused() -> None:
    with pytest.raises(ValidationError):
        ERROR.validate_python({"type": "OTHER", "raw": "x"})


def test_no_code_is_both_retried_and_beyond_repair() -> None:
    assert not RETRIED_CODES & SYSTEM_CODES


def test_a_refused_request_has_its_status() -> None:
    error = RequestError(422, "no such queue")
    assert (error.status, str(error)) == (422, "no such queue")
    assert isinstance(error, RunwellError)


def test_an_out_of_memory_error_of_a_task_has_the_message_clients_know() -> None:
    assert str(OutOfMemoryError()) == "MANUAL_OOM_KILL_ERROR"


@given(st.text(max_size=50))
def test_a_short_text_is_not_cut(text: str) -> None:
    assert clip(text) == text


@given(st.integers(100, 1000), st.integers(1, 100_000))
def test_a_long_text_keeps_both_ends_and_says_how_much_is_gone(limit: int, more: int) -> None:
    text = "".join(chr(97 + index % 26) for index in range(limit + more))
    cut = clip(text, limit)
    head, middle, tail = cut.split("\n")
    assert len(cut) <= limit
    assert text.startswith(head)
    assert text.endswith(tail)
    gone = int(middle.removeprefix("... ").removesuffix(" characters cut ..."))
    assert gone == len(text) - len(head) - len(tail)


def test_an_error_is_cut_where_it_could_fill_a_server() -> None:
    assert len(clip("x" * (MAX_ERROR_CHARACTERS + 1))) <= MAX_ERROR_CHARACTERS
