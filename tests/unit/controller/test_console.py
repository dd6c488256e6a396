"""What a console tells, as real consoles say it."""

import pytest

from blockferry_controller.migration.console import STILL_SECONDS, ConsoleWatch, ending

BOOT = "[    0.000000] Linux version 6.1.0-18-cloud-amd64 (debian-kernel@lists.debian.org)\n"


@pytest.mark.parametrize(
    ("line", "reason", "said"),
    [
        pytest.param(
            "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs on (0,0)",
            "BOOT_FAILED", "Unable to mount root", id="panic",
        ),
        pytest.param(
            "ALERT!  UUID=9f2a does not exist.  Dropping to a shell!", "BOOT_FAILED",
            "UUID=9f2a", id="root not found",
        ),
        pytest.param("(initramfs) ", "BOOT_FAILED", "initramfs", id="initramfs prompt"),
        pytest.param(
            "You are in emergency mode. After logging in, type \"journalctl -xb\" to view",
            "BOOT_FAILED", "emergency mode", id="emergency",
        ),
        pytest.param(
            "Give root password for maintenance", "BOOT_FAILED", "maintenance", id="rescue",
        ),
        pytest.param("grub rescue> ", "BOOT_FAILED", "grub rescue", id="grub rescue"),
        pytest.param("No bootable device.", "BOOT_FAILED", "No bootable", id="bios"),
        pytest.param(
            "BdsDxe: No bootable option or device was found.", "BOOT_FAILED", "BdsDxe", id="uefi",
        ),
        pytest.param(
            "[\x1b[0;1;31mFAILED\x1b[0m] Failed to start \x1b[0;1;39mcloud-final.service\x1b[0m - "
            "Cloud-init: Final Stage.", "BOOT_FAILED", "Failed to start cloud-final", id="stage",
        ),
        pytest.param(
            "[   40.1] cloud-init[812]: Cloud-init v. 22.4.2 finished at Sun. Datasource "
            "DataSourceNone.  Up 40.01 seconds", "BOOT_FAILED", "DataSourceNone", id="no drive",
        ),
        pytest.param(
            "2026-11-22 - __init__.py[WARNING]: Unhandled non-multipart (text/x-not-multipart) "
            "userdata: 'b'H4sI'...'", "BOOT_FAILED", "Unhandled", id="old cloud-init",
        ),
        pytest.param(
            "[   50.0] cloud-init[900]: blockferry: install failed: this image has no openssl",
            "AGENT_INSTALL_FAILED", "no openssl", id="installer",
        ),
    ],
)  # fmt: skip
def test_a_boot_that_comes_to_nothing(line: str, reason: str, said: str) -> None:
    found = ending(f"{BOOT}[    1.0] something\r\n{line}\r\n[    9.0] and on\r\n")
    assert found is not None
    assert found.reason == reason
    assert said in found.line
    assert "\x1b" not in found.line
    assert len(found.line) <= 300


@pytest.mark.parametrize(
    "line",
    [
        "[  OK  ] Reached target emergency.target - Emergency Mode (not)",
        "[    2.0] systemd[1]: Created slice system-serial",
        "[    9.0] Out of memory: Killed process 812 (pip)",
        "[   40.1] Cloud-init v. 22.4.2 finished at Sun. Datasource DataSourceConfigDrive",
        "blockferry: installing did not work, 5 more to go: pip: ERROR",
        "GRUB loading.",
        "login: ",
    ],
)
def test_what_is_no_end(line: str) -> None:
    assert ending(BOOT + line + "\n") is None


def test_an_earlier_boot_is_forgotten() -> None:
    assert ending(f"Kernel panic - not syncing: x\n{BOOT}[   1.0] all is well\n") is None
    assert ending(f"{BOOT}all is well\n{BOOT}Kernel panic - not syncing: x\n") is not None


def test_a_console_that_goes_on_is_progress() -> None:
    watch = ConsoleWatch()
    for minute in range(60):
        watch.see(BOOT + f"[{minute}] fetching\n" * (minute + 1), 60.0 * minute)
    assert not watch.gives_up(3540.0, 900.0)
    watch.see(BOOT + "[59] fetching\n" * 60, 3541.0)
    assert not watch.gives_up(3540.0 + STILL_SECONDS - 1, 900.0)
    assert watch.gives_up(3540.0 + STILL_SECONDS, 900.0)


def test_a_console_that_never_speaks_is_given_the_whole_time() -> None:
    watch = ConsoleWatch()
    watch.see("", 500.0)
    assert not watch.gives_up(899.0, 900.0)
    assert watch.gives_up(900.0, 900.0)
    assert not watch.spoken


@pytest.mark.parametrize(
    "line",
    [
        "blockferry: waits for its controller on 10.0.0.7:7443",
        "[  40.1] cloud-init[8]: Cloud-init v. 22.4.2 finished at Sun. Datasource ConfigDrive",
    ],
)
def test_an_instance_that_is_ready_and_not_met(line: str) -> None:
    watch = ConsoleWatch()
    watch.see(f"{BOOT}{line}\n", 100.0)
    watch.see(f"{BOOT}{line}\n[  50.0] something else\n", 180.0)
    assert watch.unmet(219.0) == ""
    assert line in watch.unmet(220.0)
    watch.see(f"{BOOT}{line}\nblockferry: has the agent, installs\n", 230.0)
    assert watch.unmet(900.0) == ""


def test_another_way_to_the_instance_begins_the_wait_anew() -> None:
    watch = ConsoleWatch()
    assert watch.ready_for(50.0) == 0
    watch.see("Linux version 6\nblockferry: waits for its controller\n", 100.0)
    assert watch.ready_for(130.0) == 30.0
    watch.begin_anew(210.0)
    assert watch.unmet(300.0) == ""
    assert "waits for its controller" in watch.unmet(330.0)
