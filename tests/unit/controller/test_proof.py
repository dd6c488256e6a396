"""A sink that ends well without proof, or with another root, is no success."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from blockferry.errors import IntegrityError, UnreachableError
from blockferry.identity import Role
from blockferry.v1 import agent_pb2
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.service import Migrations
from blockferry_controller.migration.steps.jobs import FINAL
from blockferry_controller.spec import Endpoint, Kind, Spec, Transfer, Verify
from tests.torture.clouds import plain_engine
from tests.torture.world import World


class Careless:
    """A sink that tells of its end what it is given to tell, and does the rest as it should."""

    def __init__(self, agent: Any, told: agent_pb2.Job) -> None:
        self._agent, self._told = agent, told

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._agent, verb)

    def watch_job(self, job_id: str, interval_seconds: float) -> Iterator[agent_pb2.Job]:
        for job in self._agent.watch_job(job_id, interval_seconds):
            if job.state == agent_pb2.JOB_STATE_SUCCEEDED and job.root_digest:
                job.verified = self._told.verified
                job.root_digest = self._told.root_digest or job.root_digest
            yield job


def migrate(place: Path, told: agent_pb2.Job, verify: Verify) -> dict[str, Any]:
    world = World()

    def dial(address: str, identity: Any, *rest: Any, **named: Any) -> Any:
        agent = world.dial(address, identity, *rest, **named)
        return Careless(agent, told) if identity.role is Role.SINK else agent

    with closing(StateStore.open(f"sqlite:///{place}/state.db")) as store, plain_engine():
        migrations = Migrations(store, world.connect, dial, lambda event: None)
        spec = Spec(
            Kind.MIGRATE,
            Endpoint("source", world.volume.id),
            Endpoint("destination"),
            Transfer(verify=verify),
            controller_address="192.0.2.1",
        )
        record = migrations.run(migrations.create(spec).id)
        return record.result or {}


def test_without_a_verdict_there_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as caught:
        migrate(tmp_path, agent_pb2.Job(verified=False), Verify.READBACK)
    assert caught.value.reason == "UNPROVEN"
    assert caught.value.meaning.exit_code == 20


def test_another_root_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError) as caught:
        migrate(tmp_path, agent_pb2.Job(verified=True, root_digest=b"x" * 32), Verify.READBACK)
    assert caught.value.reason == "ROOT_MISMATCH"


def test_who_asked_for_no_proof_gets_none(tmp_path: Path) -> None:
    result = migrate(tmp_path, agent_pb2.Job(verified=False), Verify.WIRE)
    assert (result["state"], result["verified"]) == ("SUCCEEDED", False)


class Fleeting:
    """A connection that breaks with the last word of each job."""

    def __init__(self, agent: Any) -> None:
        self._agent = agent

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._agent, verb)

    def watch_job(self, job_id: str, interval_seconds: float) -> Iterator[agent_pb2.Job]:
        for job in self._agent.watch_job(job_id, interval_seconds):
            yield job
            if job.state in FINAL and job.root_digest:
                raise UnreachableError("AGENT_UNREACHABLE", "the stream broke")


def test_a_stream_that_breaks_after_the_verdict_costs_nothing(tmp_path: Path) -> None:
    world = World()

    def dial(*arguments: Any, **named: Any) -> Any:
        return Fleeting(world.dial(*arguments, **named))

    with closing(StateStore.open(f"sqlite:///{tmp_path}/state.db")) as store, plain_engine():
        migrations = Migrations(store, world.connect, dial, lambda event: None)
        spec = Spec(
            Kind.MIGRATE,
            Endpoint("source", world.volume.id),
            Endpoint("destination"),
            controller_address="192.0.2.1",
        )
        record = migrations.run(migrations.create(spec).id)
    assert record.state == "SUCCEEDED"
    assert all(cloud.verbs.count("ensure_server") == 1 for cloud in world.clouds.values())
    assert world.leftovers() == []
