"""One try at telling a hook: what arrives, what is refused, and that no try takes too long."""

import base64
import hashlib
import hmac
import json
import os
import socket
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import pytest

from blockferry.errors import PreconditionError
from blockferry_controller.engine.history import Entry
from blockferry_controller.fleet.hooks.sending import UndeliveredError, check, send
from blockferry_controller.fleet.spec import Hook
from tests.fakes.receiver import DRIP, HANGUP, SLOW, receiver

ENTRY = Entry(
    7, "ab" * 16, datetime(2026, 11, 20, 22, tzinfo=timezone.utc), "failed",
    {"why": "GONE", "reason": "é\n<b>", "attempts": 1}, "shop", "m-1", "v-1", "db-1", "all",
    1 << 30,
)  # fmt: skip


def command(*words: str) -> Hook:
    return Hook("c", command=words)


def python(code: str, *more: str) -> Hook:
    return command(sys.executable, "-c", code, *more)


def test_a_server_gets_the_event_and_its_id() -> None:
    with receiver(200) as heard:
        send(Hook("w", url=heard.url), ENTRY, 5)
    assert heard.events == [ENTRY.document()]
    headers = heard.headers[0]
    assert headers["webhook-id"] == ENTRY.id
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert headers["Content-Type"] == "application/json"
    assert headers["webhook-signature"] is None


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (b"  correct horse battery\n", b"correct horse battery"),
        (b"whsec_" + base64.b64encode(b"\x00\xff" * 16), b"\x00\xff" * 16),
    ],
    ids=["as it is", "standard"],
)
def test_what_is_posted_is_signed(tmp_path: Path, text: bytes, secret: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(text)
    with receiver(200) as heard:
        send(Hook("w", url=heard.url, secret_file=str(path)), ENTRY, 5)
    headers = heard.headers[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + heard.bodies[0]
    expected = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert secret not in heard.bodies[0]


@pytest.mark.parametrize("text", [b"", b" \n", b"whsec_", b"whsec_%%"])
def test_without_a_secret_that_is_one_nothing_is_sent(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(text)
    with receiver() as heard:
        with pytest.raises(UndeliveredError):
            send(Hook("w", url=heard.url, secret_file=str(path)), ENTRY, 5)
        assert not heard.bodies


@pytest.mark.parametrize("status", [301, 400, 404, 410, 429, 500, 503])
def test_any_other_answer_is_none(status: int) -> None:
    with receiver(status) as heard, pytest.raises(UndeliveredError, match=str(status)):
        send(Hook("w", url=heard.url), ENTRY, 5)


def test_a_redirect_is_not_followed() -> None:
    with receiver() as other, receiver(other.url) as heard:
        with pytest.raises(UndeliveredError, match="307"):
            send(Hook("w", url=heard.url), ENTRY, 5)
        assert not other.bodies


@pytest.mark.parametrize("how", [SLOW, DRIP])
def test_a_server_that_takes_its_time_is_left(how: str) -> None:
    with receiver(how) as heard:
        begun = time.monotonic()
        with pytest.raises(UndeliveredError, match=r"no answer in 0\.3 s"):
            send(Hook("w", url=heard.url), ENTRY, 0.3)
        assert time.monotonic() - begun < 5


def test_a_server_that_hangs_up_or_is_not_there() -> None:
    with receiver(HANGUP) as heard, pytest.raises(UndeliveredError):
        send(Hook("w", url=heard.url), ENTRY, 5)
    with pytest.raises(UndeliveredError, match="refused"):
        send(Hook("w", url=heard.url), ENTRY, 5)


def test_a_server_that_speaks_something_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(UndeliveredError):
            send(Hook("w", url=url), ENTRY, 0.3)


def test_a_command_gets_the_event_and_no_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_PASSWORD", "hunter2")
    monkeypatch.setenv("BLOCKFERRY_STATE", "postgresql://u:hunter2@h/d")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    code = (
        "import json,os,sys; json.dump([json.load(sys.stdin), dict(os.environ), sys.argv[2:]],"
        " open(sys.argv[1], 'w'))"
    )
    out = tmp_path / "out"
    send(python(code, str(out), "$(id); *"), ENTRY, 20)
    event, environment, words = json.loads(out.read_text(encoding="utf-8"))
    assert event == ENTRY.document()
    assert words == ["$(id); *"]
    assert "hunter2" not in str(environment)
    assert (environment["BLOCKFERRY_EVENT"], environment["BLOCKFERRY_EVENT_FLEET"]) == (
        "failed", "shop",
    )  # fmt: skip
    assert environment["LC_ALL"] == "C.UTF-8"


def test_a_command_that_fails_or_is_not_there() -> None:
    with pytest.raises(UndeliveredError, match="exit code 3"):
        send(python("raise SystemExit(3)"), ENTRY, 20)
    with pytest.raises(UndeliveredError, match="No such file"):
        send(command("/no/such/command"), ENTRY, 20)


def test_a_command_that_reads_nothing_is_well() -> None:
    send(command("true"), ENTRY, 20)


def test_a_command_that_hangs_is_ended_with_all_it_has_begun(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = f"sleep 300 & echo $! $$ > {pids}; trap '' TERM; sleep 300; sleep 300"
    begun = time.monotonic()
    with pytest.raises(UndeliveredError, match="killed"):
        send(command("sh", "-c", code), ENTRY, 1)
    assert time.monotonic() - begun < 20
    for pid in pids.read_text(encoding="ascii").split():
        deadline = time.monotonic() + 10
        while _lives(int(pid)):
            assert time.monotonic() < deadline, pid
            time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except (ProcessLookupError, FileNotFoundError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_what_cannot_work_is_told_before_anything_begins(tmp_path: Path) -> None:
    check([command("true"), Hook("w", url="http://127.0.0.1/")])
    for hook in (
        command("/no/such/command"),
        Hook("w", url="http://127.0.0.1/", secret_file=str(tmp_path / "none")),
    ):
        with pytest.raises(PreconditionError, match=f"hook {hook.name}: "):
            check([hook])
