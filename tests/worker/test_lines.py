"""From bytes to lines: split, numbered, clipped, and counted against the limits."""

import pytest

from runwell.core.protocol import MAX_LOG_MESSAGE_CHARACTERS
from runwell.core.spans import CapturedLine
from runwell.worker import lines
from runwell.worker.lines import LineBudget, LineCollector
from runwell.worker.records import STDERR, STDOUT, LoggedLine


class _Collected:
    """A collector, and how often it said that there is something to send."""

    def __init__(self, budget: LineBudget | None = None) -> None:
        self.calls = 0
        self.shown: list[tuple[str, str]] = []
        self.budget = budget or LineBudget()
        self.collector = LineCollector(self.budget, self._on_waiting, self._on_line)

    def _on_waiting(self) -> None:
        self.calls += 1

    def _on_line(self, level: str, message: str) -> None:
        self.shown.append((level, message))

    def write(self, *pieces: bytes, stream: int = STDOUT) -> None:
        """Bytes as they come in."""
        for piece in pieces:
            self.collector.add_bytes(stream, piece, 1.0)

    def log(self, message: str, level: str = "INFO", instant: float = 1.0) -> None:
        """A line of `logger`."""
        self.collector.add_logged(LoggedLine(level, message, None), instant)

    def messages(self) -> list[str]:
        """What is to be sent."""
        return [line.message for line in self.collector.take()]


def test_a_line_ends_with_its_line_break_in_whatever_pieces_it_comes() -> None:
    collected = _Collected()
    collected.write(b"a", b"b\nc\n\nd", b"", b"e\n", b"half")
    assert collected.messages() == ["ab", "c", "", "de"]
    collected.collector.end(2.0)
    assert collected.messages() == ["half"]
    collected.collector.end(2.0)
    assert collected.messages() == []


def test_the_two_streams_have_lines_of_their_own_and_other_levels() -> None:
    collected = _Collected()
    collected.write(b"to out")
    collected.write(b"to err\n", stream=STDERR)
    collected.write(b" again\n")
    collected.log("logged", "WARN")
    found = [(line.seq, line.level, line.message) for line in collected.collector.take()]
    assert found == [(1, "ERROR", "to err"), (2, "LOG", "to out again"), (3, "WARN", "logged")]
    assert collected.shown == [(level, message) for _, level, message in found]


def test_the_last_lines_of_stderr_are_the_last_words() -> None:
    collected = _Collected()
    collected.write(b"out\n")
    for number in range(40):
        collected.write(b"%d\n" % number, stream=STDERR)
    collected.log("logged as an error", "ERROR")
    words = collected.collector.last_words.splitlines()
    assert (len(words), words[0], words[-2:]) == (30, "11", ["39", "logged as an error"])


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        ((b"10%\r20%\r30%\n",), "30%"),
        ((b"10%\r", b"20%\r", b"30%", b"\n"), "30%"),
        ((b"windows\r\n",), "windows"),
        ((b"win", b"dows\r", b"\n"), "windows"),
    ],
)
def test_a_line_that_draws_over_itself_is_what_a_terminal_would_show(
    pieces: tuple[bytes, ...], shown: str
) -> None:
    collected = _Collected()
    collected.write(*pieces)
    assert collected.messages() == [shown]


def test_what_is_no_text_becomes_one() -> None:
    collected = _Collected()
    collected.write(b"a\xffb\x00c\n", "\u00fc".encode()[:1], "\u00fc".encode()[1:] + b"\n")
    assert collected.messages() == ["a\ufffdb\ufffdc", "\u00fc"]


@pytest.mark.parametrize("size", [MAX_LOG_MESSAGE_CHARACTERS, 5_000, 100_000, 1_000_000])
@pytest.mark.parametrize("piece", [7_919, 10_000_000])
def test_a_line_that_is_too_long_is_cut_and_says_by_how_much(size: int, piece: int) -> None:
    collected = _Collected()
    data = b"x" * size + b"\nnext\n"
    collected.write(*(data[start : start + piece] for start in range(0, len(data), piece)))
    first, second = collected.messages()
    assert second == "next"
    if size <= MAX_LOG_MESSAGE_CHARACTERS:
        assert first == "x" * size
    else:
        assert len(first) <= MAX_LOG_MESSAGE_CHARACTERS
        kept, _, cut = first.partition("...")
        assert len(kept) + int("".join(c for c in cut if c.isdecimal())) == size


def test_taking_lines_frees_their_room_and_the_next_line_calls_again() -> None:
    collected = _Collected()
    collected.log("a")
    collected.log("b")
    assert (collected.calls, collected.budget.unsent_bytes) == (1, 202)
    assert collected.messages() == ["a", "b"]
    assert (collected.collector.unsent_bytes, collected.budget.unsent_bytes) == (0, 0)
    collected.log("c")
    assert collected.calls == 2


def test_numbers_go_on_and_times_do_not_go_back() -> None:
    collected = _Collected()
    collected.log("a", instant=5.0)
    taken: list[CapturedLine] = collected.collector.take()
    collected.log("b", instant=3.0)
    taken += collected.collector.take()
    assert [line.seq for line in taken] == [1, 2]
    assert taken[0].time == taken[1].time


def test_lines_that_the_server_does_not_take_are_dropped_with_a_mark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lines, "MAX_UNSENT_BYTES", 300)
    budget = LineBudget()
    one, other = _Collected(budget), _Collected(budget)
    for number in range(5):
        one.log(str(number))
    other.log("lost")
    assert one.messages() == ["0", "1", "2"]
    one.log("after")
    assert one.messages() == [
        "[2 lines were dropped: the server did not take them in time]",
        "after",
    ]
    other.collector.end(2.0)
    assert other.messages() == ["[1 lines were dropped: the server did not take them in time]"]


@pytest.mark.parametrize(
    ("limit", "most", "kept"), [("MAX_LOG_LINES_PER_RUN", 4, 3), ("MAX_LOG_BYTES_PER_RUN", 310, 3)]
)
def test_a_run_that_writes_too_much_is_heard_no_more_and_told_so(
    monkeypatch: pytest.MonkeyPatch, limit: str, most: int, kept: int
) -> None:
    monkeypatch.setattr(lines, limit, most)
    collected = _Collected()
    for number in range(10):
        collected.log(str(number))
    *before, mark = collected.messages()
    assert before == [str(number) for number in range(kept)]
    assert "what follows is not kept" in mark
    assert collected.collector.is_over_limit
    # The terminal of who watches still shows them.
    assert len(collected.shown) == 10
