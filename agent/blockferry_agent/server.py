"""Puts the agent together and keeps it running until it is told to stop."""

import json
import logging
import os
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from blockferry.errors import CancelledError, PreconditionError
from blockferry.tls import SERVER_OPTIONS
from blockferry.v1 import agent_pb2_grpc
from blockferry_agent.assignments import Workshop
from blockferry_agent.config import AgentConfig
from blockferry_agent.credentials import Credentials
from blockferry_agent.guard import Guard
from blockferry_agent.jobs import JobRegistry
from blockferry_agent.neighbours import Neighbours
from blockferry_agent.ports import Clock
from blockferry_agent.relay import Relay
from blockferry_agent.service import AgentServicer, Company, TransferServicer
from blockferry_agent.transfers import TransferFiles
from blockferry_agent.trial import Bench
from blockferry_agent.tunnel import Tunnel

_log = logging.getLogger(__name__)

_THREADS: Final = 48
"""16 channels of a transfer, and room for watchers and short calls. Made on demand."""

_BIND_SECONDS: Final = 60.0
"""cloud-init may start the agent before the interface has its address."""

_SECOND_BIND_SECONDS: Final = 5.0
"""How long further addresses are waited for once one is there (IPv6 duplicate
address detection takes 1 to 2 s)."""

_TELLS: Final = 20
"""How often, in a dead-man time, an agent tells its neighbours that it is needed."""

_POLL_SECONDS: Final = 0.25
_STOP_SECONDS: Final = 60.0
_GRACE_SECONDS: Final = 2.0


class SystemClock:
    """The Clock port over the kernel's."""

    def monotonic(self) -> float:
        """See Clock.monotonic."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """See Clock.sleep."""
        time.sleep(seconds)


class Agent:
    """One agent process."""

    def __init__(self, config: AgentConfig) -> None:
        """Load identity and state.

        Raises:
            UsageError: CREDENTIALS_UNREADABLE.
        """
        self._config = config
        self._clock: Clock = SystemClock()
        self._stop = threading.Event()
        config.state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._credentials = Credentials(config)
        self._guard = Guard(self._credentials, self._clock)
        self._relay = Relay()
        self._neighbours = Neighbours(
            config.run_directory,
            f"{config.identity.role.value}.{config.identity.migration_id}",
            self._clock,
            every_seconds=config.dead_man_seconds / _TELLS,
        )
        workshop = Workshop(
            role=config.identity.role,
            files=TransferFiles(config.state_directory),
            dial=self._dial,
            clock=self._clock,
            dead_seconds=config.dead_man_seconds,
        )
        self._jobs = JobRegistry(workshop)

    def stop(self) -> None:
        """Make `run` return in order. Any thread, signal handlers too; idempotent."""
        self._stop.set()

    def run(self) -> None:
        """Serve until stopped, orphaned or forgotten.

        Raises:
            PreconditionError: ADDRESS_NOT_BOUND.
        """
        # A parent that has died since it started us has left us another one already.
        parent = self._config.parent_pid or os.getppid()
        server, liveness = self._build()
        addresses = await_addresses(self._config.listen, self._clock)
        port = self._bind(server, addresses)
        server.start()
        liveness.set("", health_pb2.HealthCheckResponse.SERVING)
        self._tell(port)
        tunnel = self._dial_out(addresses[0], port)
        _log.info("%s listens on port %d of %s", self._config.identity.uri, port, addresses)
        reason = self._await_end(parent)
        _log.info("stopping: %s", reason)
        if tunnel is not None:
            tunnel.stop()
        liveness.enter_graceful_shutdown()
        stopped = CancelledError("AGENT_STOPPED", f"The agent stopped: {reason}.")
        self._jobs.stop_all(stopped, _STOP_SECONDS)
        server.stop(_GRACE_SECONDS).wait()
        (self._config.state_directory / "listening.json").unlink(missing_ok=True)

    def _dial(self, address: str) -> grpc.Channel:
        return self._credentials.dial_peer(self._relay.resolve(address))

    def _build(self) -> tuple[grpc.Server, health.HealthServicer]:
        server = grpc.server(
            ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="rpc"),
            interceptors=[self._guard],
            options=SERVER_OPTIONS,
            # More than threads: a call too many waits for its refusal, and not the
            # controller's for a place.
            maximum_concurrent_rpcs=_THREADS * 8,
        )
        liveness = health.HealthServicer()
        role = self._config.identity.role
        bench = Bench(role, self._dial, self._clock, lambda: self._jobs.busy)
        servicer = AgentServicer(
            self._jobs,
            self._credentials,
            self._dial,
            self._relay,
            bench=bench,
            company=self._company,
            end_other_calls=self._guard.end_other_calls,
        )
        agent_pb2_grpc.add_AgentServiceServicer_to_server(servicer, server)
        server.add_generic_rpc_handlers((TransferServicer(self._jobs, bench).handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(liveness, server)
        return server, liveness

    def _company(self) -> Company:
        silence = self._guard.silence(apart_from_this_call=True)
        return Company(silence.controller_seconds, silence.peer_seconds)

    def _bind(self, server: grpc.Server, addresses: list[str]) -> int:
        port = self._config.port
        for address in addresses:
            host = f"[{address}]" if ":" in address else address
            try:
                credentials = self._credentials.server_credentials()
                port = server.add_secure_port(f"{host}:{port}", credentials)
            except RuntimeError as error:
                raise PreconditionError(
                    "ADDRESS_NOT_BOUND",
                    f"Port {port} of {address} is taken by another process; stop it or "
                    "configure another port.",
                    address=address,
                    port=port,
                ) from error
        return port

    def _dial_out(self, address: str, port: int) -> Tunnel | None:
        if not self._config.tunnel_address:
            return None
        own = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        tunnel = Tunnel(self._config.tunnel_address, self._config.tunnel_hello, own)
        tunnel.start()
        return tunnel

    def _tell(self, port: int) -> None:
        path = self._config.state_directory / "listening.json"
        fresh = path.with_name("listening.json.new")
        fresh.write_text(json.dumps({"port": port, "pid": os.getpid()}))
        fresh.replace(path)

    def _await_end(self, parent: int) -> str:
        while not self._stop.wait(_POLL_SECONDS):
            if self._config.exit_with_parent and os.getppid() != parent:
                return "its parent process ended"
            silent = self._silent_seconds()
            self._neighbours.tell(silent)
            if silent > self._config.dead_man_seconds and self._ends_alone():
                return f"neither controller nor peer was heard for {silent:.0f} s"
        return "it was asked to"

    def _ends_alone(self) -> bool:
        """Whether an agent that nobody needs is to end; the last one takes the instance along.

        One that has nothing to do waits beside others that have: its turn may come.
        """
        if self._neighbours.silent_seconds() <= self._config.dead_man_seconds:
            return self._jobs.busy
        self._power_off()
        return True

    def _silent_seconds(self) -> float:
        """How long nobody was heard whom the agent needs.

        At work it needs nobody: its job gives up by itself. A job that is held
        does not, and a peer that waits for it cannot let it go on.
        """
        silence = self._guard.silence()
        if self._jobs.held:
            return silence.controller_seconds
        if self._jobs.busy:
            return 0.0
        return min(silence.controller_seconds, silence.peer_seconds)

    def _power_off(self) -> None:
        if self._config.power_off:
            _log.warning("powering the instance off: nobody was heard")
            subprocess.run(["systemctl", "poweroff"], check=False, timeout=30)


def await_addresses(addresses: tuple[str, ...], clock: Clock) -> list[str]:
    """Wait until addresses are on an interface; return those that are, in order.

    Raises:
        PreconditionError: ADDRESS_NOT_BOUND, none of them.
    """
    until = clock.monotonic() + _BIND_SECONDS
    ready = [address for address in addresses if _is_local(address)]
    if ready:
        until = clock.monotonic() + _SECOND_BIND_SECONDS
    while len(ready) < len(addresses) and clock.monotonic() < until:
        clock.sleep(_POLL_SECONDS)
        had_none = not ready
        ready = [address for address in addresses if _is_local(address)]
        if ready and had_none:
            until = min(until, clock.monotonic() + _SECOND_BIND_SECONDS)
    if not ready:
        raise PreconditionError(
            "ADDRESS_NOT_BOUND",
            f"None of the addresses {', '.join(addresses)} is on an interface of this machine "
            f"after {_BIND_SECONDS:.0f} s.",
        )
    return ready


def _is_local(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
