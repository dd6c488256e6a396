"""What is refused before a device is opened."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blockferry.errors import BlockferryError, ForbiddenError, NotFoundError, PreconditionError
from blockferry.limits import CHUNK_BYTES
from blockferry_agent.blockdev import open_device
from blockferry_agent.filedevice import FileDevice
from tests import layouts


def refusal(path: Path, *, writable: bool = False) -> BlockferryError:
    with pytest.raises(BlockferryError) as caught:
        open_device(path, writable=writable)
    assert str(path) in caught.value.message
    return caught.value


@contextmanager
def somebody(directory: Path) -> Iterator[None]:
    """Act as the owner of `directory`, who is not root: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    nobody = 65534
    os.chown(directory, nobody, nobody)
    os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(0)


class TestRefusals:
    @pytest.mark.parametrize("writable", [False, True])
    def test_what_is_not_there(self, tmp_path: Path, writable: bool) -> None:
        error = refusal(tmp_path / "none", writable=writable)
        assert isinstance(error, NotFoundError)
        assert error.reason == "DEVICE_NOT_FOUND"
        assert not (tmp_path / "none").exists()

    def test_below_a_file_is_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert refusal(tmp_path / "file" / "none").reason == "DEVICE_NOT_FOUND"

    def test_links_in_a_circle(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        assert refusal(tmp_path / "a").reason == "DEVICE_NOT_FOUND"

    @pytest.mark.parametrize("writable", [False, True])
    def test_directories(self, tmp_path: Path, writable: bool) -> None:
        error = refusal(tmp_path, writable=writable)
        assert isinstance(error, PreconditionError)
        assert error.reason == "DEVICE_IS_DIRECTORY"

    def test_pipes_do_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert refusal(tmp_path / "pipe").reason == "DEVICE_KIND"

    def test_sockets_and_character_devices(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "socket"))
            assert refusal(tmp_path / "socket").reason == "DEVICE_KIND"
        assert refusal(Path("/dev/null"), writable=True).reason == "DEVICE_KIND"

    def test_what_this_user_may_not_read(self) -> None:
        with tempfile.TemporaryDirectory() as directory, somebody(Path(directory)):
            path = layouts.make_file(Path(directory) / "volume", "D")
            path.chmod(0)
            error = refusal(path)
            assert isinstance(error, ForbiddenError)
            assert error.reason == "DEVICE_PERMISSION"

    def test_what_lies_where_this_user_may_not_look(self) -> None:
        with tempfile.TemporaryDirectory() as directory, somebody(Path(directory)):
            closed = Path(directory) / "closed"
            closed.mkdir()
            layouts.make_file(closed / "volume", "D")
            closed.chmod(0)
            assert refusal(closed / "volume").reason == "DEVICE_PERMISSION"
            closed.chmod(0o700)

    def test_a_file_that_is_being_written(self, tmp_path: Path) -> None:
        path = layouts.make_file(tmp_path / "volume", "D")
        with FileDevice(path, writable=True, is_block=False):
            assert refusal(path, writable=True).reason == "DEVICE_IN_USE"
            assert refusal(path).reason == "DEVICE_IN_USE"
        open_device(path, writable=True).close()

    def test_several_may_read_a_file_but_then_nobody_writes(self, tmp_path: Path) -> None:
        path = layouts.make_file(tmp_path / "volume", "D")
        first, second = (open_device(path, writable=False) for _ in range(2))
        assert refusal(path, writable=True).reason == "DEVICE_IN_USE"
        first.close()
        second.close()
        open_device(path, writable=True).close()

    def test_no_descriptor_is_left_behind(self, tmp_path: Path) -> None:
        path = layouts.make_file(tmp_path / "volume", "D")
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            before = len(list(Path("/proc/self/fd").iterdir()))
            for _ in range(3):
                refusal(path, writable=True)
            assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_links_are_followed(tmp_path: Path) -> None:
    path = layouts.make_file(tmp_path / "volume", "DR")
    link = tmp_path / "by-id"
    link.symlink_to(path)
    device = open_device(link, writable=False)
    assert device.size_bytes == 2 * CHUNK_BYTES
    assert device.path == str(link)
    device.close()


def test_an_empty_file_is_a_device_of_no_bytes(tmp_path: Path) -> None:
    device = open_device(layouts.make_file(tmp_path / "volume", ""), writable=False)
    assert device.size_bytes == 0
    assert list(device.extents(0, 0)) == []
    device.close()
