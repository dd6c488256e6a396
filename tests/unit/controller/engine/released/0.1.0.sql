-- The state database as 0.1.0 makes it, with a row of each kind. Never edited.
-- TIMESTAMP_UTC, BYTES, {SPEC} and {DIGEST}: see test_schema.py.
CREATE TABLE blockferry_schema (
  version INTEGER NOT NULL,
  PRIMARY KEY (version)
);
CREATE TABLE blockferry_migrations (
  id VARCHAR(40) NOT NULL,
  kind VARCHAR(16) NOT NULL,
  state VARCHAR(16) NOT NULL,
  spec JSON NOT NULL,
  source TEXT NOT NULL,
  destination TEXT NOT NULL,
  size_bytes BIGINT NOT NULL,
  epoch INTEGER NOT NULL,
  request VARCHAR(16) NOT NULL,
  facts JSON NOT NULL,
  message TEXT NOT NULL,
  error JSON,
  result JSON,
  created_at TIMESTAMP_UTC NOT NULL,
  updated_at TIMESTAMP_UTC NOT NULL,
  ended_at TIMESTAMP_UTC,
  PRIMARY KEY (id)
);
CREATE INDEX ix_blockferry_migrations_state ON blockferry_migrations (state);
CREATE TABLE blockferry_fleets (
  id VARCHAR(40) NOT NULL,
  state VARCHAR(16) NOT NULL,
  source TEXT NOT NULL,
  destination TEXT NOT NULL,
  document JSON NOT NULL,
  settings JSON NOT NULL,
  message TEXT NOT NULL,
  version INTEGER NOT NULL,
  holder TEXT NOT NULL,
  expires_at FLOAT NOT NULL,
  created_at TIMESTAMP_UTC NOT NULL,
  updated_at TIMESTAMP_UTC NOT NULL,
  ended_at TIMESTAMP_UTC,
  PRIMARY KEY (id)
);
CREATE TABLE blockferry_leases (
  migration_id VARCHAR(40) NOT NULL,
  holder TEXT NOT NULL,
  expires_at FLOAT NOT NULL,
  PRIMARY KEY (migration_id),
  FOREIGN KEY(migration_id) REFERENCES blockferry_migrations (id) ON DELETE CASCADE
);
CREATE TABLE blockferry_progress (
  migration_id VARCHAR(40) NOT NULL,
  progress JSON NOT NULL,
  PRIMARY KEY (migration_id),
  FOREIGN KEY(migration_id) REFERENCES blockferry_migrations (id) ON DELETE CASCADE
);
CREATE TABLE blockferry_steps (
  migration_id VARCHAR(40) NOT NULL,
  epoch INTEGER NOT NULL,
  position INTEGER NOT NULL,
  name VARCHAR(32) NOT NULL,
  seconds FLOAT NOT NULL,
  detail TEXT NOT NULL,
  PRIMARY KEY (migration_id, epoch, position),
  FOREIGN KEY(migration_id) REFERENCES blockferry_migrations (id) ON DELETE CASCADE
);
CREATE TABLE blockferry_requests (
  migration_id VARCHAR(40) NOT NULL,
  want VARCHAR(16) NOT NULL,
  value JSON NOT NULL,
  asked_at TIMESTAMP_UTC NOT NULL,
  answered_at TIMESTAMP_UTC,
  answer TEXT NOT NULL,
  PRIMARY KEY (migration_id, want),
  FOREIGN KEY(migration_id) REFERENCES blockferry_migrations (id) ON DELETE CASCADE
);
CREATE TABLE blockferry_reports (
  migration_id VARCHAR(40) NOT NULL,
  report JSON NOT NULL,
  PRIMARY KEY (migration_id),
  FOREIGN KEY(migration_id) REFERENCES blockferry_migrations (id) ON DELETE CASCADE
);
CREATE TABLE blockferry_manifests (
  migration_id VARCHAR(40) NOT NULL,
  first_chunk BIGINT NOT NULL,
  digests BYTES NOT NULL,
  PRIMARY KEY (migration_id, first_chunk),
  FOREIGN KEY(migration_id) REFERENCES blockferry_migrations (id) ON DELETE CASCADE
);
CREATE TABLE blockferry_fleet_items (
  fleet_id VARCHAR(40) NOT NULL,
  position INTEGER NOT NULL,
  volume_id TEXT NOT NULL,
  name TEXT NOT NULL,
  size_bytes BIGINT NOT NULL,
  wave VARCHAR(40) NOT NULL,
  state VARCHAR(16) NOT NULL,
  "plan" JSON NOT NULL,
  why VARCHAR(64) NOT NULL,
  reason TEXT NOT NULL,
  migration_id VARCHAR(40) NOT NULL,
  attempts INTEGER NOT NULL,
  not_before TIMESTAMP_UTC,
  begun BOOLEAN NOT NULL,
  started_at TIMESTAMP_UTC,
  ended_at TIMESTAMP_UTC,
  PRIMARY KEY (fleet_id, position),
  FOREIGN KEY(fleet_id) REFERENCES blockferry_fleets (id) ON DELETE CASCADE
);
CREATE INDEX ix_blockferry_fleet_items_migration_id ON blockferry_fleet_items (migration_id);
CREATE TABLE blockferry_fleet_wants (
  fleet_id VARCHAR(40) NOT NULL,
  want VARCHAR(80) NOT NULL,
  value JSON NOT NULL,
  asked_at TIMESTAMP_UTC NOT NULL,
  PRIMARY KEY (fleet_id, want),
  FOREIGN KEY(fleet_id) REFERENCES blockferry_fleets (id) ON DELETE CASCADE
);
INSERT INTO blockferry_schema VALUES (1);
INSERT INTO blockferry_migrations VALUES ('m-1', 'migrate', 'SUCCEEDED', '{SPEC}', 'east/data',
  'west/data', 1073741824, 2, '', '{"digest": "blake3:00"}', '', NULL, '{"id": "m-1"}',
  '2026-11-20 12:00:00.000000', '2026-11-20 12:30:00.000000', '2026-11-20 12:30:00.000000');
INSERT INTO blockferry_migrations VALUES ('m-2', 'migrate', 'FAILED', '{SPEC}', 'east/data',
  'west/data', 0, 1, '', '{}', 'no answer', '{"reason": "AGENT_SILENT"}', NULL,
  '2026-11-20 12:40:00.000000', '2026-11-20 12:50:00.000000', NULL);
INSERT INTO blockferry_leases VALUES ('m-2', 'elsewhere-00000000/1/1/n', 1.5);
INSERT INTO blockferry_progress VALUES ('m-1', '{"committed_bytes": 1073741824}');
INSERT INTO blockferry_steps VALUES ('m-1', 2, 0, 'preflight', 0.5, 'ok');
INSERT INTO blockferry_requests VALUES ('m-2', 'limit', '1048576', '2026-11-20 12:41:00.000000',
  NULL, '');
INSERT INTO blockferry_reports VALUES ('m-1', '{"format": "blockferry-report/1"}');
INSERT INTO blockferry_manifests VALUES ('m-2', 0, {DIGEST});
INSERT INTO blockferry_fleets VALUES ('shop', 'RUNNING', 'east', 'west', '{"fleet": "shop"}', '{}',
  '', 3, '', 0.0, '2026-11-20 12:00:00.000000', '2026-11-20 12:00:00.000000', NULL);
INSERT INTO blockferry_fleet_items VALUES ('shop', 0, 'v-1', 'data', 1073741824, 'all', 'RUNNING',
  '{"wave": "all"}', '', '', 'm-1', 1, NULL, TRUE, '2026-11-20 12:00:00.000000', NULL);
INSERT INTO blockferry_fleet_wants VALUES ('shop', 'approved:all', 'true',
  '2026-11-20 12:00:00.000000');
