"""How large the next instances are, by what copies took of those before."""

from typing import Any

import pytest

from blockferry.errors import CapacityError
from blockferry.limits import GIB, MIB
from blockferry_controller.clouds.port import Flavor
from blockferry_controller.migration.sizing import (
    TOLD_SECONDS,
    cores_used,
    cores_wanted,
    in_turn,
    next_flavor,
)


def effort(seconds: float, cpu_seconds: float, cpus: int = 2) -> dict[str, Any]:
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "cpus": cpus, "stages": []}


@pytest.mark.parametrize(
    ("seen", "used"),
    [
        pytest.param(effort(100, 50), 0.5, id="half of one"),
        pytest.param(effort(100, 190), 1.9, id="nearly two"),
        pytest.param(effort(TOLD_SECONDS, 5), 0.5, id="just long enough"),
        pytest.param(effort(TOLD_SECONDS - 0.1, 10), None, id="over at once"),
        pytest.param(effort(0, 0), None, id="no time at all"),
    ],
)
def test_what_a_copy_kept_busy(seen: dict[str, Any], used: float | None) -> None:
    assert cores_used(seen) == used


@pytest.mark.parametrize(
    ("used", "lanes", "wanted"),
    [
        pytest.param([], 4, 1, id="nothing is known"),
        pytest.param([0.0], 4, 1, id="nothing was busy"),
        pytest.param([0.75], 1, 1, id="a quarter is idle"),
        pytest.param([0.76], 1, 2, id="less is"),
        pytest.param([1.9, 2.0, 2.0], 1, 3, id="all of two"),
        pytest.param([2.5, 2.4, 2.6], 1, 4, id="well within four"),
        pytest.param([0.3, 0.4, 4.0], 1, 1, id="one odd volume"),
        pytest.param([0.6], 3, 3, id="a canary, before three lanes"),
    ],
)
def test_what_the_next_wants(used: list[float], lanes: int, wanted: int) -> None:
    assert cores_wanted(used, lanes) == wanted


def flavor(name: str, vcpus: int, ram_mib: int) -> Flavor:
    return Flavor(name, name, vcpus, ram_mib * MIB, 5 * GIB)


SIZES = [
    flavor("nano", 1, 512), flavor("small", 2, 1024), flavor("fat", 1, 2048),
    flavor("large", 4, 4096), flavor("huge", 8, 8192),
]  # fmt: skip


@pytest.mark.parametrize(
    ("cores", "turn"),
    [
        (1, ["nano", "small", "fat", "large", "huge"]),
        (2, ["small", "nano", "fat", "large", "huge"]),
        (3, ["large", "small", "nano", "fat", "huge"]),
        (8, ["huge", "large", "small", "nano", "fat"]),
        (64, ["huge", "large", "small", "nano", "fat"]),
    ],
)
def test_who_is_refused_asks_for_less(cores: int, turn: list[str]) -> None:
    assert [one.name for one in in_turn(SIZES, cores, 9)] == turn


@pytest.mark.parametrize(
    ("cores", "turn"),
    [
        (1, ["nano", "small", "fat"]),
        (3, ["large", "small", "nano"]),
        (9, ["huge", "large", "nano"]),
    ],
)
def test_the_smallest_is_tried_however_many_there_are(cores: int, turn: list[str]) -> None:
    """Volumes are admitted by what it takes: without it they would wait for quota for ever."""
    assert [one.name for one in in_turn(SIZES, cores, 3)] == turn


@pytest.mark.parametrize(
    ("reason", "following"),
    [
        ("NO_VALID_HOST", "fat"),
        ("QUOTA_CORES", "fat"),
        ("QUOTA_RAM_BYTES", "nano"),
        ("QUOTA_INSTANCES", None),
        ("QUOTA_GIGABYTES", None),
    ],
)
def test_what_is_tried_next(reason: str, following: str | None) -> None:
    small, others = SIZES[1], [SIZES[2], SIZES[0], SIZES[4]]
    found = next_flavor(small, others, CapacityError(reason, "no"))
    assert (found and found.name) == following


@pytest.mark.parametrize("reason", ["QUOTA_VOLUMES", "QUOTA_GIGABYTES"])
def test_where_no_volume_is_left_for_a_root_a_disk_is_tried(reason: str) -> None:
    rootless = Flavor("r", "rootless", 4, 4096 * MIB, 0)
    others = [Flavor("s", "small rootless", 2, 1024 * MIB, 0), SIZES[0]]
    assert next_flavor(rootless, others, CapacityError(reason, "no")) == SIZES[0]
