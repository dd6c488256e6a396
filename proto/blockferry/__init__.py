"""What controller and agents agree on: wire contract, errors, limits, identity."""

import os

# What gRPC's core would print on stderr reaches callers as errors; with it, every
# stranger's failed handshake would be a line in front of a person. It reads this
# when it is first imported, so before any module of ours can import it.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

__version__ = "0.1.0"
