"""Checks with both devices in sight, and what the steps around them do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace

from blockferry.errors import BlockferryError, CapacityError, DeadlineError, ForbiddenError
from blockferry.limits import GIB, MIB
from blockferry.v1 import agent_pb2
from blockferry_controller.clouds.port import Flavor, VolumeType
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.authority import Authority
from blockferry_controller.migration.context import Context, need
from blockferry_controller.migration.prediction import Rates
from blockferry_controller.migration.preflight import BOOTED
from blockferry_controller.migration.preflight.check import (
    Check,
    Outcome,
    Warned,
    enforce,
    examine,
)
from blockferry_controller.migration.preflight.instances import place
from blockferry_controller.migration.preflight.network import join_network
from blockferry_controller.migration.preflight.quota import check_quota
from blockferry_controller.migration.steps.compare import CompareVolumes
from blockferry_controller.migration.steps.finish import HandOver
from blockferry_controller.migration.steps.instances import boot, make_port
from blockferry_controller.migration.steps.volume import MakeVolume
from tests.unit.controller.preflight.stage import Stage


@dataclass
class Disks:
    """As much of an agent as is asked here."""

    seen: Sequence[agent_pb2.BlockDevice]

    def list_block_devices(self) -> Sequence[agent_pb2.BlockDevice]:
        return self.seen


@pytest.fixture
def stage(store: StateStore) -> Stage:
    stage = Stage(store)
    stage.east.add_volume("data", 2 * GIB)
    return stage


def booted(stage: Stage, *, blocks: tuple[int, int] = (512, 512), size_gib: int = 2) -> Context:
    """Volumes are there, and each agent sees its own."""
    context = stage.context()
    context.source.volume = stage.east.find_volume("data")
    context.destination.volume = stage.west.add_volume("data", size_gib * GIB)
    for side, block_bytes in zip(context.sides, blocks, strict=True):
        root = agent_pb2.BlockDevice(path="/dev/vda", logical_block_bytes=512)
        device = agent_pb2.BlockDevice(
            path="/dev/vdb", serial=need(side.volume).id[:20], logical_block_bytes=block_bytes
        )
        side.agent = Disks([root, device])  # type: ignore[assignment]
    return context


def checks(context: Context) -> dict[str, Check]:
    return {check.name: check for check in examine(BOOTED, context)}


def test_all_is_well(stage: Stage) -> None:
    found = checks(booted(stage))
    assert {check.outcome for check in found.values()} == {Outcome.OK}
    assert found["block-size"].detail == "512 bytes on both sides"
    assert found["window"].detail == "not measured"


def test_other_blocks_make_partitions_unreadable(stage: Stage) -> None:
    context = booted(stage, blocks=(512, 4096))
    error = checks(context)["block-size"].error
    assert error is not None
    assert (error.reason, error.meaning.exit_code) == ("BLOCK_SIZE_DIFFERS", 12)
    context.spec = replace(context.spec, skip_checks=("block-size",))
    enforce(BOOTED, context)


def test_a_tail_is_told_with_the_command_that_helps(stage: Stage) -> None:
    enforce(BOOTED, booted(stage, size_gib=5))
    (warning,) = stage.warnings
    assert "3.00 GiB larger" in warning
    assert "if the source holds a GPT" in warning
    assert "sgdisk -e" in warning


@pytest.mark.parametrize(
    ("table", "aligned", "size_gib", "outcomes"),
    [
        ("GPT", 1 << 20, 5, (Outcome.OK, Outcome.WARN)),
        ("GPT", 1 << 20, 2, (Outcome.OK, Outcome.OK)),
        ("GPT", 512, 2, (Outcome.WARN, Outcome.OK)),
        ("MBR", 63 << 9, 5, (Outcome.WARN, Outcome.OK)),
        ("NONE", 0, 5, (Outcome.OK, Outcome.OK)),
    ],
)
def test_what_the_partition_table_tells(
    stage: Stage, table: str, aligned: int, size_gib: int, outcomes: tuple[Outcome, Outcome]
) -> None:
    context = booted(stage, size_gib=size_gib)
    context.source.look = agent_pb2.ProbeResult(
        partition_table=agent_pb2.PartitionTable.Value(f"PARTITION_TABLE_{table}"),
        partition_alignment_bytes=aligned,
    )
    found = checks(context)
    assert (found["alignment"].outcome, found["tail"].outcome) == outcomes


@pytest.mark.parametrize(("window", "fits"), [(0, True), (40, True), (39, False)])
def test_the_window(stage: Stage, window: int, fits: bool) -> None:
    stage.ask(max_duration_seconds=window)
    context = booted(stage)
    context.rates = Rates(2048 * MIB / 20, 1024 * MIB, 1024 * MIB)
    check = checks(context)["window"]
    assert (check.error is None) == fits
    assert "reading the source" in check.detail
    assert stage.store.get("m-1").facts["predicted_seconds"] == 40
    if not fits:
        assert isinstance(check.error, DeadlineError)
        assert check.error.reason == "WINDOW_TOO_SHORT"


def test_what_is_safe_already_takes_no_time(stage: Stage) -> None:
    stage.ask(max_duration_seconds=21)
    context = booted(stage)
    context.rates = Rates(2048 * MIB / 20, 1024 * MIB, 1024 * MIB)
    context.progress = replace(context.progress, committed_bytes=GIB)
    assert checks(context)["window"].error is None


# The new volume.


def made(stage: Stage, **changes: Any) -> Context:
    source = stage.east.find_volume("data")
    stage.east.volumes[source.id] = replace(source, **changes)
    context = stage.context()
    context.source.volume = stage.east.find_volume("data")
    return context


@pytest.mark.parametrize(
    ("attribute", "reason"),
    [("encrypted", "ENCRYPTION_LOST"), ("multiattach", "MULTIATTACH_LOST")],
)
def test_a_volume_that_turned_out_less_is_refused_before_any_byte(
    stage: Stage, attribute: str, reason: str
) -> None:
    context = made(stage, **{attribute: True})
    with pytest.raises(BlockferryError) as caught:
        MakeVolume().do(context)
    assert (caught.value.reason, caught.value.meaning.exit_code) == (reason, 12)
    MakeVolume().undo(context, resumable=False)
    assert not stage.west.volumes

    context.spec = replace(context.spec, allow_downgrade=True)
    MakeVolume().do(context)
    stage.west.kinds["fast"] = VolumeType("fast", "fast", encrypted=True, multiattach=True)
    MakeVolume().undo(context, resumable=False)
    context.spec = replace(context.spec, allow_downgrade=False, to_type="fast")
    MakeVolume().do(context)
    assert getattr(need(context.destination.volume), attribute)


@pytest.mark.parametrize(
    ("looked", "kind", "zone"),
    [(True, "fast", "cellar"), (False, "standard", "nova")],
    ids=["as preflight chose", "preflight did not look"],
)
def test_type_and_zone_of_the_new_volume(stage: Stage, looked: bool, kind: str, zone: str) -> None:
    stage.west.zones += ["cellar"]
    context = made(stage)
    if looked:
        context.destination.volume_type = VolumeType("fast", "fast")
        context.destination.availability_zone = "cellar"
    MakeVolume().do(context)
    volume = need(context.destination.volume)
    assert (volume.volume_type, volume.availability_zone) == (kind, zone)


# Afterwards.


def test_a_read_only_volume_becomes_read_only_and_all_is_compared(stage: Stage) -> None:
    context = made(stage, read_only=True, metadata={"owner": "ann"}, description="of the shop")
    before = stage.east.find_volume("data")
    MakeVolume().do(context)
    assert not need(context.destination.volume).read_only, "it is to be written first"

    assert CompareVolumes().do(context) == "all equal"
    HandOver().do(context)

    there = stage.west.find_volume("data")
    assert (there.read_only, there.description, there.metadata) == (
        True,
        "of the shop",
        {"owner": "ann"},
    )
    assert stage.store.get("m-1").facts["not_carried"] == []
    assert stage.east.find_volume("data") == before


def test_what_was_not_carried_is_remembered_and_told_once(stage: Stage) -> None:
    context = made(stage, read_only=True, metadata={"owner": "ann"})
    MakeVolume().do(context)
    volume = need(context.destination.volume)
    stage.west.volumes[volume.id] = replace(volume, metadata={}, name="renamed")
    stage.west.fail("set_read_only", ForbiddenError("CLOUD_FORBIDS", "not you"))

    assert CompareVolumes().do(context) == "not carried: name, read_only, metadata.owner"

    remembered = stage.store.get("m-1").facts["not_carried"]
    assert [one["name"] for one in remembered] == ["name", "read_only", "metadata.owner"]
    told = " ".join(stage.warnings)
    assert "not you" in told
    assert "metadata.owner (ann becomes nothing" in told


# Flavors that the cloud refuses.


SIZES = [
    Flavor("1", "nano", 2, 512 * MIB, 3 * GIB),
    Flavor("2", "small", 2, 1024 * MIB, 5 * GIB),
    Flavor("3", "thin", 1, 2048 * MIB, 5 * GIB),
    Flavor("4", "large", 4, 4096 * MIB, 5 * GIB),
]


@pytest.mark.parametrize(
    ("left", "taken", "told"),
    [
        pytest.param({}, "large", "", id="quota enough"),
        pytest.param({"cores": 3}, "nano", "with nano, not with large", id="too few cores"),
        pytest.param({"cores": 1}, "thin", "with thin, not with large", id="one core"),
        pytest.param({"ram_bytes": GIB}, "nano", "with nano, not with large", id="little memory"),
    ],
)
def test_a_pair_is_as_large_as_copies_want_and_the_quota_leaves(
    stage: Stage, left: dict[str, int], taken: str, told: str
) -> None:
    stage.west.flavors = SIZES
    stage.west.quotas = {**stage.west.quotas, **left}
    context = stage.context()
    context.destination.volume_type = VolumeType("", "")
    context.source.volume = stage.east.find_volume("data")
    join_network(context.destination)
    told_of = place(context.destination, cores=3)
    assert told_of == "large, 3 vCPUs or more by what copies before took, debian-12"
    found = check_quota(context, context.destination)
    assert need(context.destination.flavor).name == taken
    assert told in (found.detail if isinstance(found, Warned) else "")
    assert isinstance(found, Warned) == bool(told)


def ready_to_boot(stage: Stage, *, wanted: str = "") -> Context:
    stage.west.flavors = SIZES[:3]
    stage.place(flavor=wanted)
    context = stage.context()
    place(context.destination)
    join_network(context.destination)
    context.authority = Authority.create("m-1")
    make_port(context, context.destination)
    return context


@pytest.mark.parametrize(("reason", "taken"), [("NO_VALID_HOST", "small"), ("QUOTA_CORES", "thin")])
def test_a_refused_flavor_gives_way_to_the_next(stage: Stage, reason: str, taken: str) -> None:
    context = ready_to_boot(stage)
    stage.west.fail("ensure_server", CapacityError(reason, "no"))
    boot(context, context.destination)
    assert need(context.destination.flavor).name == taken
    (server,) = stage.west.servers.values()
    assert server.request.flavor_id == need(context.destination.flavor).id
    assert "refuses flavor nano" in stage.warnings[0]


@pytest.mark.parametrize(
    ("reason", "wanted", "times"),
    [("QUOTA_INSTANCES", "", 1), ("NO_VALID_HOST", "small", 1), ("NO_VALID_HOST", "", 9)],
    ids=["no flavor helps", "named by the user", "none is left"],
)
def test_when_no_other_flavor_is_tried(stage: Stage, reason: str, wanted: str, times: int) -> None:
    context = ready_to_boot(stage, wanted=wanted)
    stage.west.fail("ensure_server", CapacityError(reason, "no"), times=times)
    with pytest.raises(CapacityError) as caught:
        boot(context, context.destination)
    assert caught.value.reason == reason
    assert not stage.west.servers
