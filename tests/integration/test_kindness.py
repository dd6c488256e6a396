"""How often a cloud is asked: rates, pauses that it asks for, one list for many who wait."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest

from blockferry.limits import GIB
from blockferry_controller.clouds.openstack import connect
from blockferry_controller.clouds.openstack import lookout as lookout_module
from blockferry_controller.clouds.openstack.cloud import OpenStackCloud
from blockferry_controller.clouds.port import Tag, VolumeRequest
from blockferry_controller.config import CallRates
from tests.sim import EmbeddedCloud, Timings

WAITERS = 30
CREATION_SECONDS = 8.0
SLOW = Timings(volume_create=CREATION_SECONDS, volume_delete=0.05)
PLENTY = {"volumes": 200, "gigabytes": 10_000}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCloud]:
    directory: Path = tmp_path_factory.mktemp("clouds")
    with EmbeddedCloud("kind", directory, timings=SLOW, quotas=PLENTY) as cloud:
        yield cloud
        assert cloud.problems == []


@pytest.fixture(autouse=True)
def quiet(embedded: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(embedded.clouds_yaml))
    yield
    embedded.faults.clear()


@pytest.fixture
def cloud(embedded: EmbeddedCloud) -> Iterator[OpenStackCloud]:
    with closing(connect("kind")) as adapter:
        adapter.access()
        embedded.requests.clear()
        yield adapter


def asked(embedded: EmbeddedCloud, ending: str) -> int:
    """How many GETs of that kind were answered."""
    return sum(verb == "GET" and path.endswith(ending) for _, verb, path, _ in embedded.requests)


def at_once(*calls: Callable[[], object]) -> list[object]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("shared", [True, False], ids=["one-list", "without-it"])
def test_many_who_wait_are_served_by_one_list(
    embedded: EmbeddedCloud,
    cloud: OpenStackCloud,
    monkeypatch: pytest.MonkeyPatch,
    *,
    shared: bool,
) -> None:
    if not shared:
        monkeypatch.setattr(lookout_module, "FEW", WAITERS)

    def make(number: int) -> object:
        tag = Tag(f"m-{shared}-{number}", "destination-volume")
        return cloud.ensure_volume(tag, VolumeRequest(f"v{number}", "", GIB)).status

    made = at_once(*[lambda number=number: make(number) for number in range(WAITERS)])

    assert made == ["available"] * WAITERS
    # The last look, and one or two that were due before the list had anything to compare with.
    each = asked_by_id(embedded) / WAITERS
    assert each <= 2.5 if shared else each > 4


def asked_by_id(embedded: EmbeddedCloud) -> int:
    return sum(
        verb == "GET" and "/volumes/" in path and not path.endswith("/detail")
        for _, verb, path, _ in embedded.requests
    )


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_asks_for_time_is_left_alone_by_all(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, status: int, form: str
) -> None:
    until = datetime.now(timezone.utc) + timedelta(seconds=3)
    told = {"seconds": "2", "date": format_datetime(until, usegmt=True)}[form]
    embedded.faults.fail("GET", "/types", status=status, headers={"Retry-After": told})
    first = threading.Thread(target=cloud.list_volume_types)
    first.start()
    while not embedded.requests:
        time.sleep(0.01)
    time.sleep(0.1)
    begun_at = time.monotonic()
    assert cloud.list_flavors(), "another service is none of its business"
    assert time.monotonic() - begun_at < 1
    cloud.list_volume_zones()
    assert time.monotonic() - begun_at > 1, "told to one, kept by all"
    first.join()
    refused = [path for _, _, path, code in embedded.requests if code == status]
    assert len(refused) == 1


def test_a_rate_is_kept_by_all_threads(embedded: EmbeddedCloud) -> None:
    with closing(connect("kind", CallRates(block_storage=10.0))) as cloud:
        cloud.list_flavors()
        embedded.requests.clear()
        begun_at = time.monotonic()
        at_once(*[cloud.list_volume_zones] * 40)
        took = time.monotonic() - begun_at
    assert asked(embedded, "/os-availability-zone") == 40
    # Twenty are saved up, the others come at ten a second.
    assert 1.8 < took < 8


def test_many_threads_keep_their_connections(
    embedded: EmbeddedCloud, cloud: OpenStackCloud, caplog: pytest.LogCaptureFixture
) -> None:
    """Or urllib3 says so, for each that is opened for one call and thrown away."""
    embedded.faults.delay("GET", "/os-availability-zone", seconds=0.5, times=None)
    at_once(*[cloud.list_volume_zones] * 30)
    assert "pool is full" not in caplog.text
