"""The installer does its work: real pip, real wheels, served on loopback."""

import hashlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from blockferry_controller.migration.bundle import UNPACK, bundle_files, pack_bundle

ROOT = Path(__file__).resolve().parents[2]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"

pytestmark = pytest.mark.timeout(240)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make wheelhouse` collects for this Python, about 15 MB, in `all` and as `simple`."""
    root = tmp_path_factory.mktemp("wheels")
    pins = subprocess.run(
        [sys.executable, "agent/lock.py", "--for", VERSION],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=30,
    ).stdout
    (root / "pins").write_bytes(pins)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
            *("--only-binary", ":all:", "--dest", str(root / "all"), "-r", str(root / "pins")),
        ],
        check=True,
        timeout=180,
    )
    for wheel in (root / "all").iterdir():
        project = wheel.name.split("-")[0].replace("_", "-")
        (root / "simple" / project).mkdir(parents=True)
        (root / "simple" / project / wheel.name).symlink_to(wheel)
    return root


@pytest.fixture
def url(wheels: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(wheels)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """What a stock image has after the first of the two commands."""
    root = tmp_path / "opt"
    root.mkdir()
    (root / "agent.bz2").write_bytes(pack_bundle())
    subprocess.run([sys.executable, "-I", "-c", UNPACK, root], check=True, timeout=30)
    return root


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has nothing, not even pip, like a stock image's."""
    root = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True, timeout=60)
    return root / "bin" / "python"


def install(
    python: Path, prefix: Path, wheels: str, *, tries: int = 1
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(str(python), str(prefix / "install.py"), "--prefix", str(prefix)),
            *("--wheels", wheels, "--tries", str(tries)),
        ],
        env={"PATH": str(few_commands(prefix))},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def few_commands(prefix: Path) -> Path:
    """A directory for PATH without a package manager: a test must not install packages."""
    commands = prefix.parent / "commands"
    commands.mkdir(exist_ok=True)
    for name in ("sh", "openssl"):
        found = shutil.which(name)
        assert found is not None
        if not (commands / name).exists():
            (commands / name).symlink_to(found)
    return commands


def version_of(prefix: Path) -> str:
    return subprocess.run(
        [prefix / "bin" / "blockferry-agent", "--version"],
        env={"PATH": str(few_commands(prefix))},
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout


@pytest.mark.parametrize(
    "place", [pytest.param("all/", id="page-of-links"), pytest.param("simple", id="index")]
)
def test_an_image_without_pip_gets_the_agent(
    bare_python: Path, prefix: Path, url: str, place: str
) -> None:
    done = install(bare_python, prefix, f"{url}/{place}")
    assert done.returncode == 0, done.stderr
    assert "blockferry" not in done.stderr
    assert version_of(prefix)
    again = install(bare_python, prefix, "http://127.0.0.1:1/")
    assert (again.returncode, again.stderr) == (0, "")


def test_an_image_with_pip_uses_it(prefix: Path, url: str) -> None:
    done = install(Path(sys.executable), prefix, f"{url}/all")
    assert done.returncode == 0, done.stderr
    assert not list(prefix.glob("pip-*.whl"))
    assert version_of(prefix)


def test_another_wheel_than_the_locked_one_is_refused(
    bare_python: Path, prefix: Path, url: str
) -> None:
    lock = prefix / "requirements.lock"
    text = lock.read_text(encoding="utf-8")
    begin = text.index("protobuf==")
    end = text.index("typing-extensions==")
    other = hashlib.sha256(b"another wheel").hexdigest()
    lock.write_text(
        f"{text[:begin]}{text[begin:end].split()[0]} --hash=sha256:{other}\n{text[end:]}",
        encoding="utf-8",
    )
    done = install(bare_python, prefix, f"{url}/all/")
    assert done.returncode == 1
    assert "blockferry: install failed: pip: " in done.stderr
    assert not (prefix / "bin").exists()


def test_another_pip_than_the_locked_one_never_runs(
    bare_python: Path, prefix: Path, url: str
) -> None:
    lock = prefix / "pip.lock"
    version = lock.read_text(encoding="utf-8").split("pip==")[1].split()[0]
    lock.write_text(f"pip=={version} --hash=sha256:{'0' * 64}\n", encoding="utf-8")
    done = install(bare_python, prefix, f"{url}/all/")
    assert done.returncode == 1
    assert "is not the one that is locked" in done.stderr
    assert not list(prefix.glob("pip-*.whl"))


def test_a_server_that_is_not_there_is_named_without_its_password(
    bare_python: Path, prefix: Path
) -> None:
    done = install(bare_python, prefix, "http://user:secret@127.0.0.1:1/wheels/", tries=2)
    assert done.returncode == 1
    assert "secret" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[0].startswith("blockferry: installing did not work, 1 more to go: ")
    assert lines[-1].startswith("blockferry: install failed: ")
    assert "127.0.0.1:1" in lines[-1]
    # The controller ends its wait when it sees this, so it must come only at the end.
    assert done.stderr.count("blockferry: install failed") == 1


def test_the_bundle_needs_nothing_but_the_locked_wheels(
    bare_python: Path, prefix: Path, wheels: Path, tmp_path: Path
) -> None:
    lib = tmp_path / "lib"
    for wheel in (wheels / "all").iterdir():
        if not wheel.name.startswith("pip-"):
            subprocess.run(
                [sys.executable, "-m", "zipfile", "-e", wheel, lib], check=True, timeout=60
            )
    shown = subprocess.run(
        [bare_python, prefix / "agent", "--help"],
        env={"PYTHONPATH": str(lib)},
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "serve" in shown.stdout


def test_all_it_carries_is_in_one_place() -> None:
    names = set(bundle_files())
    assert {"install.py", "requirements.lock", "pip.lock", "agent/__main__.py"} <= names
    assert all(name.startswith("agent/") for name in names if name.count("/"))
