"""`make demo`: a volume with a real filesystem crosses between two embedded clouds.

Everything is real but the clouds: the CLI, cloud-init's user-data, two agents
in their instances, mutual TLS, ext4. At the end both volumes are compared byte
for byte, and what is left in both clouds is listed.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from blockferry import __version__
from tests.sim import EmbeddedCloud, EmbeddedClouds

SIZE_GIB = 1
FILES = 400
VOLUME = "data-1"


def main() -> int:
    """Show it; 0 when the volumes are equal and nothing else is left."""
    parser = argparse.ArgumentParser(prog="make demo")
    parser.add_argument("--keep", action="store_true", help="keep the directory and name it")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="blockferry-demo-"))
    try:
        return _demo(directory)
    finally:
        if options.keep:
            print(f"kept: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _demo(directory: Path) -> int:
    environment = os.environ | {
        "OS_CLIENT_CONFIG_FILE": str(directory / "clouds" / "clouds.yaml"),
        "BLOCKFERRY_STATE": f"sqlite:///{directory}/state/state.db",
    }
    with EmbeddedClouds(directory / "clouds", prepared_version=__version__) as clouds:
        with _timed("a volume with ext4 and files in east"):
            source_id = _make_volume(clouds.east, directory)
        command = [
            *(str(Path(sys.executable).with_name("blockferry")), "migrate", VOLUME),
            *("--from", "east", "--to", "west"),
        ]
        print("\n$ blockferry " + " ".join(command[1:]), flush=True)
        with _timed("blockferry migrate"):
            subprocess.run(command, env=environment, check=True, timeout=150)
        return _judge(clouds, source_id)


def _make_volume(cloud: EmbeddedCloud, directory: Path) -> str:
    """A volume as a user's server would leave it: ext4, full of files, unmounted."""
    files = directory / "files"
    for number in range(FILES):
        path = files / f"d{number % 20}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        random = os.urandom(1 + number * 997 % 400_000)
        path.write_bytes(random if number % 2 else random[:1000].hex().encode() * 200)
    volume_id = cloud.make_volume(VOLUME, SIZE_GIB)
    image = cloud.volume_path(volume_id)
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(files), str(image), f"{SIZE_GIB}G"],
        env=os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        check=True, timeout=60,
    )  # fmt: skip
    shutil.rmtree(files)
    return volume_id


def _judge(clouds: EmbeddedClouds, source_id: str) -> int:
    left = {cloud.name: _list_left(cloud) for cloud in (clouds.east, clouds.west)}
    for name, resources in left.items():
        print(f"left in {name}: {', '.join(resources) or 'nothing'}")
    copies = [name for name in left["west"] if name.startswith("volume ")]
    if len(copies) != 1:
        print("there is not exactly one volume in west", file=sys.stderr)
        return 1
    source = clouds.east.volume_path(source_id)
    destination = clouds.west.volume_path(copies[0].split()[1])
    with _timed("cmp of both volumes"):
        equal = subprocess.run(["cmp", str(source), str(destination)], check=False).returncode == 0
    check = ["fsck.ext4", "-n", "-f", str(destination)]
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    with _timed("fsck of the copy"):
        sound = subprocess.run(
            check, env=os.environ | {"PATH": path}, capture_output=True, check=False
        )
    print(f"equal, byte for byte: {'yes' if equal else 'NO'}")
    print(f"filesystem sound: {'yes' if sound.returncode == 0 else 'NO'}")
    clean = len(left["east"]) == 1 and len(left["west"]) == 1
    print(f"nothing left but the two volumes: {'yes' if clean else 'NO'}")
    return 0 if equal and clean and sound.returncode == 0 else 1


def _list_left(cloud: EmbeddedCloud) -> list[str]:
    """Everything of the project that a migration could have made, ours or not.

    A router's own port was there before.
    """
    with contextlib.closing(cloud.connect()) as sdk:
        return [
            *(f"volume {volume.id} ({volume.name})" for volume in sdk.block_storage.volumes()),
            *(f"server {server.id}" for server in sdk.compute.servers()),
            *(
                f"port {port.id}"
                for port in sdk.network.ports()
                if port.device_owner != "network:router_interface"
            ),
            *(f"floating IP {one.floating_ip_address}" for one in sdk.network.ips()),
            *(
                f"security group {group.name}"
                for group in sdk.network.security_groups()
                if group.name != "default"
            ),
        ]


@contextlib.contextmanager
def _timed(what: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    print(f"[{time.monotonic() - start:6.1f} s] {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
