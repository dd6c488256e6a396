"""What the commands of one process share: options given, configuration, state.

This is the composition root: only here are adapters made and put together.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blockferry_controller import config
from blockferry_controller.events import Listener

if TYPE_CHECKING:
    from blockferry_controller.agents.port import Agent
    from blockferry_controller.clouds.port import Cloud
    from blockferry_controller.engine.state import StateStore
    from blockferry_controller.migration.service import Migrations

LOCAL: Final = "local"
"""Name of the cloud that is this machine; `copy` moves within it."""


@dataclass
class Session:
    """Options common to all commands, and what follows from them.

    Attributes:
        config_path: None for the default place.
        state_url: None for what the configuration says.
        output: `table`, `json`, `yaml` (`md` for reports); None: the command's own choice.
        verbosity: Number of -v.
        document: What the command knew when it failed; goes out beside the error.
        hint: What to do after the failure, for people.
        service: Makes what runs, undoes and cleans up migrations; None for the real one.
        connect: Opens a cloud by its name, given the state's directory; likewise.
    """

    config_path: Path | None = None
    state_url: str | None = None
    output: str | None = None
    verbosity: int = 0
    document: dict[str, Any] = field(default_factory=dict)
    hint: str = ""
    service: "Callable[[StateStore, Listener], Migrations] | None" = None
    connect: "Callable[[Path, str], Cloud] | None" = None

    @cached_property
    def config(self) -> config.Config:
        """The configuration file, read once."""
        return config.load(self.config_path, os.environ)

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the state in use."""
        return self.state_url or self.config.state

    @contextmanager
    def store(self) -> "Iterator[StateStore]":
        """The state, closed again afterwards; while its database is away, see `away.explained`."""
        from blockferry_controller.engine.away import explained
        from blockferry_controller.engine.state import StateStore

        self.start_logging()
        store = StateStore.open(self.url)
        try:
            with explained():
                yield store
        finally:
            store.close()

    @contextmanager
    def migrations(self, listener: Listener) -> "Iterator[Migrations]":
        """The service behind all commands that move, undo or clean up."""
        with self.store() as store:
            yield self.migrations_in(store, listener)

    def migrations_in(self, store: "StateStore", listener: Listener) -> "Migrations":
        """The same on a state that is open already."""
        if self.service is not None:
            return self.service(store, listener)
        from blockferry_controller.migration.service import Migrations
        from blockferry_controller.report.seal import seal

        return Migrations(store, partial(self.cloud, store.directory), _dial, listener, seal)

    def cloud(self, directory: Path, name: str) -> "Cloud":
        """The cloud of that name in clouds.yaml; LOCAL is this machine.

        Args:
            directory: The state's, below which this machine's instances live.
            name: As in clouds.yaml.

        Raises:
            NotFoundError: CLOUD_NOT_FOUND.
            AuthenticationError, UnreachableError: see the adapter.
        """
        if self.connect is not None:
            return self.connect(directory, name)
        if name == LOCAL:
            from blockferry_controller.clouds.local.cloud import LocalCloud

            return LocalCloud(directory / "local")
        from blockferry_controller.clouds.openstack import connect

        return connect(name, self.config.calls_for(name))

    def full_id(self, reference: str) -> str:
        """The id of the migration that `reference`, an id or its beginning, names.

        Raises:
            NotFoundError: MIGRATION_NOT_FOUND.
        """
        with self.store() as store:
            return store.get(reference).id

    def start_logging(self) -> None:
        """Log to standard error as far as -v asks for.

        Only our own loggers go below WARNING: openstacksdk's write whole
        requests, and user-data is one of them.
        """
        logging.basicConfig(
            stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
        )
        level = {0: logging.WARNING, 1: logging.INFO}.get(self.verbosity, logging.DEBUG)
        for name in ("blockferry", "blockferry_controller"):
            logging.getLogger(name).setLevel(level)
        if self.verbosity < 2:
            # It tells of a connection whose closing a signal cut short with a traceback;
            # what anybody needs to know is raised, too.
            logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)


def _dial(*arguments: Any, **options: Any) -> "Agent":
    """As agents.dial. gRPC is loaded by the first call: `copy` has agents come up meanwhile."""
    from blockferry_controller.agents.dial import dial

    return dial(*arguments, **options)
