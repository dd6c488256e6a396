import os
import subprocess
import sys

from blockferry_controller.engine.lease import Holder


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
