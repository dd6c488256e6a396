"""Who may talk to an agent, and who is turned away."""

import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from blockferry.errors import BlockferryError
from blockferry.identity import Identity, Role
from blockferry.tls import dial_options
from blockferry.v1 import agent_pb2, agent_pb2_grpc, transfer_pb2, transfer_pb2_grpc
from blockferry.wire import from_rpc_error
from blockferry_controller.migration.authority import Authority, Credentials
from tests.agents import MIGRATION_ID, AgentProcess, Pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Pair(tmp_path_factory.mktemp("agents")) as pair:
        yield pair


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[AgentProcess]:
    """A sink that was not adopted yet."""
    agent = AgentProcess(Role.SINK, tmp_path / "sink", Authority.create(MIGRATION_ID))
    agent.configure()
    agent.start()
    yield agent
    agent.close()


def agent_key(agent: AgentProcess, role: Role, epoch: int = 1) -> Credentials:
    """A certificate of the migration's root for a role, with a key of the test's."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    pem = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return Credentials(
        certificate_pem=agent.authority.sign(pem, role, epoch),
        key_pem=key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )


def describe(channel: grpc.Channel) -> agent_pb2.DescribeResponse:
    stub = agent_pb2_grpc.AgentServiceStub(channel)
    return stub.Describe(agent_pb2.DescribeRequest(), timeout=5)


def write_state(channel: grpc.Channel) -> transfer_pb2.GetWriteStateResponse:
    stub = transfer_pb2_grpc.TransferServiceStub(channel)
    request = transfer_pb2.GetWriteStateRequest(transfer_id=MIGRATION_ID)
    return stub.GetWriteState(request, timeout=5)


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def refusal(caught: pytest.ExceptionInfo[grpc.RpcError]) -> BlockferryError:
    return from_rpc_error(caught.value, address="the agent")


def test_the_controller_may_describe(pair: Pair) -> None:
    told = describe(pair.sink.channel(pair.sink.authority.controller(1)))
    assert (told.migration_id, told.role, told.adopted) == (
        MIGRATION_ID,
        agent_pb2.ROLE_SINK,
        True,
    )
    assert told.cpu_count >= 1
    assert 0 < told.resident_bytes <= told.peak_resident_bytes < told.memory_bytes


def test_without_a_certificate(pair: Pair) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        describe(pair.sink.channel(None))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_with_a_foreign_authoritys_certificate(pair: Pair) -> None:
    foreign = Authority.create(MIGRATION_ID).controller(1)
    with pytest.raises(grpc.RpcError) as caught:
        describe(pair.sink.channel(foreign))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("hours", [-13, 1], ids=["expired", "not-yet-valid"])
def test_with_a_certificate_out_of_its_time(tmp_path: Path, hours: int) -> None:
    now = datetime.now(timezone.utc)
    authority = Authority.create(MIGRATION_ID, now - timedelta(hours=20))
    agent = AgentProcess(Role.SINK, tmp_path / "sink", authority)
    agent.configure()
    agent.start()
    try:
        agent.adopt()
        assert describe(agent.channel(authority.controller(1))).adopted
        with pytest.raises(grpc.RpcError) as caught:
            describe(agent.channel(authority.controller(1, now + timedelta(hours=hours))))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    finally:
        agent.close()


def test_with_the_bootstrap_certificate(pair: Pair) -> None:
    bootstrap = pair.sink.authority.bootstrap(Role.SINK, 1)
    with pytest.raises(grpc.RpcError) as caught:
        describe(pair.sink.channel(bootstrap))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_in_plaintext(pair: Pair) -> None:
    with grpc.insecure_channel(pair.sink.address) as channel, pytest.raises(grpc.RpcError):
        describe(channel)


def test_over_tls_1_2(pair: Pair, tmp_path: Path) -> None:
    mine = pair.sink.authority.controller(1)
    for name, pem in (("crt", mine.certificate_pem), ("key", mine.key_pem)):
        (tmp_path / name).write_bytes(pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=pair.sink.authority.migration_root_pem.decode())
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    context.set_alpn_protocols(["h2"])
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with (
        socket.create_connection(("127.0.0.1", pair.sink.port), timeout=5) as plain,
        context.wrap_socket(plain) as tls,
    ):
        assert tls.version() == "TLSv1.3"
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with (
        socket.create_connection(("127.0.0.1", pair.sink.port), timeout=5) as plain,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        context.wrap_socket(plain)


def probe(agent: AgentProcess, *addresses: str, seconds: float = 5.0) -> list[agent_pb2.PeerReach]:
    request = agent_pb2.ProbePeerRequest(addresses=addresses)
    request.timeout.FromMilliseconds(round(seconds * 1000))
    return list(agent.stub().ProbePeer(request, timeout=20).reaches)


def test_a_peer_of_another_migration_is_not_reached(pair: Pair, tmp_path: Path) -> None:
    with Pair(tmp_path / "others") as others:
        (reach,) = probe(pair.source, others.sink.address)
    assert not reach.reachable
    assert reach.error.reason == "TLS_REFUSED"


def test_a_peer_that_was_not_adopted_is_not_reached(pair: Pair, tmp_path: Path) -> None:
    fresh = AgentProcess(Role.SINK, tmp_path / "fresh", pair.sink.authority)
    fresh.configure()
    fresh.start()
    try:
        (reach,) = probe(pair.source, fresh.address)
    finally:
        fresh.close()
    assert reach.error.reason == "TLS_REFUSED"


def test_who_takes_the_connection_and_says_nothing_is_no_peer(pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        quiet, found = probe(pair.source, address, pair.sink.address, seconds=0.5)
    assert quiet.error.reason == "PEER_SILENT"
    assert found.reachable


def test_an_agent_without_an_identity_probes_nobody(sink: AgentProcess, pair: Pair) -> None:
    request = agent_pb2.ProbePeerRequest(addresses=[pair.source.address])
    with pytest.raises(grpc.RpcError) as caught:
        sink.stub(bootstrap=True).ProbePeer(request, timeout=5)
    assert refusal(caught).reason == "NOT_ADOPTED"


@pytest.mark.parametrize("role", [Role.SOURCE, Role.SINK])
def test_an_agent_may_not_command(pair: Pair, role: Role) -> None:
    channel = pair.sink.channel(agent_key(pair.sink, role))
    with pytest.raises(grpc.RpcError) as caught:
        describe(channel)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert refusal(caught).reason == "NOT_ALLOWED"


@pytest.mark.parametrize("role", [Role.CONTROLLER, Role.SINK])
def test_only_the_source_may_push(pair: Pair, role: Role) -> None:
    mine = (
        pair.sink.authority.controller(1) if role is Role.CONTROLLER else agent_key(pair.sink, role)
    )
    with pytest.raises(grpc.RpcError) as caught:
        write_state(pair.sink.channel(mine))
    assert refusal(caught).reason == "NOT_ALLOWED"


def test_the_source_may_push(pair: Pair) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        write_state(pair.sink.channel(agent_key(pair.sink, Role.SOURCE)))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert refusal(caught).reason == "TRANSFER_NOT_FOUND"


def test_nothing_is_pushed_to_a_source(pair: Pair) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        write_state(pair.source.channel(agent_key(pair.source, Role.SOURCE)))
    assert refusal(caught).reason == "WRONG_ROLE"


def pull(channel: grpc.Channel, *, transfer_id: str = MIGRATION_ID) -> None:
    hello = transfer_pb2.PullHello(transfer_id=transfer_id, dial=1, channels=1)
    requests = iter([transfer_pb2.PullRequest(hello=hello)])
    for _ in transfer_pb2_grpc.TransferServiceStub(channel).Pull(requests, timeout=5):
        raise AssertionError("frames for somebody who may not have them")


@pytest.mark.parametrize("role", [Role.CONTROLLER, Role.SOURCE])
def test_only_the_sink_may_pull(pair: Pair, role: Role) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        pull(pair.source.channel(agent_key(pair.source, role)))
    assert refusal(caught).reason == "NOT_ALLOWED"


@pytest.mark.parametrize("own", [Role.SOURCE, Role.SINK])
@pytest.mark.parametrize("caller", list(Role))
def test_only_the_pair_may_try_the_link(pair: Pair, own: Role, caller: Role) -> None:
    agent = pair.source if own is Role.SOURCE else pair.sink
    channel = agent.channel(agent_key(agent, caller))
    requests = iter([transfer_pb2.TrialRequest(data=b"four" if own is Role.SINK else b"")])
    answers = transfer_pb2_grpc.TransferServiceStub(channel).Trial(requests, timeout=10)
    if caller not in {own, Role.CONTROLLER}:
        answer = next(answers)
        assert answer.received_bytes == 4 if own is Role.SINK else answer.data
        answers.cancel()
        return
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    assert refusal(caught).reason == "NOT_ALLOWED"


def test_the_sink_may_pull(pair: Pair) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        pull(pair.source.channel(agent_key(pair.source, Role.SINK)))
    assert refusal(caught).reason == "TRANSFER_NOT_FOUND"


def test_nothing_is_pulled_from_a_sink(pair: Pair) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        pull(pair.sink.channel(agent_key(pair.sink, Role.SINK)))
    assert refusal(caught).reason == "WRONG_ROLE"


def test_health_is_open_to_verified_peers(pair: Pair) -> None:
    stub: Any = health_pb2_grpc.HealthStub(pair.sink.channel(agent_key(pair.sink, Role.SOURCE)))
    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_an_unknown_method_is_refused(pair: Pair) -> None:
    channel = pair.sink.channel(pair.sink.authority.controller(1))
    call: Any = channel.unary_unary("/blockferry.v1.AgentService/Nothing")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_before_adoption_the_bootstrap_identity_is_shown(sink: AgentProcess) -> None:
    controller = sink.authority.controller(1)
    assert not describe(sink.channel(controller, bootstrap=True)).adopted
    with pytest.raises(grpc.RpcError):
        describe(sink.channel(controller))
    with pytest.raises(grpc.RpcError) as caught:
        write_state(sink.channel(agent_key(sink, Role.SOURCE), bootstrap=True))
    assert refusal(caught).reason == "NOT_ADOPTED"


def test_adoption_destroys_what_cloud_init_carried(sink: AgentProcess) -> None:
    before = sink.channel(sink.authority.controller(1), bootstrap=True)
    describe(before)
    sink.adopt()
    assert not (sink.directory / "bootstrap.key").exists()
    assert not (sink.directory / "bootstrap.crt").exists()
    controller = sink.authority.controller(1)
    with pytest.raises(grpc.RpcError):
        describe(sink.channel(controller, bootstrap=True))
    assert describe(sink.channel(controller)).adopted
    for path in (sink.directory / "state").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_an_adopted_identity_survives_the_process(sink: AgentProcess) -> None:
    sink.adopt()
    sink.kill()
    sink.start()
    assert describe(sink.channel(sink.authority.controller(1))).adopted


def test_a_sink_of_an_older_epoch_pulls_nothing(tmp_path: Path) -> None:
    source = AgentProcess(Role.SOURCE, tmp_path / "source", Authority.create(MIGRATION_ID))
    source.configure()
    source.start()
    try:
        with pytest.raises(grpc.RpcError) as caught:
            pull(source.channel(agent_key(source, Role.SINK), bootstrap=True))
        assert refusal(caught).reason == "NOT_ADOPTED"
        source.adopt(2)
        with pytest.raises(grpc.RpcError) as caught:
            pull(source.channel(agent_key(source, Role.SINK, 1)))
        assert refusal(caught).reason == "STALE_EPOCH"
    finally:
        source.close()


def test_a_higher_epoch_shuts_the_lower_one_out_for_good(sink: AgentProcess) -> None:
    sink.adopt()
    old, new = sink.authority.controller(1), sink.authority.controller(2)
    assert describe(sink.channel(new)).epoch == 2
    with pytest.raises(grpc.RpcError) as caught:
        describe(sink.channel(old))
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert refusal(caught).reason == "STALE_EPOCH"
    sink.adopt(2, bootstrap=False)
    sink.kill()
    sink.start()
    with pytest.raises(grpc.RpcError) as caught:
        describe(sink.channel(old))
    assert refusal(caught).reason == "STALE_EPOCH"
    with pytest.raises(grpc.RpcError) as caught:
        write_state(sink.channel(agent_key(sink, Role.SOURCE, 1)))
    assert refusal(caught).reason == "STALE_EPOCH"


def test_whose_pair_it_was_is_shut_out_when_it_is_vacated(sink: AgentProcess) -> None:
    """Controller and peer of the migration before, from that moment on, over restarts."""
    sink.adopt()
    stub = sink.stub()
    stub.WriteManifest(
        iter([agent_pb2.WriteManifestRequest(transfer_id=MIGRATION_ID, digests=bytes(32))]),
        timeout=10,
    )
    transfers = sink.directory / "state" / "transfers"
    assert list(transfers.iterdir())
    assert stub.Vacate(agent_pb2.VacateRequest(), timeout=10).epoch == 2
    assert not list(transfers.iterdir())
    before = (sink.directory / "state" / "identity" / "adopted.pem").read_bytes()
    for moment in ("free", "restarted", "handed over"):
        if moment == "restarted":
            sink.kill()
            sink.start()
        elif moment == "handed over":
            sink.adopt(2, bootstrap=False)
        for call, who in (
            (describe, sink.authority.controller(1)),
            (write_state, agent_key(sink, Role.SOURCE, 1)),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                call(sink.channel(who))
            assert refusal(caught).reason == "STALE_EPOCH"
    assert describe(sink.channel(sink.authority.controller(2))).epoch == 2
    assert (sink.directory / "state" / "identity" / "adopted.pem").read_bytes() != before


def test_calls_of_before_end_when_an_agent_is_vacated(sink: AgentProcess) -> None:
    """Or else who had opened one could still write what the next migration goes on from."""
    sink.adopt()
    stub, more = sink.stub(), threading.Event()

    def digests() -> Iterator[agent_pb2.WriteManifestRequest]:
        yield agent_pb2.WriteManifestRequest(transfer_id="m-of-another", digests=bytes(32))
        more.wait(20)
        yield agent_pb2.WriteManifestRequest(
            transfer_id="m-of-another", first_chunk=1, digests=bytes(32)
        )

    open_call = stub.WriteManifest.future(digests(), timeout=30)
    transfers = sink.directory / "state" / "transfers"
    wait_until(lambda: any(transfers.iterdir()))
    stub.Vacate(agent_pb2.VacateRequest(), timeout=10)
    assert open_call.code() is grpc.StatusCode.CANCELLED
    more.set()
    assert not list(transfers.iterdir())


@pytest.mark.parametrize("flaw", ["foreign", "role", "key", "garbage"])
def test_a_certificate_that_does_not_fit_is_not_adopted(sink: AgentProcess, flaw: str) -> None:
    stub = sink.stub(bootstrap=True)
    request = stub.CreateSigningRequest(agent_pb2.CreateSigningRequestRequest(), timeout=10)
    pem = request.signing_request_pem
    assert b"PRIVATE" not in pem
    if flaw == "foreign":
        certificate = Authority.create(MIGRATION_ID).sign(pem, Role.SINK, 1)
    elif flaw == "role":
        certificate = sink.authority.sign(pem, Role.SOURCE, 1)
    elif flaw == "key":
        certificate = agent_key(sink, Role.SINK).certificate_pem
    else:
        certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    with pytest.raises(grpc.RpcError) as caught:
        stub.AdoptIdentity(agent_pb2.AdoptIdentityRequest(certificate_pem=certificate), timeout=10)
    assert refusal(caught).reason == "IDENTITY_REFUSED"
    assert (sink.directory / "bootstrap.key").exists()


def test_a_signing_request_ends_with_the_process_that_made_it(sink: AgentProcess) -> None:
    stub = sink.stub(bootstrap=True)
    request = stub.CreateSigningRequest(agent_pb2.CreateSigningRequestRequest(), timeout=10)
    pending = sink.directory / "state" / "identity" / "pending.key"
    assert pending.exists()
    sink.kill()
    sink.start()
    assert not pending.exists()
    certificate = sink.authority.sign(request.signing_request_pem, Role.SINK, 1)
    with pytest.raises(grpc.RpcError) as caught:
        sink.stub(bootstrap=True).AdoptIdentity(
            agent_pb2.AdoptIdentityRequest(certificate_pem=certificate), timeout=10
        )
    assert refusal(caught).reason == "IDENTITY_REFUSED"
    sink.adopt()
    assert describe(sink.channel(sink.authority.controller(1))).epoch == 1


def test_adopting_twice_changes_nothing(sink: AgentProcess) -> None:
    stub = sink.stub(bootstrap=True)
    request = stub.CreateSigningRequest(agent_pb2.CreateSigningRequestRequest(), timeout=10)
    certificate = sink.authority.sign(request.signing_request_pem, Role.SINK, 1)
    adopt = agent_pb2.AdoptIdentityRequest(certificate_pem=certificate)
    for _ in range(2):
        assert stub.AdoptIdentity(adopt, timeout=10).epoch == 1


def test_an_agent_of_another_migration_is_not_taken_for_it(pair: Pair) -> None:
    other = Identity("another-one", Role.SINK, 1)
    tls = grpc.ssl_channel_credentials(
        pair.sink.authority.migration_root_pem,
        pair.sink.authority.controller(1).key_pem,
        pair.sink.authority.controller(1).certificate_pem,
    )
    options = dial_options(other.server_name)
    with (
        grpc.secure_channel(pair.sink.address, tls, options=options) as channel,
        pytest.raises(grpc.RpcError),
    ):
        describe(channel)
