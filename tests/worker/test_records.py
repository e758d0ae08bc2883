"""Records on a child's pipe: found between raw bytes, however the pipe is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runwell.core.payloads import Json
from runwell.worker.records import (
    HEAD_BYTES,
    LINE,
    MAGIC,
    MAX_BODY_BYTES,
    STDOUT,
    LoggedLine,
    Record,
    decode_line,
    encode_line,
    encode_record,
    split_records,
)

_pieces = st.one_of(
    st.binary(max_size=50),
    st.sampled_from([MAGIC, MAGIC[:1], MAGIC[:3], MAGIC[1:], MAGIC + b"\xff" * HEAD_BYTES]),
    st.builds(
        Record,
        kind=st.sampled_from([STDOUT, LINE]),
        time=st.floats(0, 1e10),
        err_position=st.integers(0, 2**63),
        body=st.binary(max_size=100),
    ),
)


def _read(chunks: list[bytes]) -> tuple[list[Record], bytes]:
    """All records, and all raw bytes, as a reader gets them in these chunks."""
    records: list[Record] = []
    raw, rest = b"", b""
    for chunk in chunks:
        items, rest = split_records(rest + chunk)
        for item in items:
            if isinstance(item, Record):
                records.append(item)
            else:
                raw += item
    return records, raw + rest


def test_a_record_is_read_as_it_was_written() -> None:
    data = encode_record(LINE, 12.5, 7, b"body")
    assert split_records(data) == ([Record(LINE, 12.5, 7, b"body")], b"")
    assert len(encode_record(STDOUT, 0.0, 0, b"x" * MAX_BODY_BYTES)) == HEAD_BYTES + MAX_BODY_BYTES


def test_raw_bytes_and_records_keep_their_order() -> None:
    record = Record(STDOUT, 1.0, 0, b"b")
    data = b"a\n" + encode_record(*record) + b"c" + encode_record(*record)
    assert split_records(data) == ([b"a\n", record, b"c", record], b"")


def test_the_start_of_a_record_waits_for_the_rest_and_raw_bytes_do_not() -> None:
    data = encode_record(LINE, 1.0, 0, b"body")
    for cut in range(1, len(data)):
        assert split_records(b"raw" + data[:cut]) == ([b"raw"], data[:cut])


def test_bytes_that_only_begin_like_a_record_are_raw() -> None:
    items, rest = split_records(MAGIC + b"\x01" + b"\xff" * 40)
    assert (b"".join(item for item in items if isinstance(item, bytes)) + rest) == (
        MAGIC + b"\x01" + b"\xff" * 40
    )
    assert split_records(MAGIC[:2] + b"x") == ([MAGIC[:2] + b"x"], b"")


@given(st.lists(_pieces, max_size=8), st.lists(st.integers(1, 40), max_size=30))
def test_it_does_not_matter_in_which_chunks_the_pipe_is_read(
    pieces: list[bytes | Record], sizes: list[int]
) -> None:
    data = b"".join(
        encode_record(*piece) if isinstance(piece, Record) else piece for piece in pieces
    )
    chunks: list[bytes] = []
    position = 0
    for size in sizes:
        chunks.append(data[position : position + size])
        position += size
    assert _read([*chunks, data[position:]]) == _read([data])


@pytest.mark.parametrize("attributes", [None, {"a": [1, None, "ü"]}])
@pytest.mark.parametrize("message", ["", "hello", "ü\n\u2028\x1b", '"\\u0041"'])
def test_a_line_is_read_as_it_was_logged(message: str, attributes: dict[str, Json] | None) -> None:
    body = encode_line("INFO", message, attributes)
    assert decode_line(body) == LoggedLine("INFO", message, attributes)


def test_a_line_holds_nothing_that_a_report_can_not_hold() -> None:
    body = encode_line("INFO", "a\ud800b\x00", {"k\udc00": ["\x00"]})
    assert decode_line(body) == LoggedLine("INFO", "a?b\ufffd", {"k?": ["\ufffd"]})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"1",
        b"null",
        b"[1, 2]",
        b'["INFO", "m", null, 1]',
        b'["LOUD", "m", null]',
        b'["INFO", 1, null]',
        b"[" * 100_000,
    ],
)
def test_bytes_that_are_no_line_are_none(body: bytes) -> None:
    assert decode_line(body) is None


def test_attributes_that_are_no_object_are_left_out() -> None:
    assert decode_line(b'["INFO", "m", [1]]') == LoggedLine("INFO", "m", None)
