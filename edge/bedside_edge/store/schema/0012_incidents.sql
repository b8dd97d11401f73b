-- How the box is, and what happened. Times are milliseconds since 1970, UTC.

CREATE TABLE incidents (
  seq INTEGER PRIMARY KEY,
  incident_id TEXT NOT NULL UNIQUE,
  cause TEXT NOT NULL,
  drill INTEGER NOT NULL CHECK (drill IN (0, 1)),
  aware_at INTEGER NOT NULL,            -- when its clocks start; set once
  opened_at INTEGER NOT NULL,
  opened_by TEXT NOT NULL,
  closed_at INTEGER NOT NULL DEFAULT 0,
  facts BLOB NOT NULL                   -- JSON under the box key, bound to incident_id
) STRICT;
CREATE TRIGGER incident_aware_once BEFORE UPDATE OF aware_at ON incidents
WHEN NEW.aware_at <> OLD.aware_at
BEGIN SELECT RAISE(ABORT, 'when an incident became known is set once'); END;

-- The newest row is the state of the box. Every use reads it in its own transaction: the triggers
-- below hold it against every path, known or not.
CREATE TABLE box_states (
  seq INTEGER PRIMARY KEY,
  state TEXT NOT NULL CHECK (state IN
    ('normal', 'alarm', 'sealed', 'shutdown', 'patching', 'drill')),
  incident_id TEXT NOT NULL,            -- empty for the first
  actor TEXT NOT NULL,
  second TEXT NOT NULL,                 -- the other person; empty where one is enough
  at INTEGER NOT NULL,
  CHECK (second = '' OR (second <> actor AND second LIKE 'person:%' AND actor LIKE 'person:%'))
) STRICT;
INSERT INTO box_states VALUES (1, 'normal', '', 'service:box', '', 0);
-- One row while data may be used, none while the box is sealed or shut down
CREATE VIEW box_open AS SELECT 1 AS open
WHERE (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) NOT IN ('sealed', 'shutdown');
CREATE TRIGGER box_state_kept BEFORE UPDATE ON box_states
BEGIN SELECT RAISE(ABORT, 'how the box was is history'); END;
CREATE TRIGGER box_state_stays BEFORE DELETE ON box_states
BEGIN SELECT RAISE(ABORT, 'how the box was is history'); END;
CREATE TRIGGER unsealed_by_two BEFORE INSERT ON box_states
WHEN NEW.second = '' AND (
  (NEW.state IN ('normal', 'patching', 'alarm', 'drill') AND (SELECT state FROM box_states
    ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown'))
  OR (NEW.state = 'sealed' AND (SELECT state FROM box_states
    ORDER BY seq DESC LIMIT 1) = 'shutdown'))
BEGIN SELECT RAISE(ABORT, 'two people unseal a box'); END;

CREATE TABLE incident_clocks (
  incident_id TEXT NOT NULL REFERENCES incidents (incident_id),
  duty_id TEXT NOT NULL,
  length INTEGER NOT NULL,              -- ms
  due INTEGER NOT NULL,
  alarmed INTEGER NOT NULL DEFAULT 0,   -- 0, 50, 80 or 100
  notice TEXT NOT NULL DEFAULT '',      -- digest of the signed notice
  signed_by TEXT NOT NULL DEFAULT '',
  signed_at INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (incident_id, duty_id)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER incident_due_never_later BEFORE UPDATE OF due ON incident_clocks
WHEN NEW.due > OLD.due
BEGIN SELECT RAISE(ABORT, 'a clock of an incident never ends later'); END;

-- The box's time when clocks were last looked at: one row
CREATE TABLE incident_time (one INTEGER PRIMARY KEY CHECK (one = 1), wall INTEGER NOT NULL) STRICT;

-- What one person asked for and another has to confirm
CREATE TABLE unseal_asks (
  ask_id TEXT PRIMARY KEY,
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  actor TEXT NOT NULL CHECK (actor LIKE 'person:%'),
  at INTEGER NOT NULL,
  used INTEGER NOT NULL DEFAULT 0 CHECK (used IN (0, 1))
) STRICT, WITHOUT ROWID;

-- Sealed and shut down: what is held may be read. An erasure that was begun, or that a restored
-- backup makes necessary, goes to its end.
CREATE TRIGGER sealed_instances BEFORE INSERT ON instances
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_studies BEFORE INSERT ON studies
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_jobs BEFORE UPDATE OF state ON jobs
WHEN NEW.state = 'running' AND
  (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_results BEFORE INSERT ON results
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_outputs BEFORE INSERT ON outputs
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_new_deliveries BEFORE INSERT ON deliveries
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_deliveries BEFORE UPDATE OF attempts ON deliveries
WHEN NEW.attempts > OLD.attempts AND
  (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_reviews BEFORE INSERT ON reviews
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_workitems BEFORE INSERT ON workitems
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_deployments BEFORE INSERT ON deployment_changes
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_erasures BEFORE INSERT ON erasures
WHEN NEW.reason <> 'restored' AND
  (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
