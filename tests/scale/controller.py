"""A controller between the two clouds of a world: `python -m tests.scale.controller SOCKET …`.

What follows is a command line of `blockferry`. Clouds and agents are the world's; all else is
as ever, the patience of the adapter for OpenStack with its clouds included.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from blockferry.identity import Identity
from blockferry.v1 import agent_pb2
from blockferry_controller.__main__ import main as blockferry
from blockferry_controller.agents.port import Agent
from blockferry_controller.cli.session import Session
from blockferry_controller.clouds.openstack.waiting import Patience
from blockferry_controller.clouds.port import Cloud
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Listener
from blockferry_controller.migration.service import Migrations
from blockferry_controller.migration.steps.jobs import FINAL
from blockferry_controller.report.seal import seal
from tests.scale.wire import Caller
from tests.scale.world import Speaker


class RemoteCloud:
    """A cloud of the world, with the patience of our adapter."""

    def __init__(self, call: Caller, name: str) -> None:
        self._call, self.name, self.identity = call, name, f"memory:{name}"
        self._patience = Patience()

    def __getattr__(self, verb: str) -> Any:
        def ask(*arguments: object, **named: object) -> Any:
            return self._patience.through_outages(
                lambda: self._call("cloud", self.name, verb, arguments, named)
            )

        return ask

    def close(self) -> None:
        """There is nothing to close."""


class RemoteAgent:
    """An agent of the world."""

    def __init__(self, call: Caller, address: str, bootstrap: bool, who: Speaker) -> None:
        self._call, self._address, self._bootstrap, self._who = call, address, bootstrap, who

    def __getattr__(self, verb: str) -> Any:
        def ask(*arguments: Any) -> Any:
            return self._call("agent", self._address, self._bootstrap, self._who, verb, arguments)

        return ask

    def write_manifest(self, transfer_id: str, runs: Iterator[tuple[int, bytes]]) -> Any:
        return self.__getattr__("write_manifest")(transfer_id, list(runs))

    def update_job(self, job_id: str, **wanted: Any) -> Any:
        return self._call("steer", self._address, self._who, job_id, wanted)

    def watch_job(self, job_id: str, interval_seconds: float) -> Iterator[agent_pb2.Job]:
        """A stream is asked for again and again: a socket of ours carries calls only."""
        last = None
        while True:
            job = self.__getattr__("get_job")(job_id)
            if job != last:
                last = job
                yield job
            if job.state in FINAL:
                return
            time.sleep(interval_seconds)

    def close(self) -> None:
        """Connections are the caller's."""


def main() -> int:
    """Run the command between the world's clouds; its exit code."""
    call = Caller(Path(sys.argv[1]))

    def connect(name: str) -> Cloud:
        return cast("Cloud", RemoteCloud(call, name))

    def dial(
        address: str,
        identity: Identity,
        credentials: object,
        root_pem: bytes,
        *,
        bootstrap: bool = False,
        patient: bool = True,
    ) -> Agent:
        who = Speaker(identity.migration_id, identity.epoch, os.getpid())
        return cast("Agent", RemoteAgent(call, address, bootstrap, who))

    def service(store: StateStore, listener: Listener) -> Migrations:
        return Migrations(store, connect, dial, listener, seal)

    sys.argv = ["blockferry", *sys.argv[2:]]
    return blockferry(session=Session(service=service, connect=lambda _, name: connect(name)))


if __name__ == "__main__":
    sys.exit(main())
