"""What an agent can tell of the machine it runs on, and which disk is which.

Disks are found by the serial that the hypervisor gave them, never by letter,
size or by what appeared since. QEMU cuts the serial of virtio and NVMe disks to
the first 20 characters of the volume id; SCSI disks have the whole id.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blockferry.errors import NotFoundError, PreconditionError
from blockferry.limits import KIB
from blockferry_agent.occupancy import in_use_reason

_PROC: Final = Path("/proc")
_DEV: Final = Path("/dev")
_SYS: Final = Path("/sys")

_SERIAL_CHARACTERS: Final = 20
"""VIRTIO_BLK_ID_BYTES of the virtio specification; NVMe's serial is as long."""

_SYSFS_SECTOR_BYTES: Final = 512
"""Unit of `size` in sysfs, whatever the device's block size."""

_VPD_HEADER_BYTES: Final = 4
"""SCSI vital product data, page 0x80: type, page, length (2 bytes), then the serial."""


@dataclass(frozen=True, slots=True)
class BlockDeviceInfo:
    """A disk of this machine.

    Attributes:
        path: Kernel path, `/dev/vdb`.
        serial: As the kernel tells it; empty when it tells none.
        size_bytes: More than 0.
        logical_block_bytes: 512 or 4096.
        read_only: Whether the kernel refuses writes.
        in_use_reason: Why it may not be used; empty when free.
    """

    path: str
    serial: str
    size_bytes: int
    logical_block_bytes: int
    read_only: bool
    in_use_reason: str


def boot_id() -> str:
    """Return the kernel's id of this boot; another one after each reboot."""
    return (_PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()


def hostname() -> str:
    """Return the name of this machine."""
    return os.uname().nodename


def cpu_count() -> int:
    """Return how many CPUs this process may use, at least 1."""
    return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """Return the memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Return the memory this process has resident now."""
    return _status_bytes("VmRSS")


def peak_resident_bytes() -> int:
    """Return the most memory this process had resident.

    Not from getrusage: its maximum includes what the parent had before exec.
    """
    return _status_bytes("VmHWM")


def list_block_devices(
    *, dev_root: Path = _DEV, sys_root: Path = _SYS, proc_root: Path = _PROC
) -> list[BlockDeviceInfo]:
    """Return the disks that have a size and a node, in order of their path."""
    return sorted(_block_devices(dev_root, sys_root, proc_root), key=lambda device: device.path)


def find_by_volume_id(volume_id: str, *, dev_root: Path = _DEV, sys_root: Path = _SYS) -> Path:
    """Return the path of the disk that a volume is attached as.

    Looks at the names in `<dev_root>/disk/by-id` and at the serials in
    `<sys_root>/block`. Waiting for a disk to appear is the caller's business.

    Args:
        volume_id: The id that the cloud knows the volume by.
        dev_root: Where device nodes are; names by id may lead to regular files.
        sys_root: Where sysfs is mounted.

    Returns:
        The device itself, links resolved.

    Raises:
        NotFoundError: DEVICE_NOT_FOUND, the message lists what is there.
        PreconditionError: DEVICE_AMBIGUOUS, several disks have that serial.
    """
    found = {*_by_name(volume_id, dev_root), *_by_serial(volume_id, dev_root, sys_root)}
    if not found:
        raise _not_found(volume_id, dev_root, sys_root)
    if len(found) > 1:
        names = ", ".join(sorted(map(str, found)))
        raise PreconditionError(
            "DEVICE_AMBIGUOUS",
            f"Several disks have the serial of volume {volume_id}: {names}. "
            "Detach it, and attach it once.",
            volume_id=volume_id,
            devices=names,
        )
    return found.pop()


def _by_name(volume_id: str, dev_root: Path) -> Iterator[Path]:
    for entry in _entries(dev_root / "disk" / "by-id"):
        if _names_volume(entry.name, volume_id) and entry.exists():
            yield entry.resolve()


def _names_volume(name: str, volume_id: str) -> bool:
    """Whether a by-id name ends with the serial; NVMe adds a namespace, `_1`."""
    if name == f"virtio-{volume_id[:_SERIAL_CHARACTERS]}":
        return True
    return any(
        re.search(rf"[-_]{re.escape(serial)}(_\d+)?$", name) for serial in _serials(volume_id)
    )


def _serials(volume_id: str) -> set[str]:
    """The serials that a volume may have. A short id has no abbreviation."""
    return {volume_id, volume_id[:_SERIAL_CHARACTERS]}


def _by_serial(volume_id: str, dev_root: Path, sys_root: Path) -> Iterator[Path]:
    for node in _entries(sys_root / "block"):
        device = _device_path(node, dev_root)
        if _serials(volume_id) & set(_known_serials(node)) and device.exists():
            yield device.resolve()


def _known_serials(node: Path) -> Iterator[str]:
    for place in ("serial", "device/serial"):
        serial = _text(node / place)
        if serial:
            yield serial
    page = _bytes(node / "device" / "vpd_pg80")[_VPD_HEADER_BYTES:]
    if page:
        yield page.decode("ascii", "replace").strip("\0 \n")
    for place in ("wwid", "device/wwid"):
        # "t10.ATA     QEMU HARDDISK      <serial>": the serial is the last word.
        words = _text(node / place).split()
        if words:
            yield words[-1]


def _block_devices(dev_root: Path, sys_root: Path, proc_root: Path) -> Iterator[BlockDeviceInfo]:
    for node in _entries(sys_root / "block"):
        size_bytes = _number(node / "size") * _SYSFS_SECTOR_BYTES
        path = _device_path(node, dev_root)
        if not size_bytes:
            continue
        try:
            reason = in_use_reason(path, proc_root=proc_root, sys_root=sys_root)
        except OSError:
            # Detached while we looked, or without a node in this container.
            continue
        yield BlockDeviceInfo(
            path=str(path),
            serial=next(_known_serials(node), ""),
            size_bytes=size_bytes,
            logical_block_bytes=_number(node / "queue" / "logical_block_size"),
            read_only=_number(node / "ro") != 0,
            in_use_reason=reason,
        )


def _not_found(volume_id: str, dev_root: Path, sys_root: Path) -> NotFoundError:
    seen = [
        f"{node.name} ({next(_known_serials(node), 'no serial')})"
        for node in _entries(sys_root / "block")
        if _number(node / "size") and _device_path(node, dev_root).exists()
    ]
    there = ", ".join(seen) or "no disks at all"
    return NotFoundError(
        "DEVICE_NOT_FOUND",
        f"No disk of this machine has the serial of volume {volume_id}. There are: {there}. "
        "Check that the volume is attached to this instance.",
        volume_id=volume_id,
        devices=there,
    )


def _device_path(node: Path, dev_root: Path) -> Path:
    """Sysfs writes the `/` of a device's name as `!`."""
    return dev_root / node.name.replace("!", "/")


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _text(path: Path) -> str:
    return _bytes(path).decode("utf-8", "replace").strip("\0 \n")


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if text.isdigit() else 0


def _status_bytes(field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB$", _text(_PROC / "self" / "status"), re.MULTILINE)
    return int(match[1]) * KIB if match else 0
