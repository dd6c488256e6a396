"""What a sink remembers of a transfer when its process or machine dies.

One small file a transfer, with four slots of 4 KiB. A slot is one record:

    magic          8 bytes   "BFJRNL01"
    sequence       u64       grows with each store; the highest valid one counts
    size, committed, durable committed, data, zero    5 x u64, in bytes
    boot id, source identity, device identity         each u16 length + UTF-8
    checksum       32 bytes  BLAKE3 of the above
    padding        zeros     to the slot's end

All integers are little-endian. Rules:
* A store that moves the durable commit point, or starts another transfer, is
  *durable*: it goes to slot 0 or 1 in turn and is followed by fdatasync. Any
  other goes to slot 2 or 3 in turn and is not: it survives SIGKILL in the page
  cache, but not a power cut. So whatever a torn write destroys, the last durable
  record before it is whole.
* After a reboot (another boot id) only durable records count.
* What cannot be read or trusted is as if it were not there: the transfer starts
  from 0, which costs time and never data.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final

from blockferry.errors import UsageError
from blockferry.limits import DIGEST_BYTES
from blockferry_agent.chunk import digest
from blockferry_agent.refusal import refused

IDENTITY_MAX_BYTES: Final = 1024
"""Longest identity in bytes of UTF-8, so that a record always fits its slot."""

_MAGIC: Final = b"BFJRNL01"
_NUMBERS: Final = struct.Struct("<8s6Q")
_LENGTH: Final = struct.Struct("<H")
_SLOT_BYTES: Final = 4096
_DURABLE_SLOTS: Final = (0, 1)
_PASSING_SLOTS: Final = (2, 3)


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """Where a transfer stands.

    Attributes:
        source_identity: Names the content, at most 1024 bytes of UTF-8.
        size_bytes: Size of the transfer.
        device_identity: Names the destination device, at most 1024 bytes.
        committed_bytes: The commit point, in [0, size_bytes].
        durable_committed_bytes: The commit point up to which manifest and
            journal are on the medium too, at most `committed_bytes`.
        data_bytes: Non-zero bytes of [0, committed_bytes).
        zero_bytes: Zero bytes of [0, committed_bytes).
        boot_id: The boot that this was written in, at most 1024 bytes.
    """

    source_identity: str
    size_bytes: int
    device_identity: str
    committed_bytes: int
    durable_committed_bytes: int
    data_bytes: int
    zero_bytes: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class _Record:
    sequence: int
    slot: int
    entry: JournalEntry


class Journal:
    """The journal of one transfer; thread-safe."""

    def __init__(self, path: Path, fd: int) -> None:
        """Take over `fd`; use `open`."""
        self._path = path
        self._fd = fd
        self._lock = threading.Lock()
        self._records = _read_records(fd)

    @classmethod
    def open(cls, path: Path) -> Journal:
        """Open the journal at `path`, or create it with mode 0600.

        Raises:
            DeviceError: DEVICE_IO_OPEN.
            CapacityError: NO_SPACE.
        """
        try:
            return cls(path, os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise refused("open", path, error) from error

    def load(self, boot_id: str) -> JournalEntry | None:
        """Return the last entry that can be relied on in this boot, or None.

        After a reboot that is the last durable one: its commit point, counters
        and `durable_committed_bytes` belong together.
        """
        with self._lock:
            last = _newest(self._records)
            if last is not None and last.entry.boot_id != boot_id:
                last = _newest([one for one in self._records if one.slot in _DURABLE_SLOTS])
            return None if last is None else _as_of(last.entry, boot_id)

    def store(self, entry: JournalEntry) -> None:
        """Write an entry; call it at every commit point.

        An entry whose `durable_committed_bytes`, identities or size differ from
        the last one's is durable on return. Sync device and manifest before.
        Such an entry has `durable_committed_bytes` equal to `committed_bytes`, or 0.

        Raises:
            UsageError: JOURNAL_ENTRY_INVALID, numbers out of range or an
                identity too long.
            CapacityError: NO_SPACE.
            DeviceError: DEVICE_IO_WRITE or DEVICE_IO_FLUSH.
        """
        _check(entry)
        with self._lock:
            last = _newest(self._records)
            durable = last is None or _anchor(last.entry) != _anchor(entry)
            if durable and entry.durable_committed_bytes not in (0, entry.committed_bytes):
                raise _invalid("makes a commit point durable that is not the current one", entry)
            record = _Record(0 if last is None else last.sequence + 1, self._slot(durable), entry)
            self._write(record)
            self._records = [one for one in self._records if one.slot != record.slot] + [record]
            if durable:
                self._sync()

    def close(self) -> None:
        """Release the file. Idempotent."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _slot(self, durable: bool) -> int:
        """The slot of the pair that holds the older record, or none."""
        pair = _DURABLE_SLOTS if durable else _PASSING_SLOTS
        age = {one.slot: one.sequence for one in self._records}
        return min(pair, key=lambda slot: age.get(slot, -1))

    def _write(self, record: _Record) -> None:
        data = _encode(record).ljust(_SLOT_BYTES, b"\0")
        try:
            written = os.pwrite(self._fd, data, record.slot * _SLOT_BYTES)
        except OSError as error:
            raise refused("write", self._path, error) from error
        if written != len(data):
            # Regular files take 4 KiB whole unless the disk is full.
            raise refused("write", self._path, OSError(errno.ENOSPC, ""))

    def _sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise refused("flush", self._path, error) from error


def _as_of(entry: JournalEntry, boot_id: str) -> JournalEntry:
    """What is left of an entry in `boot_id`: of a durable one with no commit point, nothing."""
    if entry.boot_id == boot_id or entry.durable_committed_bytes:
        return entry
    return replace(entry, committed_bytes=0, data_bytes=0, zero_bytes=0)


def _anchor(entry: JournalEntry) -> tuple[str, int, str, int]:
    """What a power cut must not undo."""
    return (
        entry.source_identity,
        entry.size_bytes,
        entry.device_identity,
        entry.durable_committed_bytes,
    )


def _newest(records: list[_Record]) -> _Record | None:
    return max(records, key=lambda record: record.sequence, default=None)


def _read_records(fd: int) -> list[_Record]:
    records = []
    for slot in (*_DURABLE_SLOTS, *_PASSING_SLOTS):
        try:
            data = os.pread(fd, _SLOT_BYTES, slot * _SLOT_BYTES)
        except OSError:
            continue
        record = _decode(data, slot)
        if record is not None:
            records.append(record)
    return records


def _encode(record: _Record) -> bytes:
    entry = record.entry
    body = _NUMBERS.pack(
        _MAGIC,
        record.sequence,
        entry.size_bytes,
        entry.committed_bytes,
        entry.durable_committed_bytes,
        entry.data_bytes,
        entry.zero_bytes,
    )
    for text in (entry.boot_id, entry.source_identity, entry.device_identity):
        data = text.encode()
        body += _LENGTH.pack(len(data)) + data
    return body + digest(body)


def _decode(data: bytes, slot: int) -> _Record | None:
    try:
        magic, sequence, size, committed, durable, nonzero, zero = _NUMBERS.unpack_from(data)
        place, texts = _NUMBERS.size, []
        for _ in range(3):
            (length,) = _LENGTH.unpack_from(data, place)
            place += _LENGTH.size
            texts.append(data[place : place + length].decode())
            place += length
        if magic != _MAGIC or data[place : place + DIGEST_BYTES] != digest(data[:place]):
            return None
        boot_id, source, device = texts
        entry = JournalEntry(source, size, device, committed, durable, nonzero, zero, boot_id)
        _check(entry)
    except (struct.error, UnicodeDecodeError, UsageError):
        return None
    return _Record(sequence, slot, entry)


def _check(entry: JournalEntry) -> None:
    if not 0 <= entry.durable_committed_bytes <= entry.committed_bytes <= entry.size_bytes < 2**63:
        raise _invalid("has commit points out of range", entry)
    if entry.data_bytes < 0 or entry.zero_bytes < 0:
        raise _invalid("has negative counters", entry)
    if entry.data_bytes + entry.zero_bytes > entry.size_bytes:
        raise _invalid("counts more bytes than there are", entry)
    for text in (entry.boot_id, entry.source_identity, entry.device_identity):
        if len(text.encode()) > IDENTITY_MAX_BYTES:
            raise _invalid(f"has an identity longer than {IDENTITY_MAX_BYTES} bytes", entry)


def _invalid(what: str, entry: JournalEntry) -> UsageError:
    return UsageError(
        "JOURNAL_ENTRY_INVALID",
        f"A journal entry {what}: committed {entry.committed_bytes}, durable "
        f"{entry.durable_committed_bytes}, size {entry.size_bytes}.",
        committed_bytes=entry.committed_bytes,
        durable_committed_bytes=entry.durable_committed_bytes,
        size_bytes=entry.size_bytes,
    )
