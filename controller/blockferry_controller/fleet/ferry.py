"""What moves one volume, as a fleet sees it."""

from contextlib import AbstractContextManager
from typing import Protocol

from blockferry_controller.clouds.port import Cloud
from blockferry_controller.engine.records import MigrationRecord
from blockferry_controller.spec import Spec


class Ferry(Protocol):
    """What moves one volume: migration.service.Migrations."""

    def new_id(self) -> str:
        """An id that nothing of the state has."""
        ...

    def create(self, spec: Spec, migration_id: str = "") -> MigrationRecord:
        """Remember a new migration."""
        ...

    def run(self, migration_id: str) -> MigrationRecord:
        """Run it to its end, from wherever it is."""
        ...

    def interrupt(self, migration_id: str = "") -> None:
        """Stop one that runs, or all."""
        ...

    def cancel(self, migration_id: str) -> MigrationRecord:
        """End it for good."""
        ...

    def end_pair(self, pair_id: str) -> bool:
        """Delete a pair of a pool; False when somebody has taken it since."""
        ...

    def speak_to_pair(self, pair_id: str) -> None:
        """Let the instances of a free pair know that they are wanted."""
        ...

    def cloud(self, name: str) -> AbstractContextManager[Cloud]:
        """The cloud of that name."""
        ...

    def held(self, *clouds: str) -> AbstractContextManager[None]:
        """Keep clouds and durable execution open."""
        ...
