"""`python`: run Python code in an interpreter of its own, from within a task.

For code that needs other packages, a clean process, or to be killed by itself. What it writes is
in the run's log as it comes. Source: docs `config/extensions/pythonExtension.md`.
"""

import asyncio
import codecs
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, TypedDict, Unpack

from runwell.core.errors import RunwellError

_CHUNK_BYTES: Final = 64 * 1024
_SHOWN_CHARACTERS: Final = 2000
# The code comes by stdin: an argument has a limit of its own.
_READ_CODE: Final = (
    "import sys; exec(compile(sys.stdin.buffer.read(), '<inline>', 'exec'), {'__name__': "
    "'__main__', '__builtins__': __builtins__})"
)


class PythonOptions(TypedDict, total=False):
    """Options of the functions of `python`.

    `env` are environment variables, added to those of the run; `cwd` the folder, that of the
    project by default; `interpreter` another Python than the run's own.
    """

    env: Mapping[str, str]
    cwd: str | Path
    interpreter: str | Path


@dataclass(frozen=True, kw_only=True, slots=True)
class PythonResult:
    r"""What an interpreter wrote, when it has ended with status 0.

    Example:
        >>> from runwell import PythonResult
        >>> from runwell.sync import python
        >>> result: PythonResult = python.run_inline("print(6 * 7)")
        >>> result.stdout
        '42\n'
    """

    stdout: str
    stderr: str
    exit_code: int = 0


class PythonError(RunwellError):
    """An interpreter that `python` started has ended with another status than 0.

    It has `exit_code` (negative for a signal), `stdout` and `stderr`.

    Example:
        >>> from runwell import PythonError
        >>> from runwell.sync import python
        >>> try:
        ...     _ = python.run_inline("import sys; sys.exit('no input')")
        ... except PythonError as error:
        ...     print(error.exit_code, error.stderr.strip())
        1 no input
    """

    def __init__(self, what: str, result: PythonResult) -> None:
        self.exit_code, self.stdout, self.stderr = result.exit_code, result.stdout, result.stderr
        ended = (
            f"was ended by signal {-result.exit_code}"
            if result.exit_code < 0
            else f"has ended with status {result.exit_code}"
        )
        shown = result.stderr.strip()[-_SHOWN_CHARACTERS:]
        super().__init__(f"{what} {ended}" + (f":\n{shown}" if shown else ""))


class PythonStreams:
    """The functions of `python` that give what is written to stdout piece by piece."""

    __slots__ = ()

    def run(
        self, arguments: Sequence[str], /, **options: Unpack[PythonOptions]
    ) -> AsyncGenerator[str]:
        """Run an interpreter with these arguments; the pieces of its output as they come."""
        return _stream(_Command.of("python.stream.run", arguments, options))

    def run_inline(self, code: str, /, **options: Unpack[PythonOptions]) -> AsyncGenerator[str]:
        """Run code, indented as it may be; the pieces of its output as they come."""
        return _stream(_Command.inline("python.stream.run_inline", code, options))

    def run_script(
        self,
        path: str | Path,
        arguments: Sequence[str] = (),
        /,
        **options: Unpack[PythonOptions],
    ) -> AsyncGenerator[str]:
        """Run a file; the pieces of its output as they come. Raises FileNotFoundError."""
        return _stream(_Command.script("python.stream.run_script", path, arguments, options))


class BlockingPythonStreams:
    """The functions of `python` that give what is written piece by piece, blocking the caller."""

    __slots__ = ()

    def run(self, arguments: Sequence[str], /, **options: Unpack[PythonOptions]) -> Generator[str]:
        """Run an interpreter with these arguments; the pieces of its output as they come."""
        return _stream_blocking(_Command.of("python.stream.run", arguments, options))

    def run_inline(self, code: str, /, **options: Unpack[PythonOptions]) -> Generator[str]:
        """Run code, indented as it may be; the pieces of its output as they come."""
        return _stream_blocking(_Command.inline("python.stream.run_inline", code, options))

    def run_script(
        self,
        path: str | Path,
        arguments: Sequence[str] = (),
        /,
        **options: Unpack[PythonOptions],
    ) -> Generator[str]:
        """Run a file; the pieces of its output as they come. Raises FileNotFoundError."""
        return _stream_blocking(
            _Command.script("python.stream.run_script", path, arguments, options)
        )


class Python:
    """Runs Python code in an interpreter of its own, which a cancel of the run kills.

    What it writes is in the run's log as it comes, and in the result; the functions of
    `python.stream` give what comes on stdout to the caller instead. Each raises `PythonError` when
    the interpreter ends with another status than 0.

    Example:
        >>> from runwell import python, task
        >>> @task(id="train")
        ... async def train(name: str) -> str:
        ...     result = await python.run_script("scripts/train.py", [name], env={"SEED": "7"})
        ...     async for piece in python.stream.run_inline("print('done')"):
        ...         print(piece, end="")
        ...     return result.stdout
    """

    __slots__ = ()
    stream: Final = PythonStreams()

    async def run(
        self, arguments: Sequence[str], /, **options: Unpack[PythonOptions]
    ) -> PythonResult:
        """Run an interpreter with these arguments, as on a command line: `["-m", "json.tool"]`."""
        return await _run(_Command.of("python.run", arguments, options))

    async def run_inline(self, code: str, /, **options: Unpack[PythonOptions]) -> PythonResult:
        """Run code, indented as it may be."""
        return await _run(_Command.inline("python.run_inline", code, options))

    async def run_script(
        self,
        path: str | Path,
        arguments: Sequence[str] = (),
        /,
        **options: Unpack[PythonOptions],
    ) -> PythonResult:
        """Run a file, whose path is relative to `cwd`. Raises FileNotFoundError."""
        return await _run(_Command.script("python.run_script", path, arguments, options))


class BlockingPython:
    r"""Runs Python code in an interpreter of its own, blocking the caller.

    Example:
        >>> from runwell.sync import python
        >>> python.run(["-c", "import sys; print(sys.argv[1:])", "a", "b"]).stdout
        "['a', 'b']\n"
    """

    __slots__ = ()
    stream: Final = BlockingPythonStreams()

    def run(self, arguments: Sequence[str], /, **options: Unpack[PythonOptions]) -> PythonResult:
        """Run an interpreter with these arguments, as on a command line: `["-m", "json.tool"]`."""
        return _run_blocking(_Command.of("python.run", arguments, options))

    def run_inline(self, code: str, /, **options: Unpack[PythonOptions]) -> PythonResult:
        """Run code, indented as it may be."""
        return _run_blocking(_Command.inline("python.run_inline", code, options))

    def run_script(
        self,
        path: str | Path,
        arguments: Sequence[str] = (),
        /,
        **options: Unpack[PythonOptions],
    ) -> PythonResult:
        """Run a file, whose path is relative to `cwd`. Raises FileNotFoundError."""
        return _run_blocking(_Command.script("python.run_script", path, arguments, options))


python: Final = Python()
blocking_python: Final = BlockingPython()


@dataclass(frozen=True, slots=True)
class _Command:
    """An interpreter to start."""

    what: str
    arguments: list[str]
    environment: dict[str, str]
    folder: str
    #: The code, for stdin.
    code: bytes = b""

    @classmethod
    def of(
        cls, what: str, arguments: Sequence[str], options: PythonOptions, code: bytes = b""
    ) -> "_Command":
        """With these arguments; raises TypeError and ValueError that say what is wrong."""
        unknown = set(options) - set(PythonOptions.__annotations__)
        if unknown:
            raise TypeError(f"{what} has no option '{min(unknown)}'")
        given: object = arguments
        if isinstance(given, str) or not all(type(one) is str for one in arguments):
            raise TypeError(f"{what}: the arguments are a list of texts, not {arguments!r}")
        interpreter = str(options.get("interpreter", sys.executable))
        # Its output comes when it is written, not when a buffer is full.
        inherited = os.environ  # noqa: TID251 (no setting of ours: what any child process inherits)
        environment = {**inherited, "PYTHONUNBUFFERED": "1", **options.get("env", {})}
        folder = os.fspath(options.get("cwd", Path.cwd()))
        return cls(what, [interpreter, *arguments], environment, folder, code)

    def stdin(self) -> IO[bytes]:
        """A file that the interpreter reads: its code, if any."""
        file = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
        file.write(self.code)
        file.seek(0)
        return file

    @classmethod
    def inline(cls, what: str, code: str, options: PythonOptions) -> "_Command":
        """That runs this code."""
        return cls.of(what, ["-c", _READ_CODE], options, textwrap.dedent(code).encode())

    @classmethod
    def script(
        cls, what: str, path: str | Path, arguments: Sequence[str], options: PythonOptions
    ) -> "_Command":
        """That runs a file."""
        if isinstance(arguments, str):
            raise TypeError(f"{what}: the arguments are a list of texts, not {arguments!r}")
        file = Path(options.get("cwd", Path.cwd())) / path
        if not file.is_file():
            raise FileNotFoundError(
                f"{what}: there is no file {os.fspath(path)!r} in {file.parent}: paths are "
                "relative to the project's folder, or to `cwd`"
            )
        return cls.of(f"{what}: {path}", [str(file), *arguments], options)


class _Output:
    """What comes from one descriptor: read as text, and copied to a descriptor of the run."""

    def __init__(self, copy_to: int | None) -> None:
        self._copy_to = copy_to
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.pieces: list[str] = []

    def take(self, data: bytes) -> str:
        """Some of it as text; nothing stands for its end."""
        rest = data if self._copy_to is not None else b""
        while rest:
            rest = rest[os.write(self._copy_to or 0, rest) :]
        piece = self._decoder.decode(data, final=not data)
        self.pieces.append(piece)
        return piece


async def _run(command: _Command) -> PythonResult:
    stdout, stderr = _Output(1), _Output(2)
    async with aclosing(_follow(command, stdout, stderr)) as pieces:
        async for _ in pieces:
            pass
    return _result(0, stdout, stderr)


async def _stream(command: _Command) -> AsyncGenerator[str]:
    async with aclosing(_follow(command, _Output(None), _Output(2))) as pieces:
        async for piece in pieces:
            yield piece


async def _follow(command: _Command, stdout: _Output, stderr: _Output) -> AsyncGenerator[str]:
    with command.stdin() as stdin:
        process = await asyncio.create_subprocess_exec(
            *command.arguments,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=command.environment,
            cwd=command.folder,
        )
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.ensure_future(_read(process.stderr, stderr))
    try:
        while data := await process.stdout.read(_CHUNK_BYTES):
            if piece := stdout.take(data):
                yield piece
        if piece := stdout.take(b""):
            yield piece
        await errors
        await process.wait()
    finally:
        # It is given up: the run was canceled, or nobody wants more of its output.
        errors.cancel()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise PythonError(command.what, _result(process.returncode, stdout, stderr))


async def _read(stream: asyncio.StreamReader, output: _Output) -> None:
    while data := await stream.read(_CHUNK_BYTES):
        output.take(data)
    output.take(b"")


def _run_blocking(command: _Command) -> PythonResult:
    stdout, stderr = _Output(1), _Output(2)
    with closing(_follow_blocking(command, stdout, stderr)) as pieces:
        for _ in pieces:
            pass
    return _result(0, stdout, stderr)


def _stream_blocking(command: _Command) -> Generator[str]:
    with closing(_follow_blocking(command, _Output(None), _Output(2))) as pieces:
        yield from pieces


def _follow_blocking(command: _Command, stdout: _Output, stderr: _Output) -> Generator[str]:
    with command.stdin() as stdin:
        process = subprocess.Popen(
            command.arguments,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=command.environment,
            cwd=command.folder,
        )
    assert process.stdout is not None
    assert process.stderr is not None
    errors = threading.Thread(target=_read_blocking, args=(process.stderr, stderr), daemon=True)
    try:
        errors.start()
        while data := os.read(process.stdout.fileno(), _CHUNK_BYTES):
            if piece := stdout.take(data):
                yield piece
        if piece := stdout.take(b""):
            yield piece
        errors.join()
        process.wait()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    if process.returncode:
        raise PythonError(command.what, _result(process.returncode, stdout, stderr))


def _read_blocking(stream: IO[bytes], output: _Output) -> None:
    with stream:
        while data := os.read(stream.fileno(), _CHUNK_BYTES):
            output.take(data)
        output.take(b"")


def _result(exit_code: int, stdout: _Output, stderr: _Output) -> PythonResult:
    return PythonResult(
        stdout="".join(stdout.pieces), stderr="".join(stderr.pieces), exit_code=exit_code
    )
