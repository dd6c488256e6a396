"""Beginnings of disks, and the partition table that is in each."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockferry.v1 import agent_pb2
from blockferry_agent.partitions import ALIGNMENT_MAX_BYTES, Table, read_table

NONE = agent_pb2.PARTITION_TABLE_NONE
MBR = agent_pb2.PARTITION_TABLE_MBR
GPT = agent_pb2.PARTITION_TABLE_GPT


def mbr(*sectors: int, kind: int = 0x83, status: int = 0) -> bytes:
    head = bytearray(64 << 10)
    for index, sector in enumerate(sectors):
        at = 446 + 16 * index
        head[at], head[at + 4] = status, kind
        head[at + 8 : at + 12] = struct.pack("<I", sector)
    head[510:512] = b"\x55\xaa"
    return bytes(head)


def gpt(*blocks: int, block_bytes: int = 512) -> bytes:
    head = bytearray(mbr(1, kind=0xEE))
    head[block_bytes : block_bytes + 8] = b"EFI PART"
    head[block_bytes + 72 : block_bytes + 88] = struct.pack("<QII", 2, 128, 128)
    for index, block in enumerate(blocks):
        at = 2 * block_bytes + 128 * index
        head[at : at + 16] = b"\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4"
        head[at + 32 : at + 40] = struct.pack("<Q", block)
    return bytes(head)


@pytest.mark.parametrize(
    ("head", "table"),
    [
        pytest.param(bytes(65536), Table(NONE), id="empty"),
        pytest.param(b"", Table(NONE), id="no bytes"),
        pytest.param(mbr(2048, 206848), Table(MBR, 1 << 20), id="mbr, aligned"),
        pytest.param(mbr(63), Table(MBR, 512), id="mbr of old tools"),
        pytest.param(mbr(2048, status=0x80), Table(MBR, 1 << 20), id="mbr, active"),
        pytest.param(mbr(2048, status=0x41), Table(NONE), id="a filesystem's boot sector"),
        pytest.param(mbr(), Table(NONE), id="a signature alone"),
        pytest.param(gpt(2048, 8192), Table(GPT, 1 << 20), id="gpt, aligned"),
        pytest.param(gpt(34, 2048), Table(GPT, 1024), id="gpt, one is not"),
        pytest.param(gpt(), Table(GPT, 0), id="gpt without partitions"),
        pytest.param(gpt(256, block_bytes=4096), Table(GPT, 1 << 20), id="gpt of 4 KiB blocks"),
        pytest.param(gpt(6, block_bytes=4096), Table(GPT, 8192), id="the same, less aligned"),
    ],
)
def test_tables(head: bytes, table: Table) -> None:
    assert read_table(head) == table


@given(st.binary(max_size=2048), st.sampled_from([0, 512, 4096]), st.integers(0, 8192))
def test_any_bytes_are_legal(noise: bytes, at: int, length: int) -> None:
    head = bytearray(gpt(2048, block_bytes=at) if at else mbr(63))
    head[at + 72 : at + 72 + len(noise)] = noise
    found = read_table(bytes(head[:length]))
    assert 0 <= found.alignment_bytes <= ALIGNMENT_MAX_BYTES
