import os
from pathlib import Path

import pytest

from blockferry.errors import AuthenticationError, NotFoundError, UnreachableError
from blockferry_controller.clouds.port import Cloud, Tag, VolumeRequest
from blockferry_controller.doctor import cloud, machine
from blockferry_controller.doctor.finding import Finding
from blockferry_controller.spec import Placement
from tests.fakes.cloud import MemoryCloud


def examined(east: MemoryCloud, placement: Placement | None = None) -> dict[str, Finding]:
    findings = cloud.examine("east", lambda name: east, placement or Placement())
    return {finding.name.removeprefix("east: "): finding for finding in findings}


def test_a_cloud_that_will_do_passes() -> None:
    findings = examined(MemoryCloud("east"))

    assert list(findings) == [
        "authentication", "image", "flavor", "network", "quota", "leftovers"
    ]  # fmt: skip
    assert {finding.outcome for finding in findings.values()} == {"ok"}
    assert "10 instances" in findings["quota"].detail


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("CLOUD_NOT_FOUND", "no cloud east"),
        AuthenticationError("REFUSED", "wrong password"),
        UnreachableError("DOWN", "no answer"),
    ],
    ids=lambda error: error.reason,
)
def test_without_a_connection_nothing_else_is_asked(error: Exception) -> None:
    def connect(name: str) -> Cloud:
        raise error

    findings = list(cloud.examine("east", connect, Placement()))

    assert [(found.name, found.outcome) for found in findings] == [("east: authentication", "fail")]
    assert findings[0].error is error


def test_what_nothing_suits_is_named_and_the_rest_still_looked_at() -> None:
    findings = examined(MemoryCloud("east"), Placement(image="nix", network="nix"))

    assert findings["image"].outcome == findings["network"].outcome == "fail"
    assert findings["image"].error is not None
    assert findings["image"].error.reason == "IMAGE_NOT_FOUND"
    assert "flavor" not in findings, "which flavor fits depends on the image"
    assert findings["quota"].outcome == "ok"


def test_a_used_up_quota_fails_and_leftovers_warn() -> None:
    east = MemoryCloud("east", quotas={"volumes": 1, "gigabytes": 1})
    east.ensure_volume(Tag("m1", "destination-volume"), VolumeRequest("x", "", 1 << 30))

    findings = examined(east)

    assert findings["quota"].outcome == "fail"
    assert "no volumes, gigabytes left" in findings["quota"].detail
    assert findings["leftovers"].outcome == "warn"
    assert "cleanup --dry-run --cloud east" in findings["leftovers"].detail


def test_a_file_system_without_direct_io_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine.direct_io(tmp_path).outcome in {"ok", "warn"}

    # As a file system without it answers: EINVAL for flags it does not know.
    monkeypatch.setattr(os, "O_DIRECT", os.O_DIRECTORY)
    refused = machine.direct_io(tmp_path)
    assert refused.outcome == "warn"
    assert str(tmp_path) in refused.detail
