"""This machine as a cloud: volumes are paths, servers are agent processes."""

from blockferry_controller.clouds.local.cloud import LocalCloud

__all__ = ["LocalCloud"]
