import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from blockferry.errors import UsageError
from blockferry.limits import CHUNK_BYTES, DIGEST_BYTES
from blockferry_agent.chunk import zero_digest
from blockferry_agent.manifest import Manifest, RootHasher

CHUNKS = 12
TAIL_BYTES = 513
SIZE = (CHUNKS - 1) * CHUNK_BYTES + TAIL_BYTES
PLACE = st.integers(-1, CHUNKS + 1)


def zeros(chunk: int) -> bytes:
    return zero_digest(TAIL_BYTES if chunk == CHUNKS - 1 else CHUNK_BYTES)


class ManifestIsAList(RuleBasedStateMachine):
    """A manifest does what a list of digests does, over any number of restarts."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        directory = self._stack.enter_context(tempfile.TemporaryDirectory())
        self._path = Path(directory) / "manifest"
        self._manifest = Manifest.open(self._path, SIZE)
        self._model: list[bytes] = []

    def _put(self, first: int, digests: list[bytes], act: Callable[[], None]) -> None:
        legal = digests and 0 <= first <= len(self._model) and first + len(digests) <= CHUNKS
        try:
            act()
        except UsageError:
            assert not legal
        else:
            assert legal
            self._model[first : first + len(digests)] = digests

    @rule(first=PLACE, marks=st.lists(st.integers(0, 255), max_size=CHUNKS + 1))
    def put(self, first: int, marks: list[int]) -> None:
        digests = [bytes([mark]) * DIGEST_BYTES for mark in marks]
        self._put(first, digests, lambda: self._manifest.put(first, b"".join(digests)))

    @rule(count=st.integers(1, CHUNKS))
    def extend(self, count: int) -> None:
        self.put(len(self._model), list(range(count)))

    @rule(first=PLACE, count=st.integers(0, CHUNKS + 1))
    def put_zeros(self, first: int, count: int) -> None:
        digests = [zeros(chunk) for chunk in range(first, first + count)]
        self._put(first, digests, lambda: self._manifest.put_zeros(first, count))

    @rule(count=PLACE)
    def truncate(self, count: int) -> None:
        self._manifest.truncate(count)
        del self._model[max(count, 0) :]

    @rule(torn=st.binary(max_size=DIGEST_BYTES - 1))
    def restart(self, torn: bytes) -> None:
        self._manifest.close()
        if len(self._model) < CHUNKS:
            with self._path.open("ab") as file:
                file.write(torn)
        self._manifest = Manifest.open(self._path, SIZE)

    @invariant()
    def same_as_the_list(self) -> None:
        assert self._manifest.count == len(self._model)
        assert b"".join(run for _, run in self._manifest.runs()) == b"".join(self._model)
        if len(self._model) == CHUNKS:
            hasher = RootHasher(SIZE)
            for one in self._model:
                hasher.update(one)
            assert self._manifest.root() == hasher.digest()

    def teardown(self) -> None:
        self._manifest.close()
        self._stack.close()


TestManifest = ManifestIsAList.TestCase
TestManifest.settings = settings(max_examples=60, stateful_step_count=20)
