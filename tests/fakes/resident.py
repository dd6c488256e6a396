"""The agent of one server of a cloud in memory, and connections that look for it.

It sees what is attached to its server, has a key, and is met under one identity before it
was adopted and under another from then on.
"""

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from blockferry.errors import (
    AuthenticationError,
    ForbiddenError,
    NotFoundError,
    UnreachableError,
)
from blockferry.identity import Identity
from tests.fakes.agent import Content, MemoryAgent, MemoryLink
from tests.fakes.cloud import MemoryCloud


class Resident(MemoryAgent):
    """See the module."""

    def __init__(
        self, link: MemoryLink, identity: Identity, cloud: MemoryCloud, server_id: str
    ) -> None:
        super().__init__(link, identity)
        self.server_id = server_id
        self._cloud = cloud

    def create_signing_request(self) -> bytes:
        super().create_signing_request()
        return _signing_request()

    def _seen(self) -> Mapping[str, Content]:
        tied = [one for one in list(self._cloud.volumes.values()) if one.attachments]
        return {
            one.id: self._link.volumes[one.id]
            for one in tied
            if self.server_id in {tie.server_id for tie in one.attachments}
        }

    def start_job(self, request: Any) -> Any:
        device = getattr(request, request.WhichOneof("spec")).device.volume_id
        if device not in self._cloud.volumes:
            raise NotFoundError("DEVICE_NOT_FOUND", f"no device of volume {device}")
        ties = self._cloud.volumes[device].attachments
        assert [tie.server_id for tie in ties] == [self.server_id], "not attached here"
        return super().start_job(request)


@functools.cache
def _signing_request() -> bytes:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    key = ec.generate_private_key(ec.SECP256R1())
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


class Line:
    """A connection: finds who listens at the address when something is said."""

    def __init__(
        self, agents: Mapping[str, MemoryAgent], address: str, bootstrap: bool, epoch: int
    ) -> None:
        self._agents, self._address, self._bootstrap = agents, address, bootstrap
        self._epoch = epoch
        self._closed = False

    def close(self) -> None:
        self._closed = True

    def __getattr__(self, verb: str) -> Any:
        agent = self._agents.get(self._address)
        if agent is None or self._closed:
            return self._nobody
        if bool(agent.adopted_pem) is self._bootstrap and verb == "describe":
            return self._stranger
        if self._epoch < agent.identity.epoch:
            return self._stale
        agent.identity = replace(agent.identity, epoch=self._epoch)
        return getattr(agent, verb)

    def _nobody(self, *_: object) -> None:
        raise UnreachableError(
            "AGENT_UNREACHABLE", f"no connection to {self._address}", address=self._address
        )

    def _stale(self, *_: object) -> None:
        raise ForbiddenError("STALE_EPOCH", f"epoch {self._epoch} is over")

    def _stranger(self) -> None:
        raise AuthenticationError("TLS_REFUSED", f"{self._address} is somebody else")
