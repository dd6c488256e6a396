"""Which volumes a fleet means, and what they become."""

import json
from typing import Any

import pytest

from blockferry.limits import GIB
from blockferry_controller.clouds.port import MIGRATION_KEY, Attachment
from blockferry_controller.fleet.grammar import read_fleet
from blockferry_controller.fleet.mapping import becomes
from blockferry_controller.fleet.selection import override_of, select
from blockferry_controller.fleet.spec import Fleet
from tests.fakes.cloud import MemoryCloud


def fleet(**keys: Any) -> Fleet:
    least = {"fleet": "f", "from": "east", "to": "west", "select": {"names": "*"}}
    return read_fleet(json.dumps({**least, **keys}), "fleet.yaml")


@pytest.fixture
def cloud() -> MemoryCloud:
    cloud = MemoryCloud("east")
    cloud.add_volume("db-1", 10 * GIB, metadata={"tier": "gold"}, volume_type="ssd")
    cloud.add_volume("db-2", 20 * GIB, metadata={"tier": "silver"}, volume_type="ssd-fast")
    cloud.add_volume("web", 5 * GIB, volume_type="hdd", project_id="p-2")
    cloud.add_volume("used", attachments=(Attachment("server-1", ""),), status="in-use")
    cloud.add_volume("ours", metadata={MIGRATION_KEY: "m-1"})
    return cloud


def names(cloud: MemoryCloud, **keys: Any) -> list[str]:
    found = select(fleet(**keys), cloud.list_volumes())
    assert not found.missing
    return [volume.name for volume in found.volumes]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"names": "*"}, ["db-1", "db-2", "web", "used"]),
        ({"names": ["db-*", "web"]}, ["db-1", "db-2", "web"]),
        ({"names": "DB-*"}, []),
        ({"types": "ssd*"}, ["db-1", "db-2"]),
        ({"types": "ssd"}, ["db-1"]),
        ({"metadata": {"tier": "*"}}, ["db-1", "db-2"]),
        ({"metadata": {"tier": "gold"}, "names": "db-*"}, ["db-1"]),
        ({"size": {"min": "10GiB", "max": "10GiB"}}, ["db-1"]),
        ({"projects": "p-2"}, ["web"]),
        ({"instances": "server-1"}, ["used"]),
        ({"names": "web", "types": "ssd"}, []),
    ],
)
def test_a_condition_narrows(
    cloud: MemoryCloud, condition: dict[str, Any], expected: list[str]
) -> None:
    assert names(cloud, select=condition) == expected


def test_an_id_or_a_name_is_enough(cloud: MemoryCloud) -> None:
    web = cloud.find_volume("web").id
    assert names(cloud, select={"ids": web, "names": "db-1"}) == ["db-1", "web"]


def test_any_exclusion_excludes(cloud: MemoryCloud) -> None:
    out = [{"names": "web"}, {"metadata": {"tier": "gold"}, "types": "ssd"}]
    assert names(cloud, exclude=out) == ["db-2", "used"]


def test_what_is_named_and_not_there_is_told(cloud: MemoryCloud) -> None:
    asked = fleet(
        select={"ids": "no-such-id", "names": ["nobody", "none-*", "web"], "instances": "s-9"},
        volumes={"gone": {"priority": 1}},
    )
    missing = select(asked, cloud.list_volumes()).missing
    assert [one.split(":")[0] for one in missing] == [
        "select.ids",
        "select.names",
        "select.instances",
        "volumes",
    ]


TYPES = {
    "rules": [
        {"match": "ssd*", "to": "premium", "where": {"metadata": {"tier": "gold"}}},
        {"match": "ssd*", "to": "{type}-{zone}"},
    ],
    "unmapped": "fail",
}


@pytest.mark.parametrize(
    ("volume", "value", "by"),
    [
        ("db-1", "premium", "map.type.rules[0]: ssd* -> premium"),
        ("db-2", "ssd-fast-nova", "map.type.rules[1]: ssd* -> {type}-{zone}"),
        ("web", "", "map.type.unmapped"),
    ],
)
def test_the_first_rule_that_matches_wins(
    cloud: MemoryCloud, volume: str, value: str, by: str
) -> None:
    asked, found = fleet(map={"type": TYPES}), cloud.find_volume(volume)
    mapped = becomes(asked, found, override_of(asked, found)).type
    assert (mapped.value, mapped.by) == (value, by)
    assert bool(mapped.refused) == (volume == "web")


def test_an_override_is_stronger_than_rules(cloud: MemoryCloud) -> None:
    web = cloud.find_volume("web")
    said = {"web": {"type": "by-name"}, web.id: {"type": "by-id", "metadata": {"a": "b"}}}
    asked = fleet(map={"type": TYPES}, volumes=said)
    found = becomes(asked, web, override_of(asked, web))
    assert (found.type.value, found.type.by) == ("by-id", "override")
    assert found.metadata == {"a": "b"}


def test_a_name_that_looks_like_a_field_is_a_name(cloud: MemoryCloud) -> None:
    odd = cloud.add_volume("{id}")
    asked = fleet(map={"name": {"rules": [{"match": "*", "to": "{name}-new"}]}})
    assert becomes(asked, odd, override_of(asked, odd)).name.value == "{id}-new"


def test_metadata_is_kept_dropped_renamed_and_added(cloud: MemoryCloud) -> None:
    volume = cloud.add_volume("v", metadata={"owner": "ann", "internal:x": "1", "kept": "2"})
    rules = [
        {"match": "internal:*", "drop": True},
        {"match": "owner", "to": "old-{key}", "value": "{value} of {name}"},
    ]
    asked = fleet(map={"metadata": {"rules": rules, "set": {"from": "{id}"}}})
    found = becomes(asked, volume, override_of(asked, volume)).metadata
    assert found == {"old-owner": "ann of v", "kept": "2", "from": volume.id}
    assert becomes(fleet(), volume, override_of(fleet(), volume)).metadata is None
