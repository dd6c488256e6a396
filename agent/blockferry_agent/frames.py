"""Frames as bytes of a `PushRequest`, without the copies protobuf makes.

Rules:
* What is written is a legal `blockferry.v1.PushRequest`, and every legal one is
  read. Fields of a frame may come in any order; ours puts the payload last.
* Measured with chunks of 1 MiB: protobuf's own SerializeToString takes 390 us
  and holds the GIL, one join takes 57; FromString and `.payload` take 103,
  reading the fields in place takes 5.
"""

from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from blockferry.errors import IntegrityError
from blockferry.v1 import transfer_pb2

_OFFSET_TAG: Final = 0x08
_LENGTH_TAG: Final = 0x10
_ENCODING_TAG: Final = 0x18
_PAYLOAD_TAG: Final = 0x22
_DIGEST_TAG: Final = 0x2A


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as it was received.

    Attributes:
        offset_bytes: As in the wire contract, unchecked.
        length_bytes: As in the wire contract, unchecked.
        encoding: The number that was sent, perhaps none of ours.
        payload: A view of the message's own bytes.
        digest: Of the content; any length.
    """

    offset_bytes: int
    length_bytes: int
    encoding: int
    payload: memoryview
    digest: bytes


Message = Frame | transfer_pb2.PushHello | transfer_pb2.PushFinish


def pack_frame(
    offset_bytes: int,
    length_bytes: int,
    encoding: int,
    payload: bytes | memoryview,
    digest: bytes,
) -> bytes:
    """A serialized PushRequest that holds one frame, with a copy of the payload."""
    head = b"".join(
        (
            b"\x08",
            _varint(offset_bytes),
            b"\x10",
            _varint(length_bytes),
            b"\x18",
            _varint(encoding),
        )
    )
    if digest:
        head = b"".join((head, b"\x2a", _varint(len(digest)), digest))
    if payload:
        head = b"".join((head, b"\x22", _varint(len(payload))))
    return b"".join((b"\x12", _varint(len(head) + len(payload)), head, payload))


def unpack(message: bytes) -> Message:
    """What a serialized PushRequest holds.

    Raises:
        IntegrityError: FRAME_INVALID, the bytes are no PushRequest of ours.
    """
    if message[:1] == b"\x12":
        frame = _read_frame(message)
        if frame is not None:
            return frame
    try:
        request = transfer_pb2.PushRequest.FromString(message)
    except DecodeError as error:
        raise _invalid(len(message)) from error
    kind = request.WhichOneof("message")
    if kind == "hello":
        return request.hello
    if kind == "finish":
        return request.finish
    if kind == "frame":
        frame_proto = request.frame
        return Frame(
            frame_proto.offset_bytes,
            frame_proto.length_bytes,
            frame_proto.encoding,
            memoryview(frame_proto.payload),
            frame_proto.digest,
        )
    raise _invalid(len(message))


def _invalid(size_bytes: int) -> IntegrityError:
    return IntegrityError(
        "FRAME_INVALID",
        f"A message of {size_bytes} bytes on the frame stream is none of ours; "
        "both agents must run the same version.",
        size_bytes=size_bytes,
    )


def _read_frame(message: bytes) -> Frame | None:
    """Read a frame in place; None when anything is unusual (protobuf decides then)."""
    try:
        length, at = _read_varint(message, 1)
        if at + length != len(message):
            return None
        numbers = {_OFFSET_TAG: 0, _LENGTH_TAG: 0, _ENCODING_TAG: 0}
        payload, digest = memoryview(b""), b""
        while at < len(message):
            tag = message[at]
            value, at = _read_varint(message, at + 1)
            if tag in numbers:
                numbers[tag] = value
                continue
            end = at + value
            if end > len(message):
                return None
            if tag == _PAYLOAD_TAG:
                payload = memoryview(message)[at:end]
            elif tag == _DIGEST_TAG:
                digest = message[at:end]
            else:
                return None
            at = end
    except IndexError:
        return None
    if max(numbers.values()) >= 1 << 63:
        return None
    return Frame(
        numbers[_OFFSET_TAG], numbers[_LENGTH_TAG], numbers[_ENCODING_TAG], payload, digest
    )


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    parts = bytearray()
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError
