import errno

import pytest

from blockferry.errors import BlockferryError, CapacityError, DeviceError
from blockferry_agent.refusal import Operation, refused


@pytest.mark.parametrize(
    ("operation", "number", "cls", "reason"),
    [
        ("open", errno.EIO, DeviceError, "DEVICE_IO_OPEN"),
        ("read", errno.EIO, DeviceError, "DEVICE_IO_READ"),
        ("write", errno.EIO, DeviceError, "DEVICE_IO_WRITE"),
        ("zero", errno.EREMOTEIO, DeviceError, "DEVICE_IO_ZERO"),
        ("flush", errno.EIO, DeviceError, "DEVICE_IO_FLUSH"),
        ("write", errno.ENOSPC, CapacityError, "NO_SPACE"),
        ("flush", errno.EDQUOT, CapacityError, "NO_SPACE"),
    ],
)
def test_errno_becomes_an_error(
    operation: Operation, number: int, cls: type[BlockferryError], reason: str
) -> None:
    error = refused(operation, "/dev/vdb", OSError(number, "x"), 4096)
    assert type(error) is cls
    assert error.reason == reason
    assert error.metadata == {"path": "/dev/vdb", "errno": str(number), "offset_bytes": "4096"}
    assert "/dev/vdb at byte 4096" in error.message


def test_what_has_no_place_names_none() -> None:
    error = refused("flush", "/dev/vdb", OSError(errno.EIO, "x"))
    assert "offset_bytes" not in error.metadata
    assert "Could not flush /dev/vdb: Input/output error." in error.message


def test_an_error_without_number_is_an_input_output_error() -> None:
    assert refused("read", "/dev/vdb", OSError("odd")).metadata["errno"] == str(errno.EIO)
