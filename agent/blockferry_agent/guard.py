"""The door of the agent's services: who may call what, and how errors leave.

    service           who may call it
    AgentService      the controller of this migration, epoch not below the highest seen
    TransferService   the paired agent, likewise, at an adopted one: a sink lets its
                      source push, a source lets its sink pull, either tries the link
    grpc.health.v1    whoever TLS has verified

Who may call is decided when a call begins. When the agent changes hands, calls that began
before are ended, too (`end_other_calls`).

The peer may hold PEER_CALLS_MAX calls open, fewer than there are threads: what
is left is the controller's.

Every BlockferryError leaves as its status with `blockferry-error-bin`; anything
else is a defect of ours: logged here with its trace, INTERNAL to the peer.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import grpc

from blockferry import wire
from blockferry.errors import (
    AuthenticationError,
    BlockferryError,
    BusyError,
    ForbiddenError,
    InternalError,
    PreconditionError,
    UnreachableError,
)
from blockferry.identity import Identity, Role
from blockferry.limits import MAX_CHANNELS
from blockferry.tls import peer_identity
from blockferry_agent.credentials import Credentials
from blockferry_agent.ports import Clock

_log = logging.getLogger(__name__)

PEER_CALLS_MAX: Final = 2 * MAX_CHANNELS + 2
"""Streams of a peer's attempt and of the one before, which ends, and a short call of each."""

_Rule = Callable[[Identity], None]
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"


@dataclass(frozen=True, slots=True)
class Silence:
    """Seconds since the last call of each ended; 0.0 while one is open."""

    controller_seconds: float
    peer_seconds: float


@dataclass(slots=True)
class _Heard:
    """What was heard of one party."""

    last_at: float
    open_calls: int = 0

    def silent_seconds(self, now: float, *, besides: int = 0) -> float:
        return 0.0 if self.open_calls > besides else now - self.last_at


class Guard(grpc.ServerInterceptor):
    """Interceptor of all services; thread-safe."""

    def __init__(self, credentials: Credentials, clock: Clock) -> None:
        self._credentials = credentials
        self._clock = clock
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._open: set[grpc.ServicerContext] = set()
        self._peer_calls = 0
        self._controller = _Heard(clock.monotonic())
        self._peer = _Heard(clock.monotonic())
        self._rules: dict[str, _Rule] = {
            "blockferry.v1.AgentService": self._check_controller,
            "blockferry.v1.TransferService": partial(self._check_pair, Role.SINK, Role.SOURCE),
            "blockferry.v1.TransferService/Pull": partial(self._check_pair, Role.SOURCE, Role.SINK),
            "blockferry.v1.TransferService/Trial": self._check_other,
            "grpc.health.v1.Health": lambda _: None,
        }

    def silence(self, *, apart_from_this_call: bool = False) -> Silence:
        """How long nobody has been heard.

        Args:
            apart_from_this_call: The caller serves a call of the controller, which
                is not to count.
        """
        with self._lock:
            now = self._clock.monotonic()
            return Silence(
                self._controller.silent_seconds(now, besides=int(apart_from_this_call)),
                self._peer.silent_seconds(now),
            )

    def end_other_calls(self, own: grpc.ServicerContext, timeout_seconds: float) -> None:
        """Cancel every call but `own` that was let in before, and wait until none is left.

        Raises:
            BusyError: BUSY, one does not end.
        """
        with self._lock:
            for context in self._open - {own}:
                context.cancel()
            if not self._ended.wait_for(lambda: self._open <= {own}, timeout_seconds):
                raise BusyError("BUSY", "A call that began before does not end.")

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], _Handler],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Wrap a method with its service's rule."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method.strip("/")
        rule = self._rules.get(method) or self._rules.get(method.partition("/")[0])
        if handler is None or rule is None:
            return None
        return self._wrapped(handler, rule)

    def _wrapped(self, handler: Any, rule: _Rule) -> _Handler:
        behavior = handler.unary_unary or handler.unary_stream
        behavior = behavior or handler.stream_unary or handler.stream_stream

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            with self._call(context, rule):
                return behavior(request, context)

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self._call(context, rule):
                yield from behavior(request, context)

        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        return make(
            stream if handler.response_streaming else answer,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    @contextmanager
    def _call(self, context: grpc.ServicerContext, rule: _Rule) -> Iterator[None]:
        try:
            peer = _identity_of(context)
            # Listed before it is let in: whoever shuts an epoch out then misses none.
            with self._listed(context):
                rule(peer)
                with self._heard(peer), self._counted(peer):
                    yield
        except BlockferryError as error:
            wire.abort(context, error)
        except Exception:
            if not context.is_active():
                raise
            _log.exception("a call broke")
            wire.abort(context, InternalError("AGENT_BROKEN", "The agent broke; see its log."))

    @contextmanager
    def _listed(self, context: grpc.ServicerContext) -> Iterator[None]:
        with self._lock:
            self._open.add(context)
        try:
            yield
        finally:
            with self._ended:
                self._open.discard(context)
                self._ended.notify_all()

    @contextmanager
    def _heard(self, who: Identity) -> Iterator[None]:
        heard = self._controller if who.role is Role.CONTROLLER else self._peer
        with self._lock:
            heard.open_calls += 1
        try:
            yield
        finally:
            with self._lock:
                heard.open_calls -= 1
                heard.last_at = self._clock.monotonic()

    @contextmanager
    def _counted(self, peer: Identity) -> Iterator[None]:
        """A peer that opens streams without end must not shut the controller out."""
        counts = peer.role is not Role.CONTROLLER
        with self._lock:
            if counts and self._peer_calls >= PEER_CALLS_MAX:
                raise UnreachableError(
                    "TOO_MANY_STREAMS",
                    f"{peer.uri} has {self._peer_calls} calls open; it needs no more.",
                    calls=self._peer_calls,
                )
            self._peer_calls += counts
        try:
            yield
        finally:
            with self._lock:
                self._peer_calls -= counts

    def _check_controller(self, peer: Identity) -> None:
        self._check(peer, Role.CONTROLLER)

    def _check_other(self, peer: Identity) -> None:
        """Either of a pair serves this to the other."""
        own = self._credentials.identity.role
        self._check_pair(own, Role.SINK if own is Role.SOURCE else Role.SOURCE, peer)

    def _check_pair(self, own: Role, other: Role, peer: Identity) -> None:
        """Only an adopted `own` serves this, and only to its `other`."""
        if self._credentials.identity.role is not own:
            raise PreconditionError(
                "WRONG_ROLE", f"This agent is no {own.value}; the call is for one."
            )
        self._check(peer, other)
        if not self._credentials.adopted:
            raise PreconditionError(
                "NOT_ADOPTED",
                f"This {own.value} has no identity of its own yet; the controller gives one.",
            )

    def _check(self, peer: Identity, role: Role) -> None:
        own = self._credentials.identity
        if peer.migration_id != own.migration_id or peer.role is not role:
            raise ForbiddenError(
                "NOT_ALLOWED",
                f"{peer.uri} may not call this; only the {role.value} of {own.migration_id} may.",
                peer=peer.uri,
            )
        self._credentials.see_epoch(peer.epoch)


def _identity_of(context: grpc.ServicerContext) -> Identity:
    # The stubs say bytes, grpc gives a sequence of them for each key.
    properties: Any = context.auth_context()
    identity = peer_identity(properties)
    if identity is None:
        raise AuthenticationError(
            "IDENTITY_MISSING", "The certificate names no identity of Blockferry."
        )
    return identity
