import contextlib

import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from blockferry.errors import IntegrityError
from blockferry.limits import CHUNK_BYTES, ZERO_RUN_MAX_BYTES
from blockferry_agent.codec import (
    LEVEL_MAX,
    LEVEL_MIN,
    Compression,
    Decoder,
    Encoder,
    Encoding,
    LevelTuner,
)

CONTENT = st.one_of(
    st.binary(min_size=1, max_size=3000),
    st.builds(
        lambda seed, times: (seed * times)[:CHUNK_BYTES],
        st.binary(min_size=1, max_size=300),
        st.integers(1, 5000),
    ),
)
COMPRESSION = st.one_of(
    st.just(Compression("auto")),
    st.just(Compression("none")),
    st.builds(Compression, st.just("zstd"), st.integers(LEVEL_MIN, 9)),
)


@given(CONTENT, COMPRESSION)
@example(b"\0", Compression("zstd", LEVEL_MAX))
@example(bytes(CHUNK_BYTES), Compression("auto"))
def test_what_is_encoded_is_decoded(content: bytes, compression: Compression) -> None:
    encoding, payload = Encoder(LevelTuner(compression)).encode(memoryview(content))
    assert len(payload) <= len(content)
    assert Decoder().decode(encoding, payload, len(content)) == content


def decode(encoding: int, payload: bytes, length: int) -> None:
    """Decode what a peer may send: a legal result or our error, nothing else."""
    with contextlib.suppress(IntegrityError):
        content = Decoder().decode(encoding, payload, length)
        assert len(content) == (0 if encoding == Encoding.ZERO else length)


@given(
    st.integers(-1, 5),
    st.binary(max_size=300),
    st.integers(-(2**63), 2**63 - 1) | st.integers(0, 301) | st.just(ZERO_RUN_MAX_BYTES),
)
def test_any_bytes_are_decoded_or_refused(encoding: int, payload: bytes, length: int) -> None:
    decode(encoding, payload, length)


@given(
    st.binary(min_size=1, max_size=2000),
    st.integers(-2, 2),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 8),
)
def test_damaged_frames_are_decoded_or_refused(
    content: bytes, longer: int, damage: list[tuple[int, int]], cut: int
) -> None:
    payload = bytearray(zstandard.ZstdCompressor(level=1).compress(content * 3))
    for place, value in damage:
        payload[place % len(payload)] = value
    decode(2, bytes(payload[: len(payload) - cut]), 3 * len(content) + longer)


@given(st.binary(max_size=60))
def test_what_begins_like_a_frame_is_decoded_or_refused(rest: bytes) -> None:
    decode(2, zstandard.FRAME_HEADER + rest, 64)
