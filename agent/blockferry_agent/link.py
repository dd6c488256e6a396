"""What a source needs of its tie to the sink, whoever of the two has dialled."""

from collections.abc import Callable

import grpc

Dial = Callable[[str], grpc.Channel]
"""Opens a channel to the paired agent's address, under this agent's identity.
Connects lazily."""
