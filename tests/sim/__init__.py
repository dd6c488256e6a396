"""Embedded clouds: a small OpenStack on loopback for tests and the demo.

In a test:

    with EmbeddedClouds(tmp_path, prepared_version=__version__) as clouds:
        volume_id = clouds.east.make_volume("data", 1, b"content")
        …  # OS_CLIENT_CONFIG_FILE=clouds.clouds_yaml, clouds named east and west

As a process of its own, until SIGTERM, SIGINT or SIGKILL:

    python -m tests.sim --dir DIR --name east --address 127.40.0.1

It differs from OpenStack where an instance is a process of this machine: disks
are regular files in /dev, detaching one does not break what still has it open,
security groups are not enforced (`cloud.walls` keeps instances apart instead), addresses are
loopback's, nothing limits an
instance's memory. Live migration and snapshots are missing.
"""

from tests.sim.cloud import EmbeddedCloud, EmbeddedClouds
from tests.sim.faults import Faults
from tests.sim.guest.wire import Walls
from tests.sim.stock import Timings, flavor

__all__ = ["EmbeddedCloud", "EmbeddedClouds", "Faults", "Timings", "Walls", "flavor"]
