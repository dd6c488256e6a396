from blockferry.limits import MIB
from blockferry_agent.stageclock import StageClock


def test_one_line_tells_where_the_time_went() -> None:
    clock = StageClock("read", "send")
    clock["read"].add(3 * MIB, 0.5)
    clock["read"].add(MIB, 1.5)
    clock["send"].waited(0.25)
    assert clock.summary() == (
        "read 2 ops 4.0 MiB 2.00 s 2.0 MiB/s waited 0.00 s; "
        "send 0 ops 0.0 MiB 0.00 s 0.0 MiB/s waited 0.25 s"
    )
