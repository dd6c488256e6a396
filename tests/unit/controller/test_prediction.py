"""How long a copy takes: a row per bottleneck."""

import pytest

from blockferry.limits import GIB, MIB
from blockferry_controller.migration.prediction import Rates, predict
from blockferry_controller.spec import Transfer, Verify

WIRE = Transfer(verify=Verify.WIRE)
FAST = 1024 * MIB


@pytest.mark.parametrize(
    ("rates", "transfer", "seconds", "bottleneck"),
    [
        pytest.param(Rates(64 * MIB, 128 * MIB, FAST), WIRE, 16, "reading the source, 64.0 MiB/s",
                     id="source"),
        pytest.param(Rates(512 * MIB, 128 * MIB, FAST), WIRE, 8, "the wire, assumed 128 MiB/s",
                     id="wire"),
        pytest.param(Rates(512 * MIB, 128 * MIB, FAST, link_measured=True), WIRE, 8,
                     "the wire, measured 128 MiB/s", id="wire, measured"),
        pytest.param(Rates(512 * MIB, 128 * MIB, FAST), Transfer(verify=Verify.READBACK), 8 + 2,
                     "the wire", id="read back"),
        pytest.param(Rates(512 * MIB, 128 * MIB, FAST, zero_ratio=0.9), WIRE, 2, "reading",
                     id="mostly zeros"),
        pytest.param(Rates(512 * MIB, 128 * MIB, FAST, compressed_ratio=0.5), WIRE, 4, "the wire",
                     id="compresses"),
        pytest.param(Rates(512 * MIB, 128 * MIB, FAST, compressed_ratio=0.5),
                     Transfer(compression="none", verify=Verify.WIRE), 8, "the wire",
                     id="may not compress"),
        pytest.param(Rates(512 * MIB, 128 * MIB, FAST),
                     Transfer(verify=Verify.WIRE, limit_bytes_per_second=32 * MIB), 32, "--limit",
                     id="limit"),
        pytest.param(Rates(512 * MIB, 128 * MIB, 64 * MIB), WIRE, 16,
                     "writing the destination, assumed 64.0 MiB/s", id="destination"),
        pytest.param(Rates(512 * MIB, 128 * MIB, 64 * MIB, write_measured=True), WIRE, 16,
                     "writing the destination, measured 64.0 MiB/s", id="destination, measured"),
        pytest.param(Rates(512 * MIB, 128 * MIB, 64 * MIB, compressed_ratio=0.5), WIRE, 16,
                     "writing", id="is written as it was"),
        pytest.param(Rates(512 * MIB, 128 * MIB, 64 * MIB, zero_ratio=0.75), WIRE, 4,
                     "writing", id="zeros are not written"),
    ],
)  # fmt: skip
def test_the_slowest_stage_sets_the_pace(
    rates: Rates, transfer: Transfer, seconds: float, bottleneck: str
) -> None:
    found = predict(rates, GIB, transfer)
    assert found.seconds == pytest.approx(seconds)
    assert bottleneck in found.bottleneck


def test_nothing_left_takes_no_time() -> None:
    assert predict(Rates(1, 1, 1), 0, Transfer()).seconds == 0
