"""`python`: code in an interpreter of its own."""

import asyncio
import signal
from pathlib import Path

import pytest

from runwell import PythonError, PythonResult, python
from runwell.sdk.python import blocking_python
from tests.support.waiting import wait_until
from tests.worker.support.watched_worker import is_gone


async def run_inline(is_async: bool, code: str, **options: str) -> PythonResult:
    if is_async:
        return await python.run_inline(code, **options)  # pyright: ignore[reportArgumentType] (the tests' own)
    return blocking_python.run_inline(code, **options)  # pyright: ignore[reportArgumentType] (the tests' own)


BOTH = pytest.mark.parametrize("is_async", [True, False])


@BOTH
async def test_what_code_writes_is_in_the_result_and_written_on(
    is_async: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    result = await run_inline(
        is_async,
        """
        import sys
        print("žluť", __name__)
        print("careful", file=sys.stderr)
        """,
    )
    assert result == PythonResult(stdout="žluť __main__\n", stderr="careful\n")
    assert capfd.readouterr() == ("žluť __main__\n", "careful\n")


@BOTH
async def test_more_than_a_pipe_holds_is_read_on_both_sides(is_async: bool) -> None:
    code = "import sys; print('é' * 300_000); print('e' * 300_000, file=sys.stderr)"
    result = await run_inline(is_async, code + "\n" + "# " + "long " * 100_000)
    assert (result.stdout, result.stderr) == ("é" * 300_000 + "\n", "e" * 300_000 + "\n")


@BOTH
async def test_a_bad_end_is_an_error_with_what_was_written(is_async: bool) -> None:
    with pytest.raises(PythonError) as raised:
        await run_inline(is_async, "print('before')\n1 / 0")
    error = raised.value
    assert (error.exit_code, error.stdout) == (1, "before\n")
    assert str(error).startswith("python.run_inline has ended with status 1:\nTraceback")
    assert str(error).endswith("ZeroDivisionError: division by zero")
    with pytest.raises(PythonError, match=r"was ended by signal 9$"):
        await run_inline(is_async, "import os; os.kill(os.getpid(), 9)")


@BOTH
async def test_a_script_gets_its_arguments_and_environment(is_async: bool, tmp_path: Path) -> None:
    script = tmp_path / "show.py"
    script.write_text("import os, sys; print(sys.argv[1:], os.environ['MINE'], os.getcwd())")
    if is_async:
        result = await python.run_script("show.py", ["a", "b"], env={"MINE": "7"}, cwd=tmp_path)
    else:
        result = blocking_python.run_script(script, ["a", "b"], env={"MINE": "7"}, cwd=tmp_path)
    assert result.stdout == f"['a', 'b'] 7 {tmp_path}\n"


@BOTH
async def test_a_stream_gives_pieces_as_they_are_written(is_async: bool, tmp_path: Path) -> None:
    script = tmp_path / "ask.py"
    script.write_text(
        "import os, sys, time\nprint('first')\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.01)\nprint('second')\nsys.exit(3)"
    )
    flag, got = tmp_path / "flag", list[str]()

    async def follow() -> None:
        if is_async:
            async for piece in python.stream.run_script(script, [str(flag)]):
                got.append(piece)
                flag.touch()
        else:
            for piece in blocking_python.stream.run_script(script, [str(flag)]):
                got.append(piece)
                flag.touch()

    with pytest.raises(PythonError, match=r"ask.py has ended with status 3"):
        await follow()
    assert "".join(got) == "first\nsecond\n"


@BOTH
async def test_a_stream_that_nobody_reads_on_ends_its_process(is_async: bool) -> None:
    code = "import os, time; print(os.getpid()); time.sleep(100)"
    if is_async:
        stream = python.stream.run_inline(code)
        pid = int(await anext(stream))
        await stream.aclose()
    else:
        blocking = blocking_python.stream.run_inline(code)
        pid = int(next(blocking))
        blocking.close()
    assert is_gone(pid)


async def test_a_cancelled_call_kills_its_process(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = f"import os, time; open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    call = asyncio.ensure_future(python.run_inline(code))
    await wait_until(lambda: file.exists() and file.read_text().isdecimal(), "it runs")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert is_gone(int(file.read_text()))


def test_a_signal_that_raises_kills_the_process_too(tmp_path: Path) -> None:
    file = tmp_path / "pid"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    code = f"""
    import os, signal, time
    open({str(file)!r}, 'w').write(str(os.getpid()))
    os.kill(os.getppid(), signal.SIGUSR1)
    time.sleep(100)
    """
    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            blocking_python.run_inline(code)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert is_gone(int(file.read_text()))


@BOTH
async def test_bad_arguments_are_refused_before_anything_starts(
    is_async: bool, tmp_path: Path
) -> None:
    functions = python if is_async else blocking_python

    async def call(name: str, *arguments: object, **options: object) -> None:
        made = getattr(functions, name)(*arguments, **options)
        if is_async:
            await made

    with pytest.raises(FileNotFoundError, match=r"python.run_script: there is no file 'no.py' in"):
        await call("run_script", "no.py", cwd=tmp_path)
    with pytest.raises(TypeError, match=r"python.run_inline has no option 'environ'"):
        await call("run_inline", "pass", environ={})
    with pytest.raises(TypeError, match=r"python.run: the arguments are a list of texts, not '-V'"):
        await call("run", "-V")
    with pytest.raises(TypeError, match=r"the arguments are a list of texts, not 'a'"):
        await call("run_script", __file__, "a")
    with pytest.raises(FileNotFoundError):
        await call("run", ["-V"], interpreter=tmp_path / "python")


async def test_another_interpreter_is_used_when_it_is_asked_for(tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text('#!/bin/sh\necho "other $@"\n')
    other.chmod(0o700)
    assert (await python.run(["-V"], interpreter=other)).stdout == "other -V\n"
    assert blocking_python.run(["-V"], interpreter=other).stdout == "other -V\n"
