"""Copies that outlast their certificates, with real agents and a lifetime of seconds."""

import random
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from blockferry.identity import Identity
from blockferry.limits import MIB
from blockferry_controller.agents.credentials import Credentials
from blockferry_controller.agents.dial import dial
from blockferry_controller.agents.port import Agent
from blockferry_controller.clouds.local.cloud import LocalCloud
from blockferry_controller.engine.records import State
from blockferry_controller.engine.state import StateStore
from blockferry_controller.migration.service import Migrations
from blockferry_controller.migration.steps import copy
from blockferry_controller.spec import Endpoint, Kind, Spec, Transfer
from tests.torture.clouds import plain_engine


def test_a_long_copy_renews_every_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "RENEW_SECONDS", 0.8)
    (tmp_path / "source").write_bytes(random.Random(1).randbytes(24 * MIB))
    seen: Counter[str] = Counter()
    certificates = set()

    def counting(
        address: str,
        identity: Identity,
        credentials: Credentials,
        root_pem: bytes,
        *,
        bootstrap: bool = False,
        patient: bool = True,
    ) -> Agent:
        if patient:
            seen[identity.role.value] += 1
            certificates.add(credentials.certificate_pem)
        return dial(address, identity, credentials, root_pem, bootstrap=bootstrap, patient=patient)

    with closing(StateStore.open(f"sqlite:///{tmp_path}/state/state.db")) as store, plain_engine():
        migrations = Migrations(
            store,
            lambda _name: LocalCloud(store.directory / "local"),
            counting,
            lambda _event: None,
        )
        spec = Spec(
            Kind.COPY,
            Endpoint("local", str(tmp_path / "source")),
            Endpoint("local", str(tmp_path / "sink")),
            Transfer(limit_bytes_per_second=8 * MIB),
        )
        record = migrations.run(migrations.create(spec).id)

    assert record.state == State.SUCCEEDED.value
    assert record.progress.sent_bytes == 24 * MIB, "nothing was sent twice"
    assert record.progress.reconnects == 0
    assert (tmp_path / "sink").read_bytes() == (tmp_path / "source").read_bytes()
    # Once at first, and after 0.8, 1.6 and 2.4 s.
    assert seen["source"] >= 3
    assert seen["sink"] >= 3
    assert len(certificates) == seen.total()
