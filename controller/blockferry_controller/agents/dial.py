"""How a migration gets hold of an agent: the one place that picks the gRPC client."""

from typing import Final

from blockferry.errors import AuthenticationError, UnreachableError
from blockferry.identity import Identity
from blockferry.v1 import agent_pb2
from blockferry_controller.agents.client import GrpcAgent, Patience
from blockferry_controller.agents.credentials import Credentials
from blockferry_controller.agents.port import Agent
from blockferry_controller.delivery.first_contact import deliver

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
    """See agents.port.Dial. With `bootstrap`, an installer that waits there gets the agent."""
    client = _FirstContact if bootstrap else GrpcAgent
    return client.connect(
        address,
        identity=identity,
        credentials=credentials,
        root_pem=root_pem,
        bootstrap=bootstrap,
        patience=None if patient else _ONE_TRY,
    )


class _FirstContact(GrpcAgent):
    """An agent that may not be there yet: only its installer, which speaks no TLS."""

    def describe(self) -> agent_pb2.DescribeResponse:
        """See Agent.

        Raises:
            UnreachableError: AGENT_INSTALLING, it was delivered just now.
        """
        try:
            return super().describe()
        except AuthenticationError as error:
            if not deliver(self.address):
                raise
            raise UnreachableError(
                "AGENT_INSTALLING",
                f"the instance at {self.address} took the agent and installs it",
                address=self.address,
            ) from error
