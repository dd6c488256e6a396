"""Turns a chunk into a frame's payload and back, within bounds.

Rules:
* A chunk travels as ZSTD only where that saves at least 1/16 of it, else RAW.
  A sample of 32 KiB is tried first, so that what does not shrink costs little,
  unless the chunks before did shrink.
* Nothing that a peer declares makes the decoder allocate more than a chunk: the
  frame header must declare exactly the frame's length and a window within a
  chunk, before anything is decompressed.
* zstandard's contexts are not thread-safe: one Encoder or Decoder per thread.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

import zstandard

from blockferry.errors import IntegrityError, UsageError
from blockferry.limits import CHUNK_BYTES, KIB, ZERO_RUN_MAX_BYTES
from blockferry_agent.climbing import Climb

LEVEL_MIN: Final = -7
LEVEL_MAX: Final = 19

_SAMPLES: Final = 8
_SAMPLE_BYTES: Final = 4 * KIB
_SAMPLE_LEVEL: Final = 1
_SURE_CHUNKS: Final = 8
"""After so many that shrank the next one is not sampled, until one does not."""


class Encoding(IntEnum):
    """How a frame's payload stands for its range; numbers of the wire contract."""

    RAW = 1
    ZSTD = 2
    ZERO = 3


@dataclass(frozen=True, slots=True)
class Compression:
    """How chunks are to be compressed.

    Attributes:
        mode: auto (follows the bottleneck), none, or zstd (a fixed level).
        level: zstd level in [-7, 19], for `zstd` only.
    """

    mode: Literal["auto", "none", "zstd"] = "auto"
    level: int = 1

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "none", "zstd"):
            raise UsageError(
                "COMPRESSION_INVALID",
                f"There is no compression {self.mode!r}; use auto, none or zstd:LEVEL.",
                mode=self.mode,
            )
        if self.mode == "zstd" and not LEVEL_MIN <= self.level <= LEVEL_MAX:
            raise UsageError(
                "COMPRESSION_INVALID",
                f"There is no zstd level {self.level}; use one from {LEVEL_MIN} to {LEVEL_MAX}.",
                level=self.level,
            )


class LevelTuner:
    """The level that all encoders of a transfer use now; thread-safe.

    In mode auto it looks for the place on a ladder, from raw over fast levels to
    strong ones, where most bytes get through; see `climbing`.
    """

    LADDER: Final[tuple[int | None, ...]] = (None, -5, -1, 1, 3, 6, 9)

    def __init__(self, compression: Compression) -> None:
        self._lock = threading.Lock()
        self._level: int | None = compression.level if compression.mode == "zstd" else None
        self._climb: Climb | None = None
        if compression.mode == "auto":
            self._climb = Climb(len(self.LADDER), self.LADDER.index(1))
            self._level = self.LADDER[self._climb.place]

    @property
    def level(self) -> int | None:
        """The zstd level to use now; None is raw."""
        return self._level

    def observe(self, amount_bytes: int, now: float, *, queued: bool) -> None:
        """Learn that a chunk was sent.

        Args:
            amount_bytes: Of the chunk, before compression.
            now: Seconds on a monotonic clock.
            queued: Whether frames were waiting for the wire already.
        """
        if self._climb is not None:
            with self._lock:
                self._climb.observe(amount_bytes, now, queued=queued)
                self._level = self.LADDER[self._climb.place]


class Encoder:
    """Makes payloads of chunks that are not zero. One per thread."""

    def __init__(self, tuner: LevelTuner) -> None:
        self._tuner = tuner
        self._sampler = _compressor(_SAMPLE_LEVEL)
        self._level = _SAMPLE_LEVEL
        self._compressor = self._sampler
        self._run = 0

    def encode(self, view: memoryview) -> tuple[Encoding, bytes | memoryview]:
        """Return (encoding, payload) of a chunk, by the tuner's level of now.

        Args:
            view: C-contiguous, uint8, shape (n,), n in [1, CHUNK_BYTES]; lent
                for this call only.

        Returns:
            ZSTD with one frame that declares its content size, or RAW with `view` itself.
        """
        level = self._tuner.level
        if level is None or not self._is_promising(view):
            return Encoding.RAW, view
        if level != self._level:
            # One context at a time: those of strong levels are megabytes each.
            self._compressor, self._level = _compressor(level), level
        payload = self._compressor.compress(view)
        if _saves(len(payload), len(view)):
            self._run += 1
            return Encoding.ZSTD, payload
        self._run = 0
        return Encoding.RAW, view

    def _is_promising(self, view: memoryview) -> bool:
        """Whether compressing is worth a try: as the last chunks were, or a sample is."""
        if self._run >= _SURE_CHUNKS or self._shrinks(view):
            return True
        self._run = 0
        return False

    def _shrinks(self, view: memoryview) -> bool:
        if len(view) <= 2 * _SAMPLES * _SAMPLE_BYTES:
            return True
        stride = len(view) // _SAMPLES
        sample = b"".join(
            view[start : start + _SAMPLE_BYTES] for start in range(0, stride * _SAMPLES, stride)
        )
        return _saves(len(self._sampler.compress(sample)), len(sample))


class Decoder:
    """Makes chunks of payloads that a peer sent. One per thread."""

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=CHUNK_BYTES)

    def decode(
        self, encoding: int, payload: bytes | memoryview, length_bytes: int
    ) -> bytes | memoryview:
        """Return the `length_bytes` bytes that a frame stands for.

        A ZERO frame has nothing to decode: an empty result says it is well-formed.

        Args:
            encoding: A number of Encoding; any other is refused.
            payload: As received.
            length_bytes: As the frame declares it: in [1, CHUNK_BYTES], for ZERO
                in [1, ZERO_RUN_MAX_BYTES].

        Raises:
            IntegrityError: FRAME_INVALID, the frame is not what it declares.
        """
        limit = ZERO_RUN_MAX_BYTES if encoding == Encoding.ZERO else CHUNK_BYTES
        if not 1 <= length_bytes <= limit:
            raise _invalid(f"declares a length out of [1, {limit}]", payload, length_bytes)
        if encoding == Encoding.RAW:
            if len(payload) != length_bytes:
                raise _invalid("is raw but of another length", payload, length_bytes)
            return payload
        if encoding == Encoding.ZSTD:
            return self._decompress(payload, length_bytes)
        if encoding == Encoding.ZERO:
            if payload:
                raise _invalid("is a zero run but has a payload", payload, length_bytes)
            return b""
        raise _invalid(f"has an unknown encoding {encoding}", payload, length_bytes)

    def _decompress(self, payload: bytes | memoryview, length_bytes: int) -> bytes:
        try:
            header = zstandard.get_frame_parameters(payload)
            if header.content_size != length_bytes or header.window_size > CHUNK_BYTES:
                raise _invalid("declares another content in its header", payload, length_bytes)
            content = self._decompressor.decompress(
                payload, max_output_size=length_bytes, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise _invalid(f"is no zstd frame ({error})", payload, length_bytes) from error
        if len(content) != length_bytes:
            raise _invalid("holds another length", payload, length_bytes)
        return content


def _compressor(level: int) -> zstandard.ZstdCompressor:
    return zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)


def _saves(compressed_bytes: int, plain_bytes: int) -> bool:
    return compressed_bytes <= plain_bytes - plain_bytes // 16


def _invalid(what: str, payload: bytes | memoryview, length_bytes: int) -> IntegrityError:
    return IntegrityError(
        "FRAME_INVALID",
        f"A frame for {length_bytes} bytes with a payload of {len(payload)} {what}. "
        "It was refused; the source will send it again or must be replaced.",
        length_bytes=length_bytes,
        payload_bytes=len(payload),
    )
