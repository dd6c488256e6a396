import stat
from dataclasses import replace
from pathlib import Path

import pytest

from blockferry.errors import DeviceError, UsageError
from blockferry.limits import MIB
from blockferry_agent.journal import IDENTITY_MAX_BYTES, Journal, JournalEntry

START = JournalEntry(
    source_identity="volume 4c1c",
    size_bytes=100 * MIB,
    device_identity="virtio-4c1c",
    committed_bytes=0,
    durable_committed_bytes=0,
    data_bytes=0,
    zero_bytes=0,
    boot_id="boot-1",
)


def at(committed: int, durable: int, **changes: object) -> JournalEntry:
    """The entry after `committed` MiB, a quarter of them zero."""
    entry = replace(
        START,
        committed_bytes=committed * MIB,
        durable_committed_bytes=durable * MIB,
        data_bytes=committed * MIB * 3 // 4,
        zero_bytes=committed * MIB // 4,
    )
    return replace(entry, **changes)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def store(path: Path, *entries: JournalEntry) -> None:
    with Journal.open(path) as journal:
        for entry in entries:
            journal.store(entry)


def load(path: Path, boot_id: str = "boot-1") -> JournalEntry | None:
    with Journal.open(path) as journal:
        return journal.load(boot_id)


def test_a_new_journal_knows_nothing(path: Path) -> None:
    assert load(path) is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_last_entry_is_loaded_here_and_in_the_next_process(path: Path) -> None:
    with Journal.open(path) as journal:
        for committed in range(0, 50, 5):
            journal.store(at(committed, 0))
            assert journal.load("boot-1") == at(committed, 0)
    assert load(path) == at(45, 0)


def test_after_a_reboot_the_last_durable_entry_counts(path: Path) -> None:
    store(path, START, at(16, 16), at(20, 16), at(24, 16), at(28, 16))
    assert load(path) == at(28, 16)
    assert load(path, "boot-2") == at(16, 16)


def test_after_a_reboot_without_a_durable_commit_nothing_counts(path: Path) -> None:
    store(path, at(4, 0), at(8, 0))
    assert load(path, "boot-2") == START


def test_the_next_boot_goes_on_from_there(path: Path) -> None:
    store(path, at(16, 16), at(28, 16))
    store(path, at(20, 16, boot_id="boot-2"))
    assert load(path, "boot-2") == at(20, 16, boot_id="boot-2")
    assert load(path, "boot-3") == at(16, 16)
    store(path, at(24, 24, boot_id="boot-3"))
    assert load(path, "boot-4") == at(24, 24, boot_id="boot-3")


def test_another_transfer_starts_anew(path: Path) -> None:
    store(path, at(16, 16), at(28, 16))
    fresh = replace(START, source_identity="volume 9999")
    store(path, fresh)
    assert load(path) == fresh
    assert load(path, "boot-2") == fresh


def test_the_file_does_not_grow(path: Path) -> None:
    store(path, *(at(committed, committed) for committed in range(1, 40)))
    store(path, *(at(committed, 39) for committed in range(39, 90)))
    assert path.stat().st_size == 4 * 4096


@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 16384, b"BFJRNL01", b"\xff" * 16384, b"BFJRNL01" + b"\xff" * 9000, b"x" * 5],
    ids=["empty", "zeros", "magic only", "ones", "magic and ones", "short"],
)
def test_garbage_is_as_if_it_were_not_there(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert load(path) is None
    store(path, at(16, 16))
    assert load(path) == at(16, 16)


def damage(path: Path, slot: int) -> None:
    data = bytearray(path.read_bytes())
    data[slot * 4096 + 60] ^= 0x10
    path.write_bytes(data)


def test_a_damaged_newest_entry_leaves_the_one_before(path: Path) -> None:
    store(path, at(16, 16), at(20, 16), at(24, 16))
    damage(path, 3)
    assert load(path) == at(20, 16)
    damage(path, 2)
    assert load(path) == at(16, 16)
    damage(path, 0)
    assert load(path) is None


def test_a_damaged_durable_entry_leaves_the_durable_one_before(path: Path) -> None:
    store(path, at(8, 8), at(16, 16), at(20, 16))
    damage(path, 1)
    assert load(path, "boot-2") == at(8, 8)


INVALID = {
    "commit point beyond the size": at(101, 0, data_bytes=0, zero_bytes=0),
    "durable beyond committed": at(8, 16),
    "negative": at(-1, 0, data_bytes=0, zero_bytes=0),
    "more counted than there is": at(8, 8, data_bytes=100 * MIB, zero_bytes=1),
    "negative counter": at(8, 8, data_bytes=-1),
    "identity too long": at(8, 8, source_identity="ä" * (IDENTITY_MAX_BYTES // 2 + 1)),
    "durable at a point that is past": at(8, 4),
}


@pytest.mark.parametrize("entry", INVALID.values(), ids=INVALID.keys())
def test_invalid_entries_are_refused(path: Path, entry: JournalEntry) -> None:
    store(path, START)
    with pytest.raises(UsageError) as caught:
        store(path, entry)
    assert caught.value.reason == "JOURNAL_ENTRY_INVALID"
    assert load(path) == START


def test_the_longest_identities_fit(path: Path) -> None:
    longest = "ö" * (IDENTITY_MAX_BYTES // 2)
    entry = at(8, 8, source_identity=longest, device_identity=longest, boot_id=longest)
    store(path, entry)
    assert load(path, longest) == entry


def test_a_directory_is_no_journal(tmp_path: Path) -> None:
    with pytest.raises(DeviceError) as caught:
        Journal.open(tmp_path)
    assert caught.value.reason == "DEVICE_IO_OPEN"


def test_closing_twice_is_closing(path: Path) -> None:
    journal = Journal.open(path)
    journal.close()
    journal.close()
