import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from blockferry_agent.journal import Journal, JournalEntry

SIZE = 1 << 40
SECTOR = 512
FILE_BYTES = 4 * 4096


def entry(committed: int, durable: int) -> JournalEntry:
    return JournalEntry("source", SIZE, "device" * 150, committed, durable, committed, 0, "boot-1")


def load(content: bytes, boot_id: str) -> JournalEntry | None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal"
        path.write_bytes(content)
        with Journal.open(path) as journal:
            return journal.load(boot_id)


@given(st.binary(max_size=6000))
def test_any_file_is_an_entry_or_none(content: bytes) -> None:
    assert load(content, "boot-1") is None


STEPS = st.lists(st.booleans(), min_size=1, max_size=12)


@given(STEPS, st.binary(min_size=FILE_BYTES // SECTOR, max_size=FILE_BYTES // SECTOR))
def test_a_power_cut_keeps_the_last_durable_entry(steps: list[bool], luck: bytes) -> None:
    """Each step commits; True makes it durable. The power fails within the last one.

    What was written since the last fdatasync reaches the disk sector by sector
    or not at all, as `luck` has it.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal"
        on_disk, durable = bytes(FILE_BYTES), 0
        with Journal.open(path) as journal:
            journal.store(entry(0, 0))
            on_disk = path.read_bytes().ljust(FILE_BYTES, b"\0")
            for committed, lasting in enumerate(steps, start=1):
                is_last = committed == len(steps)
                journal.store(entry(committed, committed if lasting else durable))
                if lasting and not is_last:
                    durable = committed
                    on_disk = path.read_bytes().ljust(FILE_BYTES, b"\0")
        written = path.read_bytes().ljust(FILE_BYTES, b"\0")
    after = bytearray(on_disk)
    for sector, chance in enumerate(luck):
        if chance % 2:
            place = slice(sector * SECTOR, (sector + 1) * SECTOR)
            after[place] = written[place]
    found = load(bytes(after), "boot-2")
    assert found is not None
    newest = len(steps) if steps[-1] else durable
    assert found.committed_bytes in (durable, newest)
    assert found.data_bytes == found.committed_bytes == found.durable_committed_bytes


@given(STEPS | st.just([]), st.integers(0, 3), st.integers(0, 4095), st.integers(1, 255))
def test_one_damaged_slot_costs_at_most_the_last_entries(
    steps: list[bool], slot: int, place: int, flip: int
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal"
        stored, durable = [entry(0, 0)], 0
        with Journal.open(path) as journal:
            journal.store(stored[0])
            for committed, lasting in enumerate(steps, start=1):
                durable = committed if lasting else durable
                stored.append(entry(committed, durable))
                journal.store(stored[-1])
        content = bytearray(path.read_bytes())
        if (at := slot * 4096 + place) < len(content):
            content[at] ^= flip
    found = load(bytes(content), "boot-1")
    # Two stores never share a slot, so one that is damaged leaves the other.
    assert found in stored or len(stored) == 1
