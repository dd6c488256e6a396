"""The files an agent keeps of each transfer: its manifest, and a sink's journal."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from blockferry.errors import NotFoundError, UsageError
from blockferry.identity import is_migration_id
from blockferry.limits import DIGEST_BYTES
from blockferry_agent.excerpt import SealedManifest
from blockferry_agent.journal import Journal
from blockferry_agent.manifest import Manifest

_ANY_SIZE_BYTES: Final = 1 << 60
"""For manifests whose transfer's size is not known: larger than any device."""


class TransferFiles:
    """One directory a transfer, mode 0700, below the agent's state directory."""

    def __init__(self, state_directory: Path) -> None:
        self._root = state_directory / "transfers"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    def knows(self, transfer_id: str) -> bool:
        """Whether a job of the transfer, or a controller's digests, have ever been here."""
        return self._path(transfer_id).exists()

    def manifest(self, transfer_id: str, size_bytes: int) -> Manifest:
        """Open or make the manifest; one user at a time."""
        return Manifest.open(self._directory(transfer_id) / "manifest", size_bytes)

    def journal(self, transfer_id: str) -> Journal:
        """Open or make the journal; one user at a time."""
        return Journal.open(self._directory(transfer_id) / "journal")

    def repair_manifest(self, transfer_id: str, size_bytes: int) -> SealedManifest:
        """As `manifest`, of an excerpt of `size_bytes`; not sealed yet."""
        return SealedManifest.open(self._directory(transfer_id) / "repair-manifest", size_bytes)

    def repair_journal(self, transfer_id: str) -> Journal:
        """As `journal`, of an excerpt: the transfer's own commit point is not touched."""
        return Journal.open(self._directory(transfer_id) / "repair-journal")

    def read(self, transfer_id: str, first_chunk: int) -> Iterator[tuple[int, bytes]]:
        """Runs of digests of a transfer that no job works on.

        Raises:
            NotFoundError: TRANSFER_NOT_FOUND.
        """
        path = self._path(transfer_id) / "manifest"
        if not path.exists():
            raise NotFoundError(
                "TRANSFER_NOT_FOUND",
                f"This agent knows no transfer {transfer_id}.",
                transfer_id=transfer_id,
            )
        with Manifest.open(path, _ANY_SIZE_BYTES) as manifest:
            yield from manifest.runs(first_chunk)

    def write(self, transfer_id: str, runs: Iterable[tuple[int, bytes]]) -> int:
        """Complete the manifest of a transfer that no job works on.

        Args:
            transfer_id: A journal of it stays, and counts as far as the
                manifest reaches.
            runs: Contiguous from chunk 0 on. What is known beyond them stays,
                unless they contradict it: whoever gives them may know less.

        Returns:
            How many chunks are known now.

        Raises:
            UsageError: MANIFEST_GAP or DIGESTS_INVALID.
        """
        with self.manifest(transfer_id, _ANY_SIZE_BYTES) as manifest:
            end_chunk = 0
            for first_chunk, digests in runs:
                if first_chunk != end_chunk:
                    raise UsageError(
                        "MANIFEST_GAP",
                        f"The manifest given goes on at chunk {first_chunk} instead of "
                        f"{end_chunk}; give it in order, from chunk 0 on.",
                        first_chunk=first_chunk,
                    )
                end_chunk = first_chunk + len(digests) // DIGEST_BYTES
                known = b"".join(run for _, run in manifest.runs(first_chunk, end_chunk))
                if known == digests:
                    continue
                if not digests.startswith(known):
                    manifest.truncate(first_chunk)
                manifest.put(first_chunk, digests)
            manifest.sync()
            return manifest.count

    def clear(self) -> None:
        """Remove all of every transfer; no job works on any."""
        for path in self._root.iterdir():
            shutil.rmtree(path)

    def _directory(self, transfer_id: str) -> Path:
        path = self._path(transfer_id)
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def _path(self, transfer_id: str) -> Path:
        if not is_migration_id(transfer_id):
            raise UsageError(
                "TRANSFER_ID_INVALID",
                f"{transfer_id!r} is no transfer id: 2 to 40 of [a-z0-9-].",
                transfer_id=transfer_id,
            )
        return self._root / transfer_id
