"""This machine as a cloud: volumes are paths, servers are agent processes."""
