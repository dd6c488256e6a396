import pytest

from blockferry.errors import UsageError
from blockferry_controller.notation import (
    format_bytes,
    format_duration,
    parse_compression,
    parse_controller_address,
    parse_duration,
    parse_rate,
    printable,
    split_address,
)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("200MiB/s", 200 << 20),
        ("200mib/s", 200 << 20),
        (" 1.5 GB/s ", 1_500_000_000),
        ("1kB/s", 1000),
        ("7B/s", 7),
        ("none", 0),
    ],
)
def test_rates_are_read(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "200", "200MiB", "0MiB/s", "-1MiB/s", "1e3MiB/s", "MiB/s", "1MiB/h", "nan B/s",
     "0.1B/s", "9999999TiB/s", "٣MiB", "1MiB/s;"],
)  # fmt: skip
def test_what_is_not_a_rate_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_rate(text)
    assert caught.value.reason == "INVALID_RATE"
    assert "200MiB/s" in caught.value.message


@pytest.mark.parametrize(
    ("text", "normal"),
    [("auto", "auto"), ("NONE", "none"), ("zstd:3", "zstd:3"), ("zstd:-7", "zstd:-7"),
     ("zstd:+19", "zstd:19"), ("zstd:0", "zstd:0")],
)  # fmt: skip
def test_compressions_are_read_into_one_spelling(text: str, normal: str) -> None:
    assert parse_compression(text) == normal


@pytest.mark.parametrize("text", ["", "zstd", "zstd:", "zstd:20", "zstd:-8", "gzip", "zstd:x"])
def test_what_is_not_a_compression_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_compression(text)
    assert caught.value.reason == "INVALID_COMPRESSION"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1, "1 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (1536, "1.50 KiB"),
     (10 << 20, "10.0 MiB"), (123 << 20, "123 MiB"), ((1 << 30) - 1, "1.00 GiB"),
     (5 << 40, "5.00 TiB"), (3000 << 50, "3000 PiB")],
)  # fmt: skip
def test_bytes_have_three_digits(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (0.44, "0.4 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"),
     (7620, "2 h 07 min"), (86400 * 3 + 4 * 3600, "3 d 04 h")],
)  # fmt: skip
def test_durations_name_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_text_from_elsewhere_cannot_move_the_cursor() -> None:
    assert printable("a\x1b[2Jb\nc\udcffé") == "a\\x1b[2Jb\\nc\\udcffé"
    assert printable("a\nb\rc", lines=True) == "a\nb\\rc"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90m", 5400), ("2h", 7200), (" 1H 30m ", 5400), ("45s", 45), ("1d2h3m4s", 93_784)],
)
def test_times_are_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "90", "0m", "-1h", "1.5h", "30m1h", "367d", "h", "٣h", "1w"])
def test_what_is_not_a_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration(text)
    assert caught.value.reason == "INVALID_DURATION"
    assert "1h30m" in caught.value.message


@pytest.mark.parametrize(
    ("text", "written", "split"),
    [
        ("192.0.2.7", "192.0.2.7", ("192.0.2.7", 0)),
        ("192.0.2.7:7444", "192.0.2.7:7444", ("192.0.2.7", 7444)),
        ("2001:DB8::0:7", "2001:db8::7", ("2001:db8::7", 0)),
        ("[2001:db8::7]", "2001:db8::7", ("2001:db8::7", 0)),
        ("[2001:db8::7]:7444", "[2001:db8::7]:7444", ("2001:db8::7", 7444)),
        ("2001:db8::7:7444", "2001:db8::7:7444", ("2001:db8::7:7444", 0)),
    ],
)
def test_a_controllers_address_may_have_a_port(
    text: str, written: str, split: tuple[str, int]
) -> None:
    assert parse_controller_address(text) == written
    assert split_address(written) == split


@pytest.mark.parametrize(
    "text", ["me", "me:7444", "192.0.2.7:", "192.0.2.7:0", "1.2.3.4:65536", ""]
)
def test_what_is_no_controllers_address(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_controller_address(text)
    assert caught.value.reason == "INVALID_ADDRESS"
