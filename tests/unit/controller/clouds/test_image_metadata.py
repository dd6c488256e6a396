"""Which image metadata crosses: a row per kind."""

import pytest

from blockferry_controller.clouds.image_metadata import portable


@pytest.mark.parametrize(
    ("key", "value", "crosses"),
    [
        ("hw_firmware_type", "uefi", True),
        ("hw_disk_bus", "scsi", True),
        ("os_require_quiesce", "yes", True),
        ("min_ram", "512", True),
        ("min_disk", "0", True),
        ("anything", "", True),
        ("image_id", "5d", False),
        ("checksum", "d41d", False),
        ("signature_verified", "False", False),
        ("img_signature_key_type", "RSA-PSS", False),
        ("cinder_encryption_key_id", "5d", False),
        ("os_glance_importing_to_stores", "a", False),
        ("instance_uuid", "5d", False),
        ("", "x", False),
        ("k" * 256, "x", False),
        ("k", "x" * 256, False),
        ("k" * 255, "x" * 255, True),
    ],
)
def test_what_crosses(key: str, value: str, crosses: bool) -> None:
    assert portable({key: value}) == ({key: value} if crosses else {})
