"""What a new volume may lack of the old one: a row per attribute."""

import pytest
from msgspec.structs import replace

from blockferry.limits import GIB
from blockferry_controller.clouds.port import Volume, VolumeType
from blockferry_controller.migration.fidelity import Wish, compare, foresee, told
from blockferry_controller.spec import Endpoint, Kind, Spec

SOURCE = Volume(
    id="s", name="root", description="of the shop", size_bytes=2 * GIB, status="available",
    volume_type="ssd", availability_zone="az1", bootable=True, read_only=True, encrypted=True,
    multiattach=True, metadata={"owner": "ann"}, image_metadata={"hw_disk_bus": "scsi"},
    attachments=(),
)  # fmt: skip
SAME = replace(SOURCE, id="d", size_bytes=3 * GIB, metadata={"owner": "ann", "more": "is fine"})
SPEC = Spec(Kind.MIGRATE, Endpoint("east", "root"), Endpoint("west"))


def names(found: Volume, spec: Spec = SPEC, source: Volume = SOURCE) -> list[str]:
    return [one.name for one in compare(source, found, Wish.of(spec, source))]


def test_like_the_source() -> None:
    assert names(SAME) == []


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"name": "other"}, "name"),
        ({"description": ""}, "description"),
        ({"size_bytes": GIB}, "size"),
        ({"volume_type": "hdd"}, "volume_type"),
        ({"availability_zone": "az2"}, "availability_zone"),
        ({"bootable": False}, "bootable"),
        ({"read_only": False}, "read_only"),
        ({"encrypted": False}, "encrypted"),
        ({"multiattach": False}, "multiattach"),
        ({"metadata": {}}, "metadata.owner"),
        ({"metadata": {"owner": "bob"}}, "metadata.owner"),
        ({"image_metadata": {}}, "image_metadata.hw_disk_bus"),
    ],
)
def test_what_is_lost_is_named(changes: dict[str, object], lost: str) -> None:
    assert names(replace(SAME, **changes)) == [lost]


def test_what_was_asked_for_is_no_loss() -> None:
    spec = replace(
        SPEC,
        destination=Endpoint("west", "root-2"),
        to_type="hdd",
        zones={"az1": "az2"},
    )
    found = replace(SAME, name="root-2", volume_type="hdd", availability_zone="az2")
    assert names(found, spec) == []
    assert names(SAME, spec) == ["name"], "the name asked for is what counts"


def test_more_than_the_source_has_is_no_loss() -> None:
    plain = replace(SOURCE, bootable=False, read_only=False, encrypted=False, multiattach=False)
    assert names(SAME, source=plain) == []


def test_our_own_tag_is_not_the_users() -> None:
    assert names(SAME, source=replace(SOURCE, metadata={"blockferry_migration": "m-1"})) == []


def test_the_size_asked_for_is_what_counts() -> None:
    assert names(SAME, replace(SPEC, to_size_bytes=4 * GIB)) == ["size"]


@pytest.mark.parametrize(
    ("kind", "zone", "lost"),
    [
        (VolumeType("1", "ssd", encrypted=True, multiattach=True), "az1", []),
        (VolumeType("1", "ssd"), "az1", []),
        (VolumeType("", ""), "", ["volume_type", "availability_zone"]),
        (VolumeType("1", "ssd", encrypted=False, multiattach=False), "az1",
         ["encrypted", "multiattach"]),
        (None, "az1", []),
    ],
    ids=["offers all", "does not tell", "default", "offers less", "not looked at"],
)  # fmt: skip
def test_what_will_be_lost_is_known_before(
    kind: VolumeType | None, zone: str, lost: list[str]
) -> None:
    wish = Wish.of(SPEC, SOURCE)
    expected = foresee(SOURCE, wish, kind, zone)
    assert [one.name for one in compare(SOURCE, expected, wish)] == lost


def test_a_difference_is_told_with_both_values_and_the_reason() -> None:
    source = replace(SOURCE, image_metadata={"cinder_encryption_key_id": "k-1"})
    wish = Wish.of(SPEC, source)
    (lost,) = compare(source, foresee(source, wish, None, "az1"), wish)
    assert lost.to_json() == {
        "name": "image_metadata.cinder_encryption_key_id",
        "source": "k-1",
        "destination": "",
        "reason": "of use in its own cloud only",
    }
    assert lost.text.startswith("image_metadata.cinder_encryption_key_id (k-1 becomes nothing: of")


def test_image_metadata_that_stays_is_told_together() -> None:
    image = {"image_id": "i", "checksum": "c", "cinder_encryption_key_id": "k", "os_type": "linux"}
    source = replace(SOURCE, image_metadata=image)
    found = replace(SAME, image_metadata={"os_type": "other"}, description="")
    assert told(compare(source, found, Wish.of(SPEC, source))) == (
        "description (of the shop becomes nothing: the cloud did not keep it); "
        "image_metadata.os_type (linux becomes other: the cloud did not take it); "
        "image metadata checksum, image_id (said of the image, not of the volume); "
        "image metadata cinder_encryption_key_id (of use in its own cloud only)"
    )
