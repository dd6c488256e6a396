"""What is dear and made once for all tests: guests that boot for a minute, files on a volume."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from tests.e2e.pair import Guest, TenantCloud
from tests.e2e.scripts import MARK, reader, writer

FILES_MIB: Final = 64


@dataclass
class Scene:
    """A volume in the source, and a guest in the destination that looks at copies of it.

    Both guests are ACTIVE, and boot while tests go on that do not need them.

    Attributes:
        volume_id: Nothing is on it before `files` was asked for.
        writer: Gone once `files` was asked for.
        roots: The proven root of each copy of the volume.
    """

    volume_id: str
    writer: Guest
    reader: Guest
    roots: set[str] = field(default_factory=set)

    @cached_property
    def files(self) -> str:
        """Number of files on the volume, their bytes, and a checksum over all."""
        told = self.writer.look_at(self.volume_id)
        self.writer.delete()
        return told

    def assert_source_as_ever(self, root: str) -> None:
        """The volume holds what it held when it was first copied: nobody has written to it."""
        self.roots.add(root)
        assert len(self.roots) == 1


@contextmanager
def scene(source: TenantCloud, destination: TenantCloud) -> Iterator[Scene]:
    """A scene; all of it is deleted afterwards."""
    with ExitStack() as made, ThreadPoolExecutor() as pool:
        volume_id = source.make_volume(
            1, name=f"{MARK}-files", description="64 MiB of files, ünïcode ☂",
            metadata={"owner": "shop", "tier": "größer ☂"},
        )  # fmt: skip
        made.callback(source.delete_volume, volume_id)
        starts = [
            pool.submit(source.guest, writer(seed=11, mebibytes=FILES_MIB)),
            pool.submit(destination.guest, reader()),
        ]
        writing, looking = (made.enter_context(start.result()) for start in starts)
        yield Scene(volume_id, writing, looking)
