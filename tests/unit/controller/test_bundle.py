"""The agent as one file."""

import io
import zipfile

import pytest

from blockferry.errors import InternalError
from blockferry_controller.delivery import bundle
from blockferry_controller.delivery.bundle import build_bundle


def entries() -> list[zipfile.ZipInfo]:
    with zipfile.ZipFile(io.BytesIO(build_bundle())) as opened:
        assert opened.testzip() is None
        return opened.infolist()


def test_it_holds_the_sources_of_three_packages_and_nothing_else() -> None:
    names = [entry.filename for entry in entries()]
    assert names == sorted(names)
    assert "__main__.py" in names
    assert {name.split("/")[0] for name in names} == {"__main__.py", *bundle.PACKAGES}
    assert all(name.endswith(".py") for name in names)
    assert "blockferry_agent/__main__.py" in names


def test_nothing_in_it_depends_on_when_or_where_it_was_made() -> None:
    for entry in entries():
        assert entry.date_time == (1980, 1, 1, 0, 0, 0)
        assert entry.compress_type == zipfile.ZIP_STORED
        assert entry.external_attr == 0o644 << 16
        assert not entry.filename.startswith("/")


def test_a_package_that_is_not_here_is_named() -> None:
    with pytest.raises(InternalError) as caught:
        bundle.package_directory("blockferry_nowhere")
    assert caught.value.reason == "BUNDLE_SOURCE_MISSING"
