"""What is refused, what goes wrong on the way, and that neither leaves anything behind.

First what needs no files: meanwhile the guests boot that write and read them.
"""

import signal

import pytest

from tests.e2e.command import MIB, Event
from tests.e2e.conftest import Ferry
from tests.e2e.operator import operator_of
from tests.e2e.pair import until
from tests.e2e.scene import Scene

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(3600),
    # The SDK warns of what its own methods call.
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]

SLOW = ("--limit", "4MiB/s", "--compression", "none")


def copying(event: Event) -> bool:
    """Some data is safe, and some is not."""
    return (
        event["event"] == "progress"
        and int(event["committed_bytes"]) > 0
        and int(event["sent_bytes"]) > 8 * MIB
    )


def cleaned(ferry: Ferry) -> bool:
    """Whether a `cleanup` leaves nothing but volumes."""
    run = ferry.start("cleanup")
    assert run.wait() == 0, run.told()
    ferry.record.add(run)
    return all(one["kind"] == "volume" for one in run.result if one["action"] == "keep")


@pytest.mark.parametrize(
    ("quota", "limit", "reason"),
    [
        # The reader is one instance already.
        ("instances", 1, "QUOTA_INSTANCES"),
        ("security_groups", 0, "QUOTA_SECURITY_GROUPS"),
    ],
)
def test_a_used_up_quota_is_refused(
    ferry: Ferry, scene: Scene, quota: str, limit: int, reason: str
) -> None:
    project = str(ferry.destination.sdk.current_project_id)
    with (
        ferry.nothing_changes(),
        operator_of(ferry.destination.name) as operator,
        operator.quota(project, quota, limit),
    ):
        run = ferry.migrate(scene.volume_id)
        assert run.wait() == 14, run.told()
        assert run.result["error"]["reason"] == reason
        ferry.record.add(run)


def test_a_multiattach_volume_wants_such_a_type_there(shared_type: str, ferry: Ferry) -> None:
    volume_id = ferry.source.make_volume(1, volume_type=shared_type)
    try:
        with ferry.nothing_changes():
            run = ferry.migrate(volume_id)
            assert run.wait() == 12, run.told()
            assert run.result["error"]["reason"] == "MULTIATTACH_LOST"
            ferry.record.add(run)
            run = ferry.migrate(volume_id, "--allow-downgrade", "--dry-run")
            assert run.wait() == 0, run.told()
            said = {one["name"]: one["outcome"] for one in run.result["checks"]}
            assert said["fidelity"] == "warn"
            ferry.record.add(run)
    finally:
        ferry.source.delete_volume(volume_id)


def test_ctrl_c_while_booting_leaves_nothing(ferry: Ferry, scene: Scene) -> None:
    there = ferry.destination.ids("server")
    with ferry.nothing_changes():
        run = ferry.migrate(scene.volume_id)
        until(
            lambda: bool(ferry.destination.ids("server") - there),
            "an instance in the destination", 120,
        )  # fmt: skip
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == 130, run.told()
        ferry.record.add(run)


def test_no_wheels_to_be_had(ferry: Ferry, scene: Scene) -> None:
    with ferry.nothing_changes():
        # TEST-NET-1 (RFC 5737): nobody is there.
        run = ferry.migrate(scene.volume_id, "--wheels", "http://192.0.2.1:8088/")
        code = run.wait()
        ferry.record.add(run)
        assert code == 12, run.told()
        assert run.result["error"]["reason"] == "AGENT_INSTALL_FAILED"
        assert "192.0.2.1" in run.result["error"]["message"]


def test_after_a_killed_controller_cleanup_and_cancel_leave_nothing(
    ferry: Ferry, scene: Scene
) -> None:
    assert scene.files
    with ferry.nothing_changes():
        before = ferry.existing()
        run = ferry.migrate(scene.volume_id, *SLOW)
        run.wait_for(copying)
        run.end()
        ferry.record.add(run)

        # As long as the pair copies on, everything is kept.
        until(lambda: cleaned(ferry), "the pair to end its copy and go", 900, 5.0)

        (kept,) = ferry.destination.existing().ids["volume"] - before[1].ids["volume"]
        ferry.assert_only(before, kept)
        ferry.run("cancel", run.migration_id)


def test_a_killed_controller_is_resumed(ferry: Ferry, scene: Scene) -> None:
    told, before = scene.files, ferry.existing()
    run = ferry.migrate(scene.volume_id, *SLOW)
    run.wait_for(copying)
    run.end()
    ferry.record.add(run)

    result = ferry.run("resume", run.migration_id).result

    assert (result["state"], result["verified"], result["epoch"]) == ("SUCCEEDED", True, 2)
    assert scene.reader.look_at(result["destination_volume_id"]) == told
    scene.assert_source_as_ever(result["digest"])
    ferry.assert_only(before, result["destination_volume_id"])


def test_a_lost_instance_is_replaced(ferry: Ferry, scene: Scene) -> None:
    told, before = scene.files, ferry.existing()
    run = ferry.migrate(scene.volume_id, *SLOW)
    run.wait_for(copying)
    lost = ferry.destination.server_of(run.migration_id)
    ferry.destination.sdk.compute.delete_server(lost)

    result = ferry.finish(run).result

    assert (result["state"], result["verified"], result["epoch"]) == ("SUCCEEDED", True, 1)
    said = [event["message"] for event in run.events if event["event"] == "note"]
    ferry.record.lines += [f"  note: {text[:160]}" for text in said if "going on" in text]
    assert scene.reader.look_at(result["destination_volume_id"]) == told
    scene.assert_source_as_ever(result["digest"])
    ferry.assert_only(before, result["destination_volume_id"])
