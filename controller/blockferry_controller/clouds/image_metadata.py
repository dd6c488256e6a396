"""Which image metadata of a volume has a meaning in another cloud.

A volume made from an image carries the image's properties, and Nova reads them when
it boots from the volume: firmware, disk bus, video model (os-migrate#797: without
`hw_firmware_type` a UEFI machine does not boot). Others speak of the image itself,
or bind the volume to a key of its own cloud, and do harm elsewhere:
* `cinder_encryption_key_id` would have the destination look for a key of the source's
  Barbican (Cinder admin guide, "Volume encryption").
* `img_signature…` and `signature_verified` vouch for an image, not for these bytes.
* `os_glance_…` is reserved by Glance (glance.common.store_utils).
Cinder refuses keys and values of more than 255 characters with 413
(cinder.utils.check_metadata_properties).
"""

from collections.abc import Mapping
from typing import Final

_OF_THE_IMAGE_ITSELF: Final = frozenset(
    {
        "image_id",
        "image_name",
        "image_location",
        "image_state",
        "checksum",
        "os_hash_algo",
        "os_hash_value",
        "container_format",
        "disk_format",
        "size",
        "stores",
        "base_image_ref",
        "instance_uuid",
        "user_id",
        "owner_id",
        "owner_user_name",
        "owner_project_name",
        "boot_roles",
        "signature_verified",
        "blockferry_agent",
    }
)
_FOREIGN_PREFIXES: Final = ("cinder_encryption_key", "img_signature", "os_glance")
_LENGTH_MAX: Final = 255


def portable(metadata: Mapping[str, str]) -> dict[str, str]:
    """The part of a volume's image metadata that another cloud can use."""
    return {key: value for key, value in metadata.items() if not why_not_portable(key, value)}


def why_not_portable(key: str, value: str) -> str:
    """Why another cloud has no use for it; empty when it has."""
    if key in _OF_THE_IMAGE_ITSELF:
        return "said of the image, not of the volume"
    if key.startswith(_FOREIGN_PREFIXES):
        return "of use in its own cloud only"
    if not key or max(len(key), len(value)) > _LENGTH_MAX:
        return f"clouds take 1 to {_LENGTH_MAX} characters"
    return ""
