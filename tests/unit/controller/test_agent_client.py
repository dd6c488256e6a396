"""The gRPC client's patience: what is repeated, what is not, and for how long.

A real server over real mTLS; only its answers are scripted, and time is manual.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from blockferry import wire
from blockferry.errors import (
    AuthenticationError,
    BlockferryError,
    BusyError,
    DeadlineError,
    NotFoundError,
    UnreachableError,
)
from blockferry.identity import Identity, Role
from blockferry.limits import MANIFEST_RUN_CHUNKS
from blockferry.tls import SERVER_OPTIONS
from blockferry.v1 import agent_pb2, agent_pb2_grpc
from blockferry_controller.agents.client import GrpcAgent, Patience
from blockferry_controller.migration.authority import Authority, Credentials
from tests.fakes.clock import ManualClock

SINK = Identity("m-1", Role.SINK, 1)
Answer = Callable[[Any, grpc.ServicerContext], Any]


def broken(code: grpc.StatusCode) -> Answer:
    def answer(_: object, context: grpc.ServicerContext) -> Any:
        context.abort(code, "scripted")

    return answer


def refusal(error: BlockferryError) -> Answer:
    def answer(_: object, context: grpc.ServicerContext) -> Any:
        wire.abort(context, error)

    return answer


def job(state: "agent_pb2.JobState.ValueType", committed: int = 0) -> agent_pb2.WatchJobResponse:
    found = agent_pb2.Job(id="j", state=state)
    found.progress.committed_bytes = committed
    return agent_pb2.WatchJobResponse(job=found)


RUNNING, DONE = agent_pb2.JOB_STATE_RUNNING, agent_pb2.JOB_STATE_SUCCEEDED


@dataclass
class Script:
    """Answers each call with the next of `answers`, the last one for ever."""

    answers: list[Answer] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)

    def _next(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.requests.append(request)
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        return answer(request, context)

    def __getattr__(self, method: str) -> Answer:
        """Unary answers of the service."""
        return self._next

    def WatchJob(self, request: Any, context: Any) -> Any:  # noqa: N802
        yield from self._next(request, context)

    def ReadManifest(self, request: Any, context: Any) -> Any:  # noqa: N802
        yield from self._next(request, context)


@dataclass
class Stage:
    script: Script
    authority: Authority
    address: str
    clock: ManualClock = field(default_factory=ManualClock)

    def connect(self, **changes: Any) -> GrpcAgent:
        given = {
            "identity": SINK,
            "credentials": self.authority.controller(1),
            "root_pem": self.authority.migration_root_pem,
            "patience": Patience(call_seconds=5, retry_seconds=15, progress_seconds=60),
            "clock": self.clock,
        }
        return GrpcAgent.connect(self.address, **{**given, **changes})


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("m-1")


@pytest.fixture(scope="module")
def server_credentials(authority: Authority) -> Credentials:
    """The bootstrap certificate: it comes with a key, which is all that matters here."""
    return authority.bootstrap(Role.SINK, 1)


@pytest.fixture
def stage(authority: Authority, server_credentials: Credentials) -> Iterator[Stage]:
    script = Script()
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads, options=SERVER_OPTIONS)
        servicer: Any = script
        agent_pb2_grpc.add_AgentServiceServicer_to_server(servicer, server)
        tls = grpc.ssl_server_credentials(
            [(server_credentials.key_pem, server_credentials.certificate_pem)],
            root_certificates=authority.migration_root_pem,
            require_client_auth=True,
        )
        port = server.add_secure_port("127.0.0.1:0", tls)
        server.start()
        yield Stage(script, authority, f"127.0.0.1:{port}")
        server.stop(0).wait()


@pytest.fixture
def agent(stage: Stage) -> Iterator[GrpcAgent]:
    found = stage.connect(root_pem=stage.authority.bootstrap_root_pem, bootstrap=True)
    yield found
    found.close()


def described(_: object, __: object) -> agent_pb2.DescribeResponse:
    return agent_pb2.DescribeResponse(version="1.2.3")


def test_nobody_there_is_tried_again(stage: Stage, agent: GrpcAgent) -> None:
    stage.script.answers = [broken(grpc.StatusCode.UNAVAILABLE)] * 3 + [described]
    assert agent.describe().version == "1.2.3"
    assert len(stage.clock.slept) == 3


def test_but_not_for_ever(stage: Stage, agent: GrpcAgent) -> None:
    stage.script.answers = [broken(grpc.StatusCode.UNAVAILABLE)]
    with pytest.raises(UnreachableError) as caught:
        agent.describe()
    assert caught.value.reason == "AGENT_UNREACHABLE"
    assert stage.address in caught.value.message
    assert sum(stage.clock.slept) == pytest.approx(15)
    assert 4 < len(stage.clock.slept) < 40


def test_an_error_of_the_agents_comes_back_as_it_was(stage: Stage, agent: GrpcAgent) -> None:
    stage.script.answers = [refusal(BusyError("BUSY", "in use by job 7", job_id="7"))]
    with pytest.raises(BusyError) as caught:
        agent.describe()
    assert caught.value.reason == "BUSY"
    assert caught.value.metadata["job_id"] == "7"
    assert not stage.clock.slept


def test_no_call_waits_for_ever(stage: Stage) -> None:
    let_go = threading.Event()
    stage.script.answers = [lambda *_: let_go.wait(20)]
    agent = stage.connect(
        root_pem=stage.authority.bootstrap_root_pem,
        bootstrap=True,
        patience=Patience(call_seconds=0.2),
    )
    with pytest.raises(DeadlineError):
        agent.describe()
    let_go.set()
    agent.close()


def test_a_broken_watch_is_taken_up_again(stage: Stage, agent: GrpcAgent) -> None:
    def first(_: object, context: grpc.ServicerContext) -> Iterator[Any]:
        yield job(RUNNING, 1)
        context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

    stage.script.answers = [
        first,
        broken(grpc.StatusCode.UNAVAILABLE),
        lambda *_: iter([job(RUNNING, 2)]),  # ends without a final state
        lambda *_: iter([job(RUNNING, 3), job(DONE, 4)]),
    ]
    seen = [found.progress.committed_bytes for found in agent.watch_job("j", 0.5)]
    assert seen == [1, 2, 3, 4]
    assert stage.script.requests[0].interval.ToMilliseconds() == 500


def test_silence_ends_a_watch(stage: Stage, agent: GrpcAgent) -> None:
    stage.script.answers = [
        lambda *_: iter([job(RUNNING)]),
        broken(grpc.StatusCode.UNAVAILABLE),
    ]
    watch = agent.watch_job("j", 0.5)
    assert next(watch).state == RUNNING
    with pytest.raises(UnreachableError) as caught:
        next(watch)
    assert caught.value.reason == "AGENT_SILENT"
    assert sum(stage.clock.slept) == pytest.approx(60)


def test_a_job_that_stands_still_is_not_silence(stage: Stage) -> None:
    let_go = threading.Event()

    def quiet(_: object, __: object) -> Iterator[Any]:
        yield job(RUNNING)
        let_go.wait(20)

    stage.script.answers = [quiet, quiet, lambda *_: iter([job(DONE)])]
    agent = stage.connect(
        root_pem=stage.authority.bootstrap_root_pem,
        bootstrap=True,
        patience=Patience(progress_seconds=0.9),
    )
    assert [found.state for found in agent.watch_job("j", 0.5)] == [RUNNING, RUNNING, DONE]
    let_go.set()
    agent.close()


def test_a_watch_of_a_forgotten_job_ends(stage: Stage, agent: GrpcAgent) -> None:
    stage.script.answers = [refusal(NotFoundError("JOB_NOT_FOUND", "no job j"))]
    with pytest.raises(NotFoundError):
        list(agent.watch_job("j", 0.5))
    assert not stage.clock.slept


def test_nobody_listens_to_an_abandoned_watch(stage: Stage, agent: GrpcAgent) -> None:
    gone = threading.Event()

    def endless(_: object, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(gone.set)
        yield job(RUNNING)
        gone.wait(20)

    stage.script.answers = [endless]
    watch = agent.watch_job("j", 0.5)
    next(watch)
    del watch
    assert gone.wait(5)


def test_a_manifest_goes_on_behind_what_came(stage: Stage, agent: GrpcAgent) -> None:
    def first(_: object, context: grpc.ServicerContext) -> Iterator[Any]:
        yield agent_pb2.ReadManifestResponse(first_chunk=5, digests=bytes(64))
        context.abort(grpc.StatusCode.UNAVAILABLE, "cut")

    second = [agent_pb2.ReadManifestResponse(first_chunk=7, digests=bytes(32))]
    stage.script.answers = [first, lambda *_: iter(second)]
    assert list(agent.read_manifest("t-1", 5)) == [(5, bytes(64)), (7, bytes(32))]
    assert [request.first_chunk for request in stage.script.requests] == [5, 7]


def test_long_runs_are_cut_to_messages(stage: Stage, agent: GrpcAgent) -> None:
    taken: list[tuple[int, int]] = []

    def count(requests: Any, _: object) -> agent_pb2.WriteManifestResponse:
        taken.extend((each.first_chunk, len(each.digests)) for each in requests)
        return agent_pb2.WriteManifestResponse(chunk_count=len(taken))

    stage.script.answers = [count]
    long = bytes(32 * (MANIFEST_RUN_CHUNKS + 1))
    assert agent.write_manifest("t-1", [(0, long), (MANIFEST_RUN_CHUNKS + 1, bytes(32))]) == 3
    assert taken == [
        (0, 32 * MANIFEST_RUN_CHUNKS),
        (MANIFEST_RUN_CHUNKS, 32),
        (MANIFEST_RUN_CHUNKS + 1, 32),
    ]


def test_who_makes_a_manifest_is_told_its_own_error(stage: Stage, agent: GrpcAgent) -> None:
    def runs() -> Iterator[tuple[int, bytes]]:
        yield 0, bytes(32)
        raise NotFoundError("COPY_GONE", "the controller's copy of the manifest is gone")

    stage.script.answers = [lambda requests, _: [*requests] and None]
    with pytest.raises(NotFoundError) as caught:
        agent.write_manifest("t-1", runs())
    assert caught.value.reason == "COPY_GONE"


def test_an_agent_that_takes_no_manifest_has_stalled(stage: Stage) -> None:
    let_go = threading.Event()
    stage.script.answers = [lambda *_: let_go.wait(20)]
    agent = stage.connect(
        root_pem=stage.authority.bootstrap_root_pem,
        bootstrap=True,
        patience=Patience(progress_seconds=0.2),
    )
    with pytest.raises(DeadlineError) as caught:
        agent.write_manifest("t-1", [(0, bytes(32))])
    assert caught.value.reason == "AGENT_STALLED"
    let_go.set()
    agent.close()


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param("adopted-name", id="expects-an-adopted-identity"),
        pytest.param("other-role", id="another-role"),
        pytest.param("other-root", id="another-root"),
        pytest.param("other-controller", id="a-controller-of-another-migration"),
    ],
)
def test_no_stranger_is_talked_to(stage: Stage, wrong: str) -> None:
    other = Authority.create("m-1")
    changes: dict[str, dict[str, Any]] = {
        "adopted-name": {"bootstrap": False},
        "other-role": {"identity": Identity("m-1", Role.SOURCE, 1)},
        "other-root": {"root_pem": other.bootstrap_root_pem},
        "other-controller": {"credentials": other.controller(1)},
    }
    stage.script.answers = [described]
    good: dict[str, Any] = {"root_pem": stage.authority.bootstrap_root_pem, "bootstrap": True}
    agent = stage.connect(**{**good, **changes[wrong]})
    with pytest.raises((AuthenticationError, UnreachableError)):
        agent.describe()
    assert not stage.script.requests
    agent.close()


def test_nobody_listening_is_unreachable(stage: Stage) -> None:
    agent = GrpcAgent.connect(
        "127.0.0.1:1",
        identity=SINK,
        credentials=stage.authority.controller(1),
        root_pem=stage.authority.migration_root_pem,
        clock=stage.clock,
    )
    with pytest.raises(UnreachableError):
        agent.describe()
    agent.close()
