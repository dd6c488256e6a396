"""Embedded clouds: a small OpenStack on loopback for tests and the demo."""

from tests.sim.cloud import EmbeddedCloud, EmbeddedClouds, Timings, flavor
from tests.sim.faults import Faults

__all__ = ["EmbeddedCloud", "EmbeddedClouds", "Faults", "Timings", "flavor"]
