"""Clouds: the port, OpenStack behind it, and this machine as a cloud for `copy`."""
