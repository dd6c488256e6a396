"""A source that breaks every rule, with a certificate that is in order.

Each time: one of our errors, memory within its bound, nothing written where it
may not be, and the real source is served afterwards.
"""

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import zstandard

from blockferry.errors import BlockferryError
from blockferry.identity import Role
from blockferry.limits import CHUNK_BYTES, MIB
from blockferry.v1 import agent_pb2, transfer_pb2, transfer_pb2_grpc
from blockferry.wire import from_rpc_error
from blockferry_agent.chunk import digest
from blockferry_agent.codec import Encoding
from blockferry_agent.frames import pack_frame
from tests.agents import MIGRATION_ID, Pair
from tests.integration.test_agent_trust import agent_key, describe

SIZE = 8 * MIB
BEHIND = 2 * MIB
MEMORY_MAX_BYTES = 256 * MIB
DATA = random.Random(5).randbytes(CHUNK_BYTES)
GARBAGE = b"\xee" * (SIZE + BEHIND)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("agents")) as pair:
        yield pair


@pytest.fixture
def receive(pair: Pair, tmp_path: Path) -> Iterator[Path]:
    """The destination of a receive job that waits; afterwards the real source is served."""
    destination = tmp_path / "sink"
    destination.write_bytes(GARBAGE)
    job = pair.receive(destination, SIZE, identity=str(tmp_path))
    yield destination
    source = tmp_path / "source"
    source.write_bytes(DATA * (SIZE // CHUNK_BYTES))
    copied, received = pair.source.finish(pair.copy(source).id), pair.sink.finish(job.id)
    succeeded = agent_pb2.JOB_STATE_SUCCEEDED
    assert (copied.state, received.state) == (succeeded, succeeded), (copied, received)
    assert destination.read_bytes() == source.read_bytes() + GARBAGE[SIZE:]
    peak = describe(pair.sink.channel(pair.sink.authority.controller(1))).peak_resident_bytes
    assert peak < MEMORY_MAX_BYTES


def frame(
    offset: int, length: int = CHUNK_BYTES, encoding: int = Encoding.RAW, **made: bytes
) -> bytes:
    payload = made.get("payload", DATA[:length])
    return pack_frame(offset, length, encoding, payload, made.get("digest", digest(DATA[:length])))


def hello(**fields: Any) -> bytes:
    told = {"transfer_id": MIGRATION_ID, "attempt": 1, "channels": 1, **fields}
    return transfer_pb2.PushRequest(hello=transfer_pb2.PushHello(**told)).SerializeToString()


def next_attempt(channel: grpc.Channel) -> int:
    stub = transfer_pb2_grpc.TransferServiceStub(channel)
    request = transfer_pb2.GetWriteStateRequest(transfer_id=MIGRATION_ID)
    return stub.GetWriteState(request, timeout=5).last_attempt + 1


def opener(channel: grpc.Channel) -> Any:
    """Opens a stream of messages as they are, without our own checks."""
    return channel.stream_stream(
        "/blockferry.v1.TransferService/Push",
        request_serializer=None,
        response_deserializer=transfer_pb2.PushResponse.FromString,
    )


def push(channel: grpc.Channel, messages: Iterator[bytes]) -> BlockferryError:
    """What the sink ends the stream with."""
    with pytest.raises(grpc.RpcError) as caught:
        list(opener(channel)(messages, timeout=20))
    return from_rpc_error(caught.value, address="the sink")


BOMB = zstandard.ZstdCompressor(level=19).compress(bytes(64 * MIB))
FINISH = transfer_pb2.PushRequest(
    finish=transfer_pb2.PushFinish(root_digest=bytes(32))
).SerializeToString()


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([frame(5)], "FRAME_OUT_OF_RANGE"),
        ([frame(SIZE)], "FRAME_OUT_OF_RANGE"),
        ([frame(1 << 62)], "FRAME_OUT_OF_RANGE"),
        ([frame(0, 2**62, Encoding.ZERO, payload=b"", digest=b"")], "FRAME_OUT_OF_RANGE"),
        ([frame(0), frame(0)], "FRAME_OVERLAP"),
        ([frame(2 * MIB), frame(2 * MIB)], "FRAME_OVERLAP"),
        ([frame(0, digest=bytes(32))], "DIGEST_MISMATCH"),
        ([frame(0, digest=b"short")], "DIGEST_MISMATCH"),
        ([frame(0, payload=b"few")], "FRAME_INVALID"),
        ([frame(0, encoding=99)], "FRAME_INVALID"),
        ([frame(0, encoding=Encoding.ZSTD, payload=BOMB)], "FRAME_INVALID"),
        ([frame(0, encoding=Encoding.ZSTD, payload=b"\xff" * 99)], "FRAME_INVALID"),
        ([b"\xff" * 1000], "FRAME_INVALID"),
        ([b""], "FRAME_INVALID"),
        ([hello()], "STREAM_INVALID"),
        ([b"\x12" + b"\x80" * 100], "FRAME_INVALID"),
        ([frame(0) + bytes(5 * MIB)], "RPC_FAILED"),
    ],
    ids=[
        *("off-grid", "behind-the-end", "far-away", "endless-zeros", "twice", "twice-ahead"),
        *("wrong-digest", "short-digest", "short-payload", "no-encoding", "bomb", "no-zstd"),
        *("garbage", "nothing", "second-hello", "endless-varint", "giant"),
    ],
)
def test_a_rule_that_is_broken_ends_the_stream(
    pair: Pair, receive: Path, messages: list[bytes], reason: str
) -> None:
    channel = pair.sink.channel(agent_key(pair.sink, Role.SOURCE))
    first = hello(attempt=next_attempt(channel))
    error = push(channel, iter([first, *messages]))
    assert error.reason == reason, error
    written = receive.read_bytes()
    assert written[CHUNK_BYTES:] == GARBAGE[CHUNK_BYTES:]
    assert written[:CHUNK_BYTES] in {DATA, GARBAGE[:CHUNK_BYTES]}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"transfer_id": "another"}, "TRANSFER_NOT_FOUND"),
        ({"channels": 1000}, "STREAM_INVALID"),
        ({"channel": -1}, "STREAM_INVALID"),
        ({"start_bytes": MIB}, "START_MISMATCH"),
        ({"start_bytes": -MIB}, "START_MISMATCH"),
    ],
)
def test_a_hello_that_cannot_be_is_refused(
    pair: Pair, receive: Path, fields: dict[str, Any], reason: str
) -> None:
    channel = pair.sink.channel(agent_key(pair.sink, Role.SOURCE))
    first = hello(**{"attempt": next_attempt(channel), **fields})
    assert push(channel, iter([first])).reason == reason
    assert receive.read_bytes() == GARBAGE


@pytest.mark.timeout(90)
def test_a_finish_with_nothing_sent_is_no_success(pair: Pair, receive: Path) -> None:
    channel = pair.sink.channel(agent_key(pair.sink, Role.SOURCE))
    attempt = next_attempt(channel)
    with pytest.raises(grpc.RpcError):
        list(opener(channel)(iter([hello(attempt=attempt), FINISH]), timeout=2))
    assert receive.read_bytes() == GARBAGE


def test_half_open_connections_hold_nobody_up(pair: Pair, receive: Path) -> None:
    with ExitStack() as open_ones:
        for number in range(200):
            one = open_ones.enter_context(
                socket.create_connection(("127.0.0.1", pair.sink.port), timeout=5)
            )
            # Every other one begins a TLS record that never ends.
            one.sendall(b"\x16\x03\x01\x40\x00" if number % 2 else b"")
        assert describe(pair.sink.channel(pair.sink.authority.controller(1))).adopted


def test_streams_that_say_nothing_hold_nobody_up(pair: Pair, receive: Path) -> None:
    """A stolen certificate of the source may push; it may not shut the controller out."""
    channel = pair.sink.channel(agent_key(pair.sink, Role.SOURCE))
    call = opener(channel)

    def silent() -> Iterator[bytes]:
        over.wait(20)
        yield from ()

    over = threading.Event()
    calls = [call(silent(), timeout=30) for _ in range(150)]
    try:
        for _ in range(3):
            assert describe(pair.sink.channel(pair.sink.authority.controller(1))).adopted
    finally:
        over.set()
        for one in calls:
            one.cancel()
