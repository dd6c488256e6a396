import pytest

from blockferry.errors import BlockferryError, BusyError, IntegrityError, UnreachableError
from blockferry.limits import CHUNK_BYTES, WINDOW_BYTES
from blockferry_agent.chunk import digest
from blockferry_agent.codec import Decoder, Encoding
from blockferry_agent.frames import Frame
from blockferry_agent.pipeline import Closed
from blockferry_agent.session import Session

C = CHUNK_BYTES
SIZE = 4 * C + 9


def session(*, start: int = 0, check: bool = True) -> Session:
    return Session(
        1, start_bytes=start, size_bytes=SIZE, window_bytes=WINDOW_BYTES, check_digests=check
    )


def data(offset: int, length: int = C, *, fill: bytes = b"x", wrong: bool = False) -> Frame:
    content = fill * length
    made = digest(b"something else" if wrong else content)
    return Frame(offset, length, Encoding.RAW, memoryview(content), made)


def zero(offset: int, length: int) -> Frame:
    return Frame(offset, length, Encoding.ZERO, memoryview(b""), b"")


def test_items_come_in_order_from_any_channel() -> None:
    one = session()
    decoder = Decoder()
    for frame in (data(C), zero(2 * C, 2 * C), data(4 * C, 9), data(0)):
        one.accept(frame, decoder)
    one.finish(b"root")
    items = [*one.items]
    assert [item.offset_bytes for item in items] == [0, C, 2 * C, 4 * C]
    assert [item.content is None for item in items] == [False, False, True, False]
    assert one.root == b"root"


def test_the_finish_may_come_before_the_last_frame() -> None:
    one = session(start=4 * C)
    one.finish(b"root")
    one.accept(data(4 * C, 9), Decoder())
    assert [item.length_bytes for item in one.items] == [9]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (data(5), "FRAME_OUT_OF_RANGE"),
        (data(C, 7), "FRAME_OUT_OF_RANGE"),
        (data(4 * C, 10), "FRAME_OUT_OF_RANGE"),
        (data(8 * C), "FRAME_OUT_OF_RANGE"),
        (zero(C, 4 * C), "FRAME_OUT_OF_RANGE"),
        (zero(0, 0), "FRAME_OUT_OF_RANGE"),
        (data(0, 2 * C), "FRAME_INVALID"),
        (data(C, wrong=True), "DIGEST_MISMATCH"),
        (Frame(0, C, Encoding.RAW, memoryview(b"x" * C), b""), "DIGEST_MISMATCH"),
        (Frame(0, C, Encoding.ZSTD, memoryview(b"no zstd"), bytes(32)), "FRAME_INVALID"),
        (Frame(0, C, 9, memoryview(b"x" * C), bytes(32)), "FRAME_INVALID"),
    ],
    ids=[
        "off-the-grid",
        "short-in-the-middle",
        "beyond-the-end",
        "far-beyond",
        "zeros-beyond",
        "empty",
        "two-chunks-of-data",
        "wrong-digest",
        "no-digest",
        "no-zstd",
        "no-encoding",
    ],
)
def test_a_frame_that_is_not_what_it_must_be(frame: Frame, reason: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        session().accept(frame, Decoder())
    assert caught.value.reason == reason


def test_without_checking_a_digest_is_taken_on_trust() -> None:
    one = session(check=False)
    frame = data(0, wrong=True)
    one.accept(frame, Decoder())
    assert one.items.get().digest == frame.digest


def test_the_same_frame_twice() -> None:
    one = session()
    one.accept(data(0), Decoder())
    with pytest.raises(IntegrityError, match="repeats"):
        one.accept(data(0), Decoder())


def test_a_channel_connects_once() -> None:
    one = session()
    one.attach(0)
    one.attach(1)
    with pytest.raises(BusyError) as caught:
        one.attach(0)
    assert caught.value.reason == "ATTEMPT_STALE"


@pytest.mark.parametrize("drop", [True, False])
def test_an_end_drops_or_keeps_what_came(drop: bool) -> None:
    one = session()
    one.accept(data(0), Decoder())
    error: BlockferryError = UnreachableError("STREAM_BROKEN", "gone")
    one.close(error, drop=drop)
    one.close(BusyError("SUPERSEDED", "later"), drop=False)
    assert one.error is error
    assert len([*one.items]) == (0 if drop else 1)
    with pytest.raises(Closed):
        one.accept(data(C), Decoder())
