import random

import pytest
import zstandard

from blockferry.errors import IntegrityError, UsageError
from blockferry.limits import CHUNK_BYTES, KIB, MIB, ZERO_RUN_MAX_BYTES
from blockferry_agent.codec import Compression, Decoder, Encoder, Encoding, LevelTuner

TEXT = b"".join(b"line %d of a log file\n" % number for number in range(60_000))[:CHUNK_BYTES]
NOISE = random.Random(7).randbytes(CHUNK_BYTES)


def encoder(mode: str = "zstd", level: int = 1) -> Encoder:
    return Encoder(LevelTuner(Compression(mode, level)))  # type: ignore[arg-type]


def refused(encoding: int, payload: bytes, length: int) -> None:
    with pytest.raises(IntegrityError) as caught:
        Decoder().decode(encoding, payload, length)
    assert caught.value.reason == "FRAME_INVALID"


CONTENTS = {
    "text": (TEXT, Encoding.ZSTD),
    "noise": (NOISE, Encoding.RAW),
    "zeros": (bytes(CHUNK_BYTES), Encoding.ZSTD),
    "one byte": (b"x", Encoding.RAW),
    "half noise": (NOISE[: CHUNK_BYTES // 2] + TEXT[: CHUNK_BYTES // 2], Encoding.ZSTD),
    "short tail": (TEXT[: 3 * KIB], Encoding.ZSTD),
    "5 % of text": (NOISE[:-50_000] + TEXT[:50_000], Encoding.RAW),
}


@pytest.mark.parametrize(("content", "expected"), CONTENTS.values(), ids=CONTENTS.keys())
def test_round_trip(content: bytes, expected: Encoding) -> None:
    encoding, payload = encoder().encode(memoryview(content))
    assert encoding is expected
    assert len(payload) <= len(content)
    assert Decoder().decode(encoding, payload, len(content)) == content


@pytest.mark.parametrize("level", [-7, -5, 1, 3, 9, 19])
def test_every_level_is_within_the_decoders_bounds(level: int) -> None:
    content = TEXT[: 256 * KIB] if level > 9 else TEXT
    encoding, payload = encoder(level=level).encode(memoryview(content))
    assert encoding is Encoding.ZSTD
    assert Decoder().decode(encoding, payload, len(content)) == content


def test_compression_none_is_raw() -> None:
    assert encoder("none").encode(memoryview(TEXT)) == (Encoding.RAW, TEXT)


def test_a_zero_run_has_nothing_to_decode() -> None:
    assert Decoder().decode(Encoding.ZERO, b"", ZERO_RUN_MAX_BYTES) == b""


def zstd(content: bytes, *, size: bool = True) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_content_size=size).compress(content)


def test_a_bomb_is_refused_by_its_header() -> None:
    refused(Encoding.ZSTD, zstd(bytes(64 * MIB)), CHUNK_BYTES)


def test_a_large_window_is_refused_before_memory_is_taken() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=True)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj(size=128 * MIB)
    header = stream.compress(bytes(MIB)) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    assert zstandard.get_frame_parameters(header).window_size > CHUNK_BYTES
    refused(Encoding.ZSTD, header, CHUNK_BYTES)


BAD_FRAMES = {
    "raw, short": (Encoding.RAW, b"abc", 4),
    "raw, long": (Encoding.RAW, b"abc", 2),
    "raw, more than a chunk": (Encoding.RAW, bytes(CHUNK_BYTES + 1), CHUNK_BYTES + 1),
    "raw, of nothing": (Encoding.RAW, b"", 0),
    "negative length": (Encoding.RAW, b"", -1),
    "zstd, content shorter": (Encoding.ZSTD, zstd(b"abc" * 9), 28),
    "zstd, content longer": (Encoding.ZSTD, zstd(b"abc" * 9), 26),
    "zstd, no content size": (Encoding.ZSTD, zstd(TEXT, size=False), len(TEXT)),
    "zstd, cut off": (Encoding.ZSTD, zstd(TEXT)[:-10], len(TEXT)),
    "zstd, only a header": (Encoding.ZSTD, zstd(TEXT)[:9], len(TEXT)),
    "zstd, something behind": (Encoding.ZSTD, zstd(TEXT) + b"x", len(TEXT)),
    "zstd, two frames": (Encoding.ZSTD, zstd(TEXT) + zstd(TEXT), len(TEXT)),
    "zstd, a skippable frame": (Encoding.ZSTD, b"\x50\x2a\x4d\x18\x01\0\0\0x", 1),
    "zstd, empty": (Encoding.ZSTD, b"", 1),
    "zstd, garbage": (Encoding.ZSTD, b"garbage", 7),
    "zero, with payload": (Encoding.ZERO, b"x", CHUNK_BYTES),
    "zero, too long": (Encoding.ZERO, b"", ZERO_RUN_MAX_BYTES + 1),
    "unspecified encoding": (0, b"x", 1),
    "unknown encoding": (4, b"x", 1),
}


@pytest.mark.parametrize(
    ("encoding", "payload", "length"), BAD_FRAMES.values(), ids=BAD_FRAMES.keys()
)
def test_what_is_not_as_declared_is_refused(encoding: int, payload: bytes, length: int) -> None:
    refused(encoding, payload, length)


def test_a_frame_that_declares_less_than_it_holds() -> None:
    # The content size lies in the header after magic and descriptor; shrink it.
    payload = bytearray(zstd(bytes(range(200))))
    parameters = zstandard.get_frame_parameters(bytes(payload))
    assert parameters.content_size == 200
    payload[5] -= 1
    assert zstandard.get_frame_parameters(bytes(payload)).content_size == 199
    refused(Encoding.ZSTD, bytes(payload), 199)
    payload[5] += 2
    refused(Encoding.ZSTD, bytes(payload), 201)


def test_a_decoder_survives_bad_frames() -> None:
    decoder = Decoder()
    with pytest.raises(IntegrityError):
        decoder.decode(Encoding.ZSTD, zstd(TEXT)[:-10], len(TEXT))
    assert decoder.decode(Encoding.ZSTD, zstd(TEXT), len(TEXT)) == TEXT


@pytest.mark.parametrize(("mode", "level"), [("zstd", -8), ("zstd", 20), ("lz4", 1)])
def test_compressions_that_are_none(mode: str, level: int) -> None:
    with pytest.raises(UsageError) as caught:
        Compression(mode, level)  # type: ignore[arg-type]
    assert caught.value.reason == "COMPRESSION_INVALID"


class TestLevelTuner:
    @pytest.mark.parametrize(
        ("compression", "level"),
        [(Compression("none"), None), (Compression("zstd", 5), 5), (Compression("zstd", -7), -7)],
        ids=["none", "zstd:5", "zstd:-7"],
    )
    def test_a_fixed_level_stays(self, compression: Compression, level: int | None) -> None:
        tuner = LevelTuner(compression)
        for turn in range(1000):
            tuner.observe(MIB, turn * 0.01, queued=turn % 3 == 0)
            assert tuner.level == level

    def test_auto_begins_without(self) -> None:
        assert LevelTuner(Compression()).level is None

    def test_encoders_follow_it(self) -> None:
        tuner = LevelTuner(Compression())
        worker = Encoder(tuner)
        assert worker.encode(memoryview(TEXT))[0] is Encoding.RAW
        now = 0.0
        while tuner.level is None:
            # A slow wire.
            now += 0.01
            tuner.observe(MIB, now, queued=True)
            assert now < 60
        assert tuner.level == 1
        assert worker.encode(memoryview(TEXT))[0] is Encoding.ZSTD


class TestSampling:
    def test_what_shrank_again_and_again_is_not_sampled(self) -> None:
        worker = encoder("zstd", 1)
        samples = counting(worker)
        for _ in range(20):
            assert worker.encode(memoryview(LONG_TEXT))[0] is Encoding.ZSTD
        assert len(samples) == 8
        # The first that does not costs one try, the next ones a sample.
        for _ in range(3):
            assert worker.encode(memoryview(LONG_NOISE))[0] is Encoding.RAW
        assert len(samples) == 10

    def test_what_does_not_shrink_is_sampled_always(self) -> None:
        worker = encoder("zstd", 1)
        samples = counting(worker)
        for _ in range(20):
            worker.encode(memoryview(LONG_NOISE))
        assert len(samples) == 20


LONG_TEXT = b"one line of a log\n" * 20_000
LONG_NOISE = random.Random(3).randbytes(300 * KIB)


def counting(worker: Encoder) -> list[int]:
    """Lengths of what `worker` samples from now on."""
    lengths = []

    class Sampler:
        def __init__(self, inner: zstandard.ZstdCompressor) -> None:
            self._inner = inner

        def compress(self, data: bytes) -> bytes:
            lengths.append(len(data))
            return self._inner.compress(data)

    # At the same level the sampler is the compressor, too: only the samples are counted.
    worker._sampler = Sampler(worker._sampler)  # type: ignore[assignment]
    return lengths
