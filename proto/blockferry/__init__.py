"""What controller and agents agree on: wire contract, errors, limits, identity."""

__version__ = "0.1.0"
