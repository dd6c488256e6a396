"""A cloud's API is away for longer than it is waited for, whatever the migration is doing.

Bytes go from agent to agent: while they do, no cloud is needed. Everywhere else a run
ends, with 16, when an API has been away for as long as the adapter tries; nothing is
lost by that, and the next run leaves nothing. Every call of every step is in the fault
matrix (`away`); here it is the real adapter, and agents that move real bytes.
"""

import json
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from blockferry import __version__
from blockferry.errors import UnreachableError
from blockferry.limits import GIB, MIB
from blockferry_controller.agents.dial import dial
from blockferry_controller.clouds.openstack.cloud import OpenStackCloud
from blockferry_controller.clouds.openstack.session import open_session
from blockferry_controller.clouds.openstack.waiting import Patience
from blockferry_controller.engine.state import StateStore
from blockferry_controller.events import Event, StepStarted
from blockferry_controller.migration.asking import Asking
from blockferry_controller.migration.service import Migrations
from blockferry_controller.spec import Endpoint, Kind, Spec
from tests.sim import EmbeddedCloud, EmbeddedClouds
from tests.torture.embedded import differs_at, empty, fill, left_in
from tests.torture.runs import environment, start

pytestmark = pytest.mark.timeout(240)

DATA_MIB = 24
ANSWER_SECONDS = 30.0
"""A word has its effect in two; an outage is sat out for 120."""


@pytest.fixture(scope="module")
def clouds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedClouds]:
    directory = tmp_path_factory.mktemp("clouds")
    with EmbeddedClouds(directory, prepared_version=__version__) as clouds:
        yield clouds
        assert clouds.east.problems == clouds.west.problems == []


@pytest.fixture
def source_id(clouds: EmbeddedClouds) -> Iterator[str]:
    yield clouds.east.make_volume("data", 1, fill(random.Random(7), DATA_MIB))
    empty(clouds)


def go_away(cloud: EmbeddedCloud) -> None:
    cloud.requests.clear()
    cloud.faults.fail("", ".", status=503, times=None)


def assert_moved(clouds: EmbeddedClouds, source_id: str, result: dict[str, Any]) -> None:
    assert (result["state"], result["verified"]) == ("SUCCEEDED", True)
    destination = clouds.west.volume_path(result["destination_volume_id"])
    assert not differs_at(clouds.east.volume_path(source_id), destination)
    assert (left_in(clouds.east), left_in(clouds.west)) == ("", "")


def wait_for_data(process: "subprocess.Popen[str]", data_bytes: int) -> str:
    """Listen until so much has arrived; the migration's id."""
    assert process.stderr is not None
    for line in process.stderr:
        event = json.loads(line) if line.startswith("{") else {}
        if event.get("data_bytes", 0) >= data_bytes:
            return str(event["migration_id"])
    raise AssertionError(process.stdout and process.stdout.read())


def test_bytes_flow_and_words_are_heard_while_no_cloud_answers(
    clouds: EmbeddedClouds, source_id: str, tmp_path: Path
) -> None:
    known = environment(tmp_path, OS_CLIENT_CONFIG_FILE=str(clouds.clouds_yaml))
    migrate = ["migrate", "data", "--from", "east", "--to", "west", "--limit", "3MiB/s"]
    with (
        closing(StateStore.open(known["BLOCKFERRY_STATE"])) as store,
        start(migrate, tmp_path, known) as process,
    ):
        try:
            _pause_while_away(clouds, Asking(store, answer_seconds=ANSWER_SECONDS), process)
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0, err
    result = json.loads(out)
    assert_moved(clouds, source_id, result)
    assert (result["epoch"], result["sent_bytes"]) == (1, DATA_MIB * MIB)


def _pause_while_away(
    clouds: EmbeddedClouds, asking: Asking, process: "subprocess.Popen[str]"
) -> None:
    own = wait_for_data(process, 1)
    for cloud in (clouds.east, clouds.west):
        go_away(cloud)
    assert asking.pause(own).answered_at is not None
    # A job that tells nothing new makes the controller ask whether its instance is there.
    deadline = time.monotonic() + 90
    while not clouds.east.requests and not clouds.west.requests:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert asking.go_on(own).answered_at is not None
    wait_for_data(process, (DATA_MIB - 2) * MIB)
    for cloud in (clouds.east, clouds.west):
        cloud.faults.clear()


@pytest.mark.parametrize(
    ("step", "side", "committed"),
    [
        pytest.param("volume", "west", 0, id="before anything is there"),
        pytest.param("copy", "east", GIB, id="from the copy on, source"),
        pytest.param("copy", "west", GIB, id="from the copy on, destination"),
        pytest.param("delete", "west", GIB, id="when all is copied"),
    ],
)
def test_an_api_that_stays_away_ends_the_run_and_costs_nothing(
    clouds: EmbeddedClouds, source_id: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, step: str, side: str, committed: int,
) -> None:  # fmt: skip
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(clouds.clouds_yaml))
    struck: EmbeddedCloud = getattr(clouds, side)

    def listen(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == step:
            go_away(struck)

    def connect(name: str) -> OpenStackCloud:
        return OpenStackCloud(open_session(name), Patience(outage_seconds=1.0))

    spec = Spec(Kind.MIGRATE, Endpoint("east", "data"), Endpoint("west"))
    with closing(StateStore.open(f"sqlite:///{tmp_path}/state.db")) as store:
        migrations = Migrations(store, connect, dial, listen)
        own = migrations.create(spec).id
        with pytest.raises(UnreachableError) as caught:
            migrations.run(own)
        assert (caught.value.reason, caught.value.meaning.exit_code) == ("CLOUD_FAILS", 16)
        assert store.get(own).state == "FAILED"
        assert store.get(own).progress.committed_bytes == committed

        struck.faults.clear()
        record = Migrations(store, connect, dial, lambda _event: None).run(own)
    assert record.result is not None
    assert_moved(clouds, source_id, record.result)
    assert record.result["sent_bytes"] == (0 if committed else DATA_MIB * MIB)
    assert list((tmp_path / "authorities").iterdir()) == []
