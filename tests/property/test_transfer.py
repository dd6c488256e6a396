"""Device -> frames -> device is identity, whatever lies on either."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from blockferry.limits import CHUNK_BYTES
from blockferry_agent.codec import Compression
from blockferry_agent.memory_device import MemoryDevice
from tests.layouts import LETTERS, content, make_memory
from tests.transfer import Transfer

layouts = st.text(LETTERS, max_size=10)
tails = st.one_of(st.integers(1, CHUNK_BYTES), st.sampled_from([1, 511, 512, 4096, CHUNK_BYTES]))
compressions = st.sampled_from(
    [Compression(), Compression("none"), Compression("zstd", -3), Compression("zstd", 5)]
)


@settings(max_examples=25)
@given(
    layout=layouts,
    tail=tails,
    extra=st.sampled_from([0, 1, CHUNK_BYTES + 3]),
    channels=st.integers(1, 4),
    compression=compressions,
    holes=st.booleans(),
    garbage=st.booleans(),
)
def test_device_to_device_is_identity(
    layout: str,
    tail: int,
    extra: int,
    channels: int,
    compression: Compression,
    holes: bool,
    garbage: bool,
) -> None:
    source = make_memory(layout, tail_bytes=tail, tells_holes=holes)
    wanted = content(layout, tail_bytes=tail)
    sink = MemoryDevice(
        len(wanted) + extra,
        garbage_seed=5 if garbage else None,
        block_bytes=1,
        tells_holes=not garbage,
    )
    before = sink.content
    with tempfile.TemporaryDirectory() as state:
        transfer = Transfer(source, sink, Path(state), channels=channels, compression=compression)
        outcome = transfer.run()
    outcome.raise_any()
    assert sink.content == wanted + before[len(wanted) :]
    zero = sum(
        min(CHUNK_BYTES, len(wanted) - at)
        for at in range(0, len(wanted), CHUNK_BYTES)
        if not any(wanted[at : at + CHUNK_BYTES])
    )
    for job in (outcome.source, outcome.sink):
        assert job.progress.zero_bytes == zero
        assert job.progress.data_bytes == len(wanted) - zero
        assert job.progress.committed_bytes == len(wanted)
