import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockferry.errors import IntegrityError
from blockferry.v1 import transfer_pb2
from blockferry_agent.frames import Frame, pack_frame, unpack

offsets = st.integers(0, (1 << 63) - 1)
payloads = st.binary(max_size=300)


@given(offsets, offsets, st.integers(1, 3), payloads, st.binary(max_size=40))
def test_what_is_packed_is_a_legal_message(
    offset: int, length: int, encoding: int, payload: bytes, digest: bytes
) -> None:
    message = pack_frame(offset, length, encoding, payload, digest)
    frame = transfer_pb2.PushRequest.FromString(message).frame
    assert frame.offset_bytes == offset
    assert frame.length_bytes == length
    assert frame.encoding == encoding
    assert frame.payload == payload
    assert frame.digest == digest
    assert unpack(message) == Frame(offset, length, encoding, memoryview(payload), digest)


@given(offsets, offsets, st.integers(0, 5), payloads, st.binary(max_size=40))
def test_what_protobuf_writes_is_read(
    offset: int, length: int, encoding: int, payload: bytes, digest: bytes
) -> None:
    frame = transfer_pb2.Frame(
        offset_bytes=offset, length_bytes=length, payload=payload, digest=digest
    )
    frame.encoding = encoding  # type: ignore[assignment]
    message = transfer_pb2.PushRequest(frame=frame).SerializeToString()
    assert unpack(message) == Frame(offset, length, encoding, memoryview(payload), digest)


def test_hello_and_finish_are_read() -> None:
    hello = transfer_pb2.PushHello(transfer_id="m-1", attempt=3)
    assert unpack(transfer_pb2.PushRequest(hello=hello).SerializeToString()) == hello
    finish = transfer_pb2.PushFinish(root_digest=b"r" * 32)
    assert unpack(transfer_pb2.PushRequest(finish=finish).SerializeToString()) == finish


def test_fields_of_a_later_version_are_passed_over() -> None:
    message = pack_frame(1, 2, 1, b"payload", b"digest")
    later = b"\x12" + bytes([message[1] + 2]) + b"\x78\x01" + message[2:]
    assert unpack(later) == Frame(1, 2, 1, memoryview(b"payload"), b"digest")


def test_a_payload_is_not_copied() -> None:
    message = pack_frame(0, 7, 1, b"payload", b"")
    frame = unpack(message)
    assert isinstance(frame, Frame)
    assert frame.payload.obj is message


@pytest.mark.parametrize("message", [b"", b"\x12\x05abc", b"\xff" * 20, b"\x12" + b"\xff" * 12])
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(IntegrityError, match="none of ours") as caught:
        unpack(message)
    assert caught.value.reason == "FRAME_INVALID"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error_of_ours(junk: bytes) -> None:
    for message in (junk, b"\x12" + bytes([len(junk) % 128]) + junk):
        try:
            found = unpack(message)
        except IntegrityError:
            continue
        if isinstance(found, Frame):
            proto = transfer_pb2.PushRequest.FromString(message).frame
            assert found.payload == proto.payload
            assert found.offset_bytes == proto.offset_bytes
            assert found.length_bytes == proto.length_bytes
            assert found.digest == proto.digest
