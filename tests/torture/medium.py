"""A destination that changes behind the sink's back, while the copy runs.

Promises, checked at the end of the round:
* What was flipped below the commit point is found by the proof, named, and sent again;
  nothing else is. Whatever is killed in between, the end is byte-equal.
* The copy is repaired once. A flip after the repair ends it with 20, which is
  tests/integration/test_cli_repair.py's: here none comes so late.

What a proof has read already is not read again, by it: a bit that is flipped there is
found by nobody, and that is no promise. So the sink stands still while a bit is
flipped, and only in the first half of a slow copy: the proof begins to read behind
the commit point when what is left to read would outlast what is left to copy.
"""

import random
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from blockferry.limits import CHUNK_BYTES
from blockferry_agent.host import boot_id
from blockferry_agent.journal import Journal
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.steps.repair import REPAIR


def committed_bytes(instance: Path) -> int:
    """Commit point of the sink in `instance`, which stands still; 0 when it has none yet."""
    found = [0]
    for path in instance.glob("state/transfers/*/journal"):
        with Journal.open(path) as journal:
            entry = journal.load(boot_id())
            found.append(entry.committed_bytes if entry else 0)
    return max(found)


def was_repaired(environment: Mapping[str, str], migration_id: str) -> bool:
    """Whether what differed was sent again, or is about to be."""
    with closing(StateStore.open(environment["BLOCKFERRY_STATE"])) as store:
        return REPAIR in store.get(migration_id).facts


def flip(path: Path, below_bytes: int, dice: random.Random) -> int:
    """Flip one bit of a file, somewhere below an offset; returns the chunk that it is in."""
    place, bit = dice.randrange(below_bytes), 1 << dice.randrange(8)
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ bit]))
    return place // CHUNK_BYTES


def chunks_of(ranges: list[list[int]]) -> set[int]:
    """Indices of the chunks in `repaired_ranges`."""
    return {
        at for start, end in ranges for at in range(start // CHUNK_BYTES, -(-end // CHUNK_BYTES))
    }
