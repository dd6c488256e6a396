import os
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

from blockferry_controller.engine import lease
from blockferry_controller.engine.lease import Holder, LeaseKeeper


def test_this_process_is_not_dead() -> None:
    holder = Holder.of_this_process()
    assert holder.pid == os.getpid()
    assert not holder.dead


def test_text_round_trip() -> None:
    holder = Holder.of_this_process()
    assert Holder.parse(str(holder)) == holder


def test_ended_process_of_this_host_is_dead() -> None:
    program = (
        "from blockferry_controller.engine.lease import Holder; print(Holder.of_this_process())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert Holder.parse(done.stdout.strip()).dead


def test_pid_used_again_is_dead() -> None:
    mine = Holder.of_this_process()
    assert Holder(mine.host, mine.pid, "1", mine.nonce).dead


def test_process_of_another_host_is_never_called_dead() -> None:
    assert not Holder("elsewhere-00000000", 1, "1", "n").dead


@pytest.mark.parametrize("answer", ["no", "error"])
def test_a_lease_that_cannot_be_renewed_is_lost(
    monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 1.5)
    asked: list[float] = []

    def renew() -> bool:
        asked.append(time.monotonic())
        if answer == "error":
            raise OSError("the database is away")
        return False

    lost = threading.Event()
    with closing(LeaseKeeper(renew, lost.set)):
        assert lost.wait(10)
    # One refusal is enough; an error is none until the time is over.
    assert len(asked) == 1 if answer == "no" else len(asked) >= 2


def test_a_database_that_is_away_for_a_moment_costs_no_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 3.0)
    answers = iter([OSError("away")])
    renewed, lost = threading.Event(), threading.Event()

    def renew() -> bool:
        for error in answers:
            raise error
        renewed.set()
        return True

    with closing(LeaseKeeper(renew, lost.set)):
        assert renewed.wait(10)
    assert not lost.is_set()


def test_a_renewal_that_hangs_loses_the_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.3)
    lost, answered = threading.Event(), threading.Event()

    def renew() -> bool:
        return answered.wait(20)

    with closing(LeaseKeeper(renew, lost.set)):
        assert lost.wait(10)
        answered.set()


def test_who_was_stopped_knows_by_the_clock_that_the_lease_has_lapsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with closing(LeaseKeeper(lambda: True, lambda: None)) as keeper:
        assert not keeper.lapsed
        later = time.monotonic() + lease.LEASE_SECONDS + 1
        monkeypatch.setattr("time.monotonic", lambda: later)
        assert keeper.lapsed
