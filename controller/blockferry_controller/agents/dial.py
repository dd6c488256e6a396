"""How a migration gets hold of an agent: the one place that picks the gRPC client."""

from typing import Final

from blockferry.identity import Identity
from blockferry_controller.agents.client import GrpcAgent, Patience
from blockferry_controller.agents.credentials import Credentials
from blockferry_controller.agents.port import Agent

_ONE_TRY: Final = Patience(call_seconds=5.0, retry_seconds=0.0)


def dial(
    address: str,
    identity: Identity,
    credentials: Credentials,
    root_pem: bytes,
    *,
    bootstrap: bool = False,
    patient: bool = True,
) -> Agent:
    """See agents.port.Dial."""
    return GrpcAgent.connect(
        address,
        identity=identity,
        credentials=credentials,
        root_pem=root_pem,
        bootstrap=bootstrap,
        patience=None if patient else _ONE_TRY,
    )
