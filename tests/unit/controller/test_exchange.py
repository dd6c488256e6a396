"""Where agents dial the controller: who is let in, who is not, and what bounds hold."""

import contextlib
import errno
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from blockferry.errors import PreconditionError
from blockferry.identity import Role
from blockferry.limits import TUNNEL_IDLE
from blockferry.splice import open_connection
from blockferry_agent.tunnel import Tunnel
from blockferry_controller.agents import exchange as exchange_module
from blockferry_controller.agents.exchange import WAITING_MAX, Exchange, Exchanges
from blockferry_controller.migration.authority import Authority

SOURCE, SINK = Role.SOURCE, Role.SINK


@pytest.fixture(scope="module")
def hellos() -> dict[Role, str]:
    authority = Authority.create("m-test")
    return {role: authority.tunnel_hello(role) for role in (SOURCE, SINK)}


@pytest.fixture
def exchange(hellos: dict[Role, str]) -> Iterator[Exchange]:
    with exchange_on(0, hellos) as found:
        yield found


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def dial(exchange: Exchange, held: ExitStack, first: bytes = b"") -> socket.socket:
    connection = held.enter_context(socket.create_connection(("127.0.0.1", exchange.port), 10))
    connection.sendall(first)
    return connection


def is_dropped(connection: socket.socket) -> bool:
    """Whether we are sent away within the socket's time."""
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True


def serve_echo(held: ExitStack) -> str:
    """An agent's own port, which gives back what it gets; its address."""
    listener = held.enter_context(socket.create_server(("127.0.0.1", 0)))

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while part := connection.recv(4096):
                connection.sendall(part)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    held.callback(listener.shutdown, socket.SHUT_RDWR)
    return f"127.0.0.1:{listener.getsockname()[1]}"


def test_an_agent_that_dials_is_spoken_to(
    exchange: Exchange, hellos: dict[Role, str], held: ExitStack
) -> None:
    tunnel = Tunnel(f"127.0.0.1:{exchange.port}", hellos[SINK], serve_echo(held))
    tunnel.start()
    held.callback(tunnel.stop)
    eventually(lambda: exchange.waiting(SINK) == TUNNEL_IDLE)
    clients = [held.enter_context(open_connection(exchange.address(SINK))) for _ in range(6)]
    for number, client in enumerate(clients):
        client.sendall(f"hello {number}".encode())
    for number, client in enumerate(clients):
        assert client.recv(7, socket.MSG_WAITALL) == f"hello {number}".encode()
    eventually(lambda: exchange.waiting(SINK) == TUNNEL_IDLE)
    assert exchange.waiting(SOURCE) == 0
    assert (exchange.origins(SINK), exchange.origins(SOURCE)) == (["127.0.0.1"], [])


def test_an_agent_dials_until_somebody_is_there(hellos: dict[Role, str], held: ExitStack) -> None:
    with exchange_on(0, hellos) as first:
        port = first.port
    tunnel = Tunnel(f"127.0.0.1:{port}", hellos[SOURCE], serve_echo(held))
    tunnel.start()
    held.callback(tunnel.stop)
    for _ in range(2):  # and once more, when it comes back
        with exchange_on(port, hellos) as found:
            eventually(lambda found=found: found.waiting(SOURCE) > 0)  # type: ignore[misc]


@contextlib.contextmanager
def exchange_on(
    port: int, hellos: dict[Role, str], exchanges: Exchanges | None = None
) -> Iterator[Exchange]:
    found = (exchanges or Exchanges()).open(port, socket.AF_INET, hellos)
    try:
        yield found
    finally:
        found.close()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"\n", id="nothing"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
        pytest.param(b"\x16\x03\x01" + bytes(300), id="TLS, and more than a line"),
        pytest.param(b"x" * 400, id="a line without an end"),
        pytest.param(b"blockferry-tunnel m-test sink\n", id="no ticket"),
        pytest.param(b"blockferry-tunnel m-test sink " + b"0" * 64 + b"\n", id="wrong ticket"),
        pytest.param(b"blockferry-tunnel \xff\xfe sink\n", id="no text"),
    ],
)
def test_a_stranger_is_dropped(exchange: Exchange, held: ExitStack, said: bytes) -> None:
    assert is_dropped(dial(exchange, held, said))
    assert exchange.waiting(SOURCE) == exchange.waiting(SINK) == 0


def test_the_ticket_of_another_migration_or_role_is_worth_nothing(
    exchange: Exchange, hellos: dict[Role, str], held: ExitStack
) -> None:
    other = Authority.create("m-test").tunnel_hello(SINK)
    mixed = hellos[SOURCE].replace(" source ", " sink ")
    for hello in (other, mixed):
        assert is_dropped(dial(exchange, held, hello.encode() + b"\n"))
    assert exchange.waiting(SINK) == 0


def test_a_hello_in_pieces_is_heard(
    exchange: Exchange, hellos: dict[Role, str], held: ExitStack
) -> None:
    connection = dial(exchange, held)
    for byte in hellos[SINK].encode() + b"\n":
        connection.send(bytes([byte]))
    eventually(lambda: exchange.waiting(SINK) == 1)


def test_who_says_nothing_is_dropped(
    hellos: dict[Role, str], held: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "HELLO_SECONDS", 0.3)
    with exchange_on(0, hellos) as exchange:
        assert is_dropped(dial(exchange, held))
        assert is_dropped(dial(exchange, held, hellos[SINK].encode()[:20]))


def test_a_crowd_of_half_open_connections_keeps_no_agent_out(
    exchange: Exchange, hellos: dict[Role, str], held: ExitStack
) -> None:
    """Of those that say nothing the oldest go; an agent says its line at once."""
    crowd = [dial(exchange, held, b"blockferry-") for _ in range(exchange_module.HELLOS_MAX + 8)]
    dial(exchange, held, hellos[SINK].encode() + b"\n")
    eventually(lambda: exchange.waiting(SINK) == 1)
    assert is_dropped(crowd[0])


def test_too_many_connections_of_an_agent_replace_each_other(
    exchange: Exchange, hellos: dict[Role, str], held: ExitStack
) -> None:
    first, *_ = [
        dial(exchange, held, hellos[SINK].encode() + b"\n") for _ in range(WAITING_MAX + 3)
    ]
    assert is_dropped(first)
    eventually(lambda: exchange.waiting(SINK) == WAITING_MAX)


def test_a_connection_that_has_ended_or_speaks_out_of_turn_is_not_used(
    exchange: Exchange, hellos: dict[Role, str], held: ExitStack
) -> None:
    hello = hellos[SINK].encode() + b"\n"
    dead = dial(exchange, held, hello)
    eventually(lambda: exchange.waiting(SINK) == 1)
    eager = dial(exchange, held, hello)
    eventually(lambda: exchange.waiting(SINK) == 2)
    eager.sendall(b"x")
    good = dial(exchange, held, hello)
    eventually(lambda: exchange.waiting(SINK) == 3)
    dead.close()
    client = held.enter_context(open_connection(exchange.address(SINK)))
    assert good.recv(3, socket.MSG_WAITALL) == b"go\n"
    good.sendall(b"here")
    assert client.recv(4, socket.MSG_WAITALL) == b"here"


def test_without_an_agent_a_client_is_told_so_soon(
    exchange: Exchange, held: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange_module, "TAKE_SECONDS", 0.1)
    client = held.enter_context(open_connection(exchange.address(SOURCE)))
    client.settimeout(10)
    assert is_dropped(client)


def test_closing_ends_what_is_carried_and_leaves_no_file(
    hellos: dict[Role, str], held: ExitStack
) -> None:
    with exchange_on(0, hellos) as exchange:
        agent = dial(exchange, held, hellos[SINK].encode() + b"\n")
        eventually(lambda: exchange.waiting(SINK) == 1)
        path = exchange.address(SINK).removeprefix("unix:")
        client = held.enter_context(open_connection(exchange.address(SINK)))
        assert agent.recv(3, socket.MSG_WAITALL) == b"go\n"
    client.settimeout(10)
    assert is_dropped(client)
    assert is_dropped(agent)
    with pytest.raises(OSError, match="No such file"):
        open_connection(f"unix:{path}")


def test_a_port_that_another_process_has_is_told(
    exchange: Exchange, hellos: dict[Role, str]
) -> None:
    with pytest.raises(PreconditionError) as caught:
        Exchanges().open(exchange.port, socket.AF_INET, hellos)
    assert caught.value.reason == "CONTROLLER_PORT_TAKEN"


def test_what_could_not_be_opened_whole_leaves_nothing(
    hellos: dict[Role, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No more files can be opened, or threads begun, between the two desks."""
    desk, made, before = exchange_module._Desk, list[Path](), set(threading.enumerate())

    def second_fails(path: Path) -> object:
        made.append(path)
        if len(made) == 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return desk(path)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(exchange_module, "_Desk", second_fails)
    exchanges = Exchanges()
    with pytest.raises(OSError, match="Too many"):
        exchanges.open(0, socket.AF_INET, hellos)

    eventually(lambda: not set(threading.enumerate()) - before)
    assert list(tmp_path.iterdir()) == []
    assert not exchanges._ports


def test_migrations_of_one_process_share_a_port(hellos: dict[Role, str], held: ExitStack) -> None:
    exchanges = Exchanges()
    authority = Authority.create("m-other")
    others = {role: authority.tunnel_hello(role) for role in (SOURCE, SINK)}
    with exchange_on(0, hellos, exchanges) as first:
        with exchange_on(first.port, others, exchanges) as second:
            assert second.port == first.port
            dial(first, held, others[SINK].encode() + b"\n")
            eventually(lambda: second.waiting(SINK) == 1)
            assert first.waiting(SINK) == 0
        assert is_dropped(dial(first, held, others[SINK].encode() + b"\n"))
        dial(first, held, hellos[SINK].encode() + b"\n")
        eventually(lambda: first.waiting(SINK) == 1)
    with exchange_on(first.port, others):
        """It is free for another process, too."""


def test_an_agent_comes_to_the_newest_attempt_of_its_migration(
    hellos: dict[Role, str], held: ExitStack
) -> None:
    """What an attempt that is lost still holds would keep the agent from dialling anew."""
    exchanges, hello = Exchanges(), hellos[SINK].encode() + b"\n"
    with exchange_on(0, hellos, exchanges) as lost:
        waits = dial(lost, held, hello)
        eventually(lambda: lost.waiting(SINK) == 1)
        with exchange_on(lost.port, hellos, exchanges) as newest:
            assert is_dropped(waits)
            lost.close()
            dial(newest, held, hello)
            eventually(lambda: newest.waiting(SINK) == 1)
