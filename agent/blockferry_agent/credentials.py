"""Who this agent is: what cloud-init carried, then what it adopted.

Rules:
* Until an identity is adopted, the bootstrap certificate of the configuration
  is shown. Adopting destroys it: its key was visible in the cloud's API.
* Keys of the agent's own are made here, kept with mode 0600 and never leave.
  Key and certificate are one file, so that they change as one.
* Clients must always have a certificate of the migration's own root.
* The highest epoch ever seen is kept over restarts; lower ones are refused.
"""

import logging
import os
import re
import threading
from pathlib import Path
from typing import Any, Final, cast

import grpc

from blockferry.errors import ForbiddenError, PreconditionError, UsageError
from blockferry.identity import Identity, Role, parse_uri
from blockferry.tls import dial_options
from blockferry_agent import openssl
from blockferry_agent.certificate import refused, shown_uris
from blockferry_agent.config import AgentConfig

_log = logging.getLogger(__name__)

_PEERS: Final = {Role.SOURCE: Role.SINK, Role.SINK: Role.SOURCE}

_END_OF_KEY: Final = b"-----END PRIVATE KEY-----\n"
_EPOCH: Final = re.compile(rb"[0-9]{1,18}")
"""As long as an epoch in a certificate is at most."""


class Credentials:
    """Keys and certificates of one agent; thread-safe."""

    def __init__(self, config: AgentConfig) -> None:
        """Load what is there.

        Raises:
            UsageError: CREDENTIALS_UNREADABLE.
        """
        self._config = config
        self._directory = config.state_directory / "identity"
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        self._lock = threading.Lock()
        # A request ends with the process that made it: whoever asks again gets another one.
        self._forget_request()
        self._authority = _read(config.authority)
        self._adopted = self._adopted_file.exists()
        if self._adopted:
            self._key, self._certificate = self._load_adopted()
            self._destroy_bootstrap()
        else:
            self._key, self._certificate = _read(config.key), _read(config.certificate)
        self._epoch = max(config.identity.epoch, self._load_epoch())

    @property
    def identity(self) -> Identity:
        """Migration and role of the configuration, with the highest epoch seen."""
        own = self._config.identity
        return Identity(own.migration_id, own.role, self._epoch)

    @property
    def adopted(self) -> bool:
        """Whether an identity of the agent's own is in force."""
        return self._adopted

    def see_epoch(self, epoch: int) -> None:
        """Take note of a peer's epoch.

        Raises:
            ForbiddenError: STALE_EPOCH, a higher one was seen before.
        """
        with self._lock:
            if epoch < self._epoch:
                raise ForbiddenError(
                    "STALE_EPOCH",
                    f"Epoch {epoch} is over: {self._epoch} has taken this migration over.",
                    epoch=epoch,
                    current_epoch=self._epoch,
                )
            if epoch > self._epoch:
                _store(self._epoch_file, str(epoch).encode())
                self._epoch = epoch

    def create_signing_request(self) -> bytes:
        """Make a new key, keep it aside, and return a request for it (PEM)."""
        own = self._config.identity
        with self._lock:
            self._forget_request()
            name = f"{own.role.value}.{own.migration_id}"
            try:
                return openssl.make_request(self._pending_file, name)
            except BaseException:
                self._forget_request()
                raise

    def adopt(self, certificate_pem: bytes) -> int:
        """Put a certificate for the pending key in force; return its epoch.

        Idempotent for the certificate in force.

        Raises:
            PreconditionError: IDENTITY_REFUSED, it does not fit.
        """
        with self._lock:
            again = self._adopted and certificate_pem == self._certificate
            key_file = self._adopted_file if again else self._pending_file
            if not key_file.exists():
                raise refused("there is no signing request that it answers")
            uris = shown_uris(certificate_pem, key_file, self._config.authority)
            epoch = self._named_epoch(uris)
            if again:
                return epoch
            key = self._pending_file.read_bytes()
            _store(self._adopted_file, key + certificate_pem)
            _store(self._epoch_file, str(epoch).encode())
            self._key, self._certificate = key, certificate_pem
            self._epoch, self._adopted = epoch, True
            self._forget_request()
            self._destroy_bootstrap()
        _log.info("adopted an identity of epoch %d", epoch)
        return epoch

    def _named_epoch(self, uris: list[str]) -> int:
        """Of the one identity that they name, which must be this agent's."""
        identities = [found for uri in uris if (found := parse_uri(uri)) is not None]
        own = self._config.identity
        if len(identities) != 1:
            raise refused("it names no identity, or several")
        identity = identities[0]
        if (identity.migration_id, identity.role) != (own.migration_id, own.role):
            raise refused(f"it is for {identity.uri}, this is {own.uri}")
        if identity.epoch < self._epoch:
            raise refused(f"its epoch {identity.epoch} is below {self._epoch}")
        return identity.epoch

    def server_credentials(self) -> grpc.ServerCredentials:
        """For one listening address: new connections to it see what is in force then.

        gRPC asks before each handshake. It is answered None while it shows what is in
        force: answering each time makes its core (1.85) free one handshake's factory
        under another's feet ("sync.cc: Check failed: prior > 0", SIGABRT). What an
        address shows is its own: gRPC keeps it by address.
        """
        shown, initial = self._configuration()
        lock = threading.Lock()

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal shown
            certificate, configuration = self._configuration()
            with lock:
                if certificate == shown:
                    return None
                shown = certificate
                return configuration

        return grpc.dynamic_ssl_server_credentials(
            initial,
            # The stubs do not know that None is an answer; gRPC's documentation does.
            cast(Any, changed),
            require_client_authentication=True,
        )

    def _configuration(self) -> tuple[bytes, grpc.ServerCertificateConfiguration]:
        """The certificate in force, and how gRPC wants it."""
        with self._lock:
            return self._certificate, grpc.ssl_server_certificate_configuration(
                [(self._key, self._certificate)], root_certificates=self._authority
            )

    def dial_peer(self, address: str) -> grpc.Channel:
        """A channel to the paired agent, of the other role, under the adopted identity.

        Raises:
            PreconditionError: NOT_ADOPTED.
        """
        with self._lock:
            if not self._adopted:
                raise PreconditionError(
                    "NOT_ADOPTED", "This agent has no identity of its own yet; adopt one first."
                )
            credentials = grpc.ssl_channel_credentials(
                self._authority, private_key=self._key, certificate_chain=self._certificate
            )
        own = self._config.identity
        peer = Identity(own.migration_id, _PEERS[own.role], 1)
        return grpc.secure_channel(address, credentials, options=dial_options(peer.server_name))

    @property
    def _adopted_file(self) -> Path:
        return self._directory / "adopted.pem"

    @property
    def _pending_file(self) -> Path:
        return self._directory / "pending.key"

    @property
    def _epoch_file(self) -> Path:
        return self._directory / "epoch"

    def _load_adopted(self) -> tuple[bytes, bytes]:
        key, end, certificate = _read(self._adopted_file).partition(_END_OF_KEY)
        if not certificate:
            raise UsageError(
                "CREDENTIALS_UNREADABLE",
                f"{self._adopted_file} is damaged; remove it to start from the bootstrap identity.",
            )
        return key + end, certificate

    def _load_epoch(self) -> int:
        try:
            text = self._epoch_file.read_bytes()
        except FileNotFoundError:
            return 0
        # Damaged it counts for nothing: an epoch that no certificate can name would
        # shut every controller out.
        return int(text) if _EPOCH.fullmatch(text) else 0

    def _forget_request(self) -> None:
        """From now on no certificate answers one."""
        _destroy(self._pending_file)

    def _destroy_bootstrap(self) -> None:
        for path in (self._config.key, self._config.certificate):
            _destroy(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            "CREDENTIALS_UNREADABLE",
            f"Cannot read {path}: {error.strerror}. The configuration must name it.",
            path=path,
        ) from error


def _store(path: Path, content: bytes) -> None:
    """Replace a file of mode 0600 as a whole, durably."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with open(fd, "wb") as file:  # noqa: PTH123 - a descriptor
        file.write(content)
        file.flush()
        os.fsync(fd)
    fresh.replace(path)


def _destroy(path: Path) -> None:
    """Overwrite and remove a file; what cannot be removed is at least said."""
    try:
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
            os.fsync(file.fileno())
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warning("cannot destroy %s: %s", path, error.strerror)
