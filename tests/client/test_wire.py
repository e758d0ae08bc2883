"""HTTP/1.1 as bytes: whatever the pieces are that an answer arrives in, it is read the same."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runwell.client.transport import Request, Response
from runwell.client.wire import (
    MAX_BODY_BYTES,
    MalformedAnswerError,
    Origin,
    ResponseReader,
    encode_request,
    origin_of,
)

SIZED = b"HTTP/1.1 200 OK\r\nContent-Type: a\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = (
    b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\nA;ext=1\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
)
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
INFORMED = (
    b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
)
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nall of it"


def read(pieces: list[bytes]) -> tuple[Response, bool]:
    reader = ResponseReader()
    for piece in pieces:
        response = reader.feed(piece)
        if response is not None:
            return response, reader.keeps_alive
    return reader.feed_eof(), reader.keeps_alive


@given(
    whole=st.sampled_from([SIZED, CHUNKED, EMPTY, INFORMED, UNTIL_CLOSE]),
    cuts=st.sets(st.integers(1, 120)),
)
def test_an_answer_is_read_the_same_in_whatever_pieces_it_arrives(
    whole: bytes, cuts: set[int]
) -> None:
    ends = sorted({cut for cut in cuts if cut < len(whole)} | {len(whole)})
    starts = [0, *ends[:-1]]
    pieces = [whole[start:end] for start, end in zip(starts, ends, strict=True)]
    assert read(pieces) == read([whole])


def test_an_answer_with_a_length_is_read() -> None:
    response, keeps_alive = read([SIZED])
    assert response == Response(
        200, {"content-type": "a", "x-a": "1, 2", "content-length": "4"}, b"body"
    )
    assert keeps_alive


def test_an_answer_in_chunks_is_read() -> None:
    response, keeps_alive = read([CHUNKED])
    assert (response.status, response.body, keeps_alive) == (201, b"abc0123456789", True)


def test_an_answer_that_ends_with_the_connection_is_read() -> None:
    response, keeps_alive = read([UNTIL_CLOSE])
    assert (response.body, keeps_alive) == (b"all of it", False)


@pytest.mark.parametrize(
    ("head", "keeps_alive"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", True),
    ],
)
def test_a_connection_is_kept_as_the_server_says(head: bytes, keeps_alive: bool) -> None:
    assert read([head + b"content-length: 0\r\n\r\n"])[1] is keeps_alive


def test_a_connection_that_says_more_than_it_was_asked_is_not_kept() -> None:
    assert read([SIZED + b"HTTP/1.1 408"])[1] is False


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "it is not HTTP"),
        (b"HTTP/2 200\r\n\r\n", "it is not HTTP/1.1"),
        (b"HTTP/1.1 abc\r\n\r\n", "it is not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "no colon"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "content-length is '-1'"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999999999999999\r\n\r\n", "content-length"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", "larger than"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", "is no number"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-5\r\n", "a chunk of -5 bytes"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1" * 2000, "doesn't end"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000, "its headers don't end"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"y" * (MAX_BODY_BYTES + 1), "larger than"),
    ],
)
def test_what_is_no_answer_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(MalformedAnswerError, match=reason):
        ResponseReader().feed(data)


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waits_for_more_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(MalformedAnswerError):
        ResponseReader().feed(data)


@pytest.mark.parametrize("part", [b"", SIZED[:20], SIZED[:-1], CHUNKED[:-2]])
def test_an_answer_that_ends_too_early_is_refused(part: bytes) -> None:
    reader = ResponseReader()
    assert reader.feed(part) is None
    assert reader.has_begun is bool(part)
    with pytest.raises(MalformedAnswerError, match="closed before the answer was complete"):
        reader.feed_eof()


def test_a_request_is_written_with_its_host_length_and_body() -> None:
    request = Request("POST", "http://a.test:81/x%20y?q=1", {"x-a": "b"}, b"{}", 1)
    assert encode_request(request) == (
        b"POST /x%20y?q=1 HTTP/1.1\r\nhost: a.test:81\r\nx-a: b\r\ncontent-length: 2\r\n\r\n{}"
    )


def test_a_request_without_a_body_says_so_unless_it_is_a_get() -> None:
    get = encode_request(Request("GET", "http://a.test", {}, None, 1))
    post = encode_request(Request("POST", "http://a.test", {}, None, 1))
    assert get == b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n"
    assert post == b"POST / HTTP/1.1\r\nhost: a.test\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("value", ["a\r\nx-injected: 1", "a\nb", "a\r\n\r\nbody"])
def test_a_header_can_bring_no_second_one(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        encode_request(Request("GET", "http://a.test", {"x-a": value}, None, 1))


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://a.test/x", Origin("a.test", 80, False)),
        ("https://a.test", Origin("a.test", 443, True)),
        ("http://[::1]:3030", Origin("::1", 3030, False)),
    ],
)
def test_a_url_names_a_server(url: str, origin: Origin) -> None:
    assert origin_of(url) == origin
