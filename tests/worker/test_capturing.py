"""What a run writes, by whatever way: every line once, in order, with its level."""

from pathlib import Path

import pytest

from runwell.core.protocol import MAX_LOG_MESSAGE_CHARACTERS
from runwell.worker import lines as lines_module
from tests.support.waiting import wait_until
from tests.worker.support.watched_worker import is_gone, working, write_project


async def test_lines_of_every_kind_arrive_in_order_with_their_level(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import ctypes, logging, os, subprocess, sys, warnings

        log = logging.getLogger("shop")
        early = logging.StreamHandler(sys.stderr)
        other = logging.getLogger("own.handler")
        other.addHandler(early)
        other.propagate = False

        @task(id="writes")
        def writes() -> None:
            libc = ctypes.CDLL(None)
            for number in range(30):
                print("print", number)
                os.write(1, b"raw out %d\\n" % number)
                os.write(2, b"raw err %d\\n" % number)
                print("error", number, file=sys.stderr)
                os.write(2, b"raw err again %d\\n" % number)
                logger.debug("debug", number=number)
                logger.warn("warn")
                log.info("info %s", number, extra={"order": 7})
                log.error("bad")
                os.write(2, b"last err %d\\n" % number)
            print("then")
            subprocess.run("echo from a subprocess; echo and its error >&2", shell=True)
            libc.puts(b"from C")
            libc.fflush(None)
            warnings.warn("careful")
            other.warning("by a handler of its own")
            try:
                1 / 0
            except ZeroDivisionError:
                log.exception("it failed")
            print("no line break at the end", end="")
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("writes")
        assert list(run.lines) == sorted(run.lines) == list(range(1, len(run.lines) + 1))
        got = [(line.level, line.message) for line in run.lines.values()]
        expected: list[tuple[str, str]] = []
        for number in range(30):
            expected += [
                ("LOG", f"print {number}"),
                ("LOG", f"raw out {number}"),
                ("ERROR", f"raw err {number}"),
                ("ERROR", f"error {number}"),
                ("ERROR", f"raw err again {number}"),
                ("DEBUG", "debug"),
                ("WARN", "warn"),
                ("INFO", f"info {number}"),
                ("ERROR", "bad"),
                ("ERROR", f"last err {number}"),
            ]
        assert [line for line in got if line in expected] == expected
        rest = got[len(expected) :]
        assert rest.pop(0) == ("LOG", "then")
        assert ("LOG", "from a subprocess") in rest
        assert ("ERROR", "and its error") in rest
        rest = [line for line in rest if "subprocess" not in line[1] and "its error" not in line[1]]
        assert rest[0] == ("LOG", "from C")
        assert rest[1] == ("WARN", "UserWarning: careful")
        assert rest[2] == ("ERROR", "by a handler of its own")
        assert rest[3][0] == "ERROR"
        assert rest[3][1].startswith("it failed\nTraceback (most recent call last):")
        assert rest[4] == ("LOG", "no line break at the end")
        times = [line.time for line in run.lines.values()]
        assert times == sorted(times)
        by_message = {line.message: line.attributes for line in run.lines.values()}
        assert by_message["debug"] == {"number": 29}
        assert by_message["info 29"] == {"order": 7, "logger": "shop"}


async def test_raw_bytes_keep_their_place_whenever_they_are_read(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import os, random, time

        @task(id="mixes")
        def mixes() -> None:
            choose = random.Random(7)
            for number in range(1500):
                match choose.randrange(8):
                    case 0 | 1 | 2:
                        os.write(2, b"%d\\n" % number)
                    case 3:
                        logger.warn(f"{number}")
                    case 4:
                        print(number)
                        # The supervisor reads at any moment, also when it finds only a part.
                        time.sleep(choose.random() / 2000)
                    case _:
                        print(number)
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("mixes")
        assert [int(message) for message in run.messages] == [*range(1500)]


async def test_nothing_written_before_a_kill_is_lost(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import os, signal, subprocess, sys

        @task(id="dies")
        def dies() -> None:
            for number in range(1000):
                print("line", number)
            os.write(2, b"raw without an end")
            subprocess.run(["echo", "a subprocess"])
            os.write(1, b"half a line")
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("dies")
        assert run.messages[:1000] == [f"line {number}" for number in range(1000)]
        assert sorted(run.messages[1000:]) == ["a subprocess", "half a line", "raw without an end"]


async def test_what_the_server_can_not_store_is_replaced(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks=r"""
        import logging, os, sys

        @task(id="odd")
        def odd() -> None:
            os.write(1, b"bad \xff utf-8 and \x00 nul\n")
            print("surrogate \ud800")
            print("nul \x00")
            logging.warning("nul \x00 \udfff")
            logger.info("nul \x00 \udfff", key="\x00", number=float("nan"), deep=[[object()]])
            print("a\rprogress\rbar\r\nnext")
            os.write(1, b"\x00\x1bRw looks like a record of ours\n")
            sys.stdout.buffer.write("über".encode() + b"\n")
            print("", flush=True)
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("odd")
        assert run.messages == [
            "bad \ufffd utf-8 and \ufffd nul",
            "surrogate \\ud800",
            "nul \ufffd",
            "nul \ufffd ?",
            "nul \ufffd ?",
            "bar",
            "next",
            "\ufffd\x1bRw looks like a record of ours",
            "über",
            "",
        ]
        attributes = run.lines[5].attributes
        assert attributes is not None
        assert attributes["key"] == "\ufffd"
        assert attributes["number"] == "NaN"


async def test_long_lines_are_cut_with_a_mark(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import logging, os

        @task(id="long")
        def long() -> None:
            print("x" * 1_000_000)
            logger.info("y" * 1_000_000)
            logging.error("%s", "ü" * 5_000)
            os.write(1, b"z" * 300_000 + b"\\n")
            logger.info("much", data=["v" * 100] * 1000)
            print("after")
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("long")
        assert [message[0] for message in run.messages] == ["x", "y", "ü", "z", "m", "a"]
        assert all(len(message) <= MAX_LOG_MESSAGE_CHARACTERS for message in run.messages)
        for message, length in zip(
            run.messages, (1_000_000, 1_000_000, 5000, 300_000), strict=False
        ):
            kept = len(message.rstrip("]").partition("...")[0])
            assert f"[{length - kept} " in message
        attributes = run.lines[5].attributes
        assert attributes is not None
        assert "left out" in attributes


async def test_a_flood_ends_with_a_mark_and_does_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines_module, "MAX_LOG_LINES_PER_RUN", 5_000)
    write_project(
        tmp_path,
        tasks="""
        @task(id="floods")
        def floods() -> str:
            for number in range(20_000):
                print(number)
            return "done"
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("floods")
        assert run.output == "done"
        assert len(run.lines) == 5_000
        assert run.messages[:3] == ["0", "1", "2"]
        assert run.messages[-2] == "4998"
        assert run.messages[-1] == ("[more than 5,000 lines or 32 MB: what follows is not kept]")
        largest = max(len(body.model_dump_json()) for body in worker.server.report_bodies)
        assert largest < 4 * lines_module.HIGH_WATER_BYTES


async def test_a_subprocess_that_keeps_the_pipe_does_not_hold_up_the_end(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import subprocess

        @task(id="leaves")
        def leaves() -> int:
            process = subprocess.Popen(["sleep", "1000"])
            subprocess.Popen("while true; do echo again; done", shell=True)
            print("before")
            return process.pid
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("leaves")
        assert "before" in run.messages
        pid = run.output
        assert isinstance(pid, int)
        # The group is ended with its leader.
        await wait_until(lambda: is_gone(pid), "the subprocess ends")


async def test_streams_that_a_task_replaced_or_closed_do_no_harm(tmp_path: Path) -> None:
    write_project(
        tmp_path,
        tasks="""
        import contextlib, io, os, sys

        @task(id="replaces")
        def replaces() -> str:
            with contextlib.redirect_stdout(io.StringIO()) as text:
                print("into the text")
            print("seen")
            sys.stdout.close()
            print("after closing")
            os.close(1)
            print("after closing the descriptor")
            sys.stdout = None
            return text.getvalue()
        """,
    )
    async with working(tmp_path) as worker:
        run = await worker.server.run("replaces")
        assert run.output == "into the text\n"
        assert run.messages == ["seen", "after closing", "after closing the descriptor"]


async def test_a_slow_writer_is_heard_while_it_runs(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    write_project(
        tmp_path,
        tasks=f"""
        import pathlib, time

        @task(id="slow")
        def slow() -> None:
            print("first", end="", flush=True)
            print(" line")
            while not pathlib.Path({str(gate)!r}).exists():
                time.sleep(0.01)
        """,
    )
    async with working(tmp_path) as worker:
        run = worker.server.trigger("slow")
        await worker.server.notify()
        await worker.server.until(lambda: run.messages == ["first line"], "the line is there")
        assert run.status == "EXECUTING"
        gate.touch()
        await worker.server.until(lambda: run.end is not None, "it ends")
