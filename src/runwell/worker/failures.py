"""How an exception of a task becomes the error of its run."""

import asyncio
import signal
import traceback
from pathlib import Path
from subprocess import CalledProcessError
from types import TracebackType
from typing import cast

from runwell.core.errors import (
    AbortTaskRunError,
    BuiltInError,
    ErrorCode,
    InternalError,
    InvalidPayloadError,
    OutOfMemoryError,
    TaskPayloadParsedError,
    TaskRunError,
    clip,
)
from runwell.worker.texts import clean_text, safe_text

_OUR_FOLDER = str(Path(__file__).resolve().parent.parent)
# By name: it imports this module.
_HOOKS_FILE = str(Path(__file__).with_name("hooks.py").resolve())
_ASYNCIO_FOLDER = str(Path(asyncio.__file__).parent)
_MAX_MESSAGE_CHARACTERS = 8_192
_MAX_STACK_CHARACTERS = 24_576


def describe_exception(error: BaseException) -> tuple[TaskRunError, bool]:
    """The error to report, and whether retrying is pointless."""
    match error:
        case TaskPayloadParsedError() | AbortTaskRunError():
            return _built_in(error), True
        case MemoryError() | OutOfMemoryError():
            return out_of_memory(error), False
        case CalledProcessError() if _is_killed_ffmpeg(error):
            return out_of_memory(error), False
        case SystemExit():
            return _system_exit(error), False
        case _:
            return _built_in(error), False


def describe_bad_output(error: Exception) -> TaskRunError:
    """A task returned what is not JSON, or too much of it."""
    message = safe_text(error)
    # Not one of ours: user code ran while the value was encoded, and its trace is what helps.
    stack = None if isinstance(error, InvalidPayloadError) else format_stack(error)
    return InternalError(
        code=ErrorCode.TASK_OUTPUT_ERROR,
        message=clip(clean_text(message), _MAX_MESSAGE_CHARACTERS),
        stack_trace=stack,
    )


def out_of_memory(error: BaseException) -> TaskRunError:
    """The task saw itself that memory is used up."""
    text = safe_text(error)
    return InternalError(
        code=ErrorCode.TASK_PROCESS_OOM_KILLED,
        message=clip(clean_text(text), _MAX_MESSAGE_CHARACTERS)
        or "Your task ran out of memory (MemoryError). Try a larger machine.",
        stack_trace=format_stack(error),
    )


def format_stack(error: BaseException) -> str:
    """The traceback from the user's first frame on, cut to what is stored."""
    try:
        shown = traceback.TracebackException(
            type(error), error, _users_part(error.__traceback__), compact=True
        )
        _leave_out_hook_calls(shown)
        text = "".join(shown.format())
    # An exception's own methods may raise anything (its __str__, its notes, a broken __cause__).
    except Exception:  # noqa: BLE001
        text = f"{type(error).__name__}: {safe_text(error)}"
    return clip(clean_text(text.rstrip("\n")), _MAX_STACK_CHARACTERS)


def _is_killed_ffmpeg(error: CalledProcessError) -> bool:
    # The kernel, short of memory, ends the largest process: of a run with ffmpeg, that is ffmpeg.
    if error.returncode not in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return False
    command = cast("object", error.cmd)
    words = command.split() if isinstance(command, str) else cast("list[object]", command)
    return bool(words) and Path(str(words[0])).name == "ffmpeg"


def _built_in(error: BaseException) -> BuiltInError:
    return BuiltInError(
        name=clean_text(type(error).__name__)[:256],
        message=clip(clean_text(safe_text(error)), _MAX_MESSAGE_CHARACTERS),
        stack_trace=format_stack(error),
    )


def _system_exit(error: SystemExit) -> InternalError:
    code = error.code
    shown = "" if code is None else clean_text(safe_text(code))
    return InternalError(
        code=ErrorCode.TASK_PROCESS_EXITED_WITH_NON_ZERO_CODE,
        message=clip(
            f"the task called sys.exit({shown}); return from it to complete, raise to fail",
            _MAX_MESSAGE_CHARACTERS,
        ),
        stack_trace=format_stack(error),
    )


def _leave_out_hook_calls(shown: traceback.TracebackException) -> None:
    """Between the user's middleware and the task's function are frames of ours."""
    link: traceback.TracebackException | None = shown
    while link is not None:
        frames = [frame for frame in link.stack if frame.filename != _HOOKS_FILE]
        if frames:
            link.stack = traceback.StackSummary.from_list(frames)
        link = link.__cause__ or link.__context__


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    """Skip the frames that called the task, ours and the event loop's; keep a fault of ours."""
    step, is_our_fault = trace, False
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        is_our_fault = file.startswith(_OUR_FOLDER)
        if not is_our_fault and not file.startswith(_ASYNCIO_FOLDER):
            return step
        step = step.tb_next
    return trace if is_our_fault else None
