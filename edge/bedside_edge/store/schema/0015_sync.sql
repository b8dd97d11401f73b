-- Rounds of the consortium. Times are milliseconds since 1970, UTC, money whole units of 1e-12 rho.
-- No patient's, study's or result's id stands here.

-- This box's membership: its keys under the box key, and what it pins.
CREATE TABLE sync_member (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  box TEXT NOT NULL,
  organisation TEXT NOT NULL,
  helper INTEGER NOT NULL CHECK (helper IN (0, 1)),
  identity BLOB NOT NULL,               -- Ed25519 seed
  transport BLOB NOT NULL,              -- EC P-256 key of the certificate in `welcome`
  pending BLOB,                         -- the one of a renewal that was asked for
  request BLOB,                         -- that waits for an answer; its fingerprint was read out
  welcome BLOB                          -- NULL until two administrators approved
) STRICT;

CREATE TABLE sync_roster (seq INTEGER PRIMARY KEY CHECK (seq >= 0), entry BLOB NOT NULL) STRICT;
CREATE TRIGGER sync_roster_stays BEFORE DELETE ON sync_roster
BEGIN SELECT raise(ABORT, 'the roster only grows'); END;

-- Finished rounds whose record was checked, in the order of their chain.
CREATE TABLE sync_records (
  seq INTEGER PRIMARY KEY CHECK (seq >= 0),
  round TEXT NOT NULL UNIQUE,
  hash BLOB NOT NULL,
  state TEXT NOT NULL,                  -- included or excluded
  at INTEGER NOT NULL
) STRICT;
CREATE TRIGGER sync_records_stay BEFORE DELETE ON sync_records
BEGIN SELECT raise(ABORT, 'a record stays'); END;

-- What box and helper remember of a round (bedside_sync.journal). A row never changes; it may go.
CREATE TABLE sync_facts (
  role TEXT NOT NULL CHECK (role IN ('box', 'helper')),
  round TEXT NOT NULL,
  fact TEXT NOT NULL,
  digest BLOB NOT NULL,
  slot INTEGER NOT NULL,                -- of a secret, 0 otherwise: gone with it, also in backups
  data BLOB,                            -- NULL when it lies in a file
  file TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (role, round, fact)
) STRICT;
CREATE TRIGGER sync_facts_are_fixed BEFORE UPDATE ON sync_facts
BEGIN SELECT raise(ABORT, 'a fact of a round never changes'); END;

-- Rounds that were charged, and to whom. `patient` is the keyed hash of the privacy ledger's kind; it
-- stays when the patient is erased: whoever came back would pay nothing.
CREATE TABLE sync_rounds (
  round TEXT PRIMARY KEY,
  cost INTEGER NOT NULL CHECK (cost >= 1),
  at INTEGER NOT NULL,
  entry INTEGER NOT NULL,               -- index in the evidence log
  void INTEGER NOT NULL DEFAULT 0 CHECK (void IN (0, 1))
) STRICT, WITHOUT ROWID;
CREATE TABLE sync_charges (
  round TEXT NOT NULL REFERENCES sync_rounds,
  patient TEXT NOT NULL,
  PRIMARY KEY (round, patient)
) STRICT, WITHOUT ROWID;
CREATE INDEX sync_charges_of ON sync_charges (patient);
CREATE TRIGGER sync_rounds_stay BEFORE DELETE ON sync_rounds
BEGIN SELECT raise(ABORT, 'a charge never goes'); END;
CREATE TRIGGER sync_rounds_are_fixed BEFORE UPDATE OF round, cost, at, entry ON sync_rounds
BEGIN SELECT raise(ABORT, 'a charge never changes'); END;
CREATE TRIGGER sync_void_is_void BEFORE UPDATE OF void ON sync_rounds WHEN new.void < old.void
BEGIN SELECT raise(ABORT, 'what is void stays void'); END;
CREATE TRIGGER sync_charges_stay BEFORE DELETE ON sync_charges
BEGIN SELECT raise(ABORT, 'a charge never goes'); END;
CREATE TRIGGER sync_charges_are_fixed BEFORE UPDATE ON sync_charges
BEGIN SELECT raise(ABORT, 'a charge never changes'); END;

-- Agreements between this hospital and the consortium: none in force, no round.
CREATE TABLE sync_agreements (
  agreement_id TEXT PRIMARY KEY,
  title TEXT NOT NULL,
  purposes TEXT NOT NULL,               -- JSON
  same_region INTEGER NOT NULL CHECK (same_region IN (0, 1)),
  document BLOB NOT NULL,               -- SHA-256 of the signed text
  starts INTEGER NOT NULL,
  ends INTEGER NOT NULL CHECK (ends > starts),
  actor TEXT NOT NULL,
  at INTEGER NOT NULL,
  ended_at INTEGER NOT NULL DEFAULT 0,
  ended_by TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;
CREATE TRIGGER sync_agreements_stay BEFORE DELETE ON sync_agreements
BEGIN SELECT raise(ABORT, 'an agreement is ended, not deleted'); END;

-- The nights, for people to look at.
CREATE TABLE sync_events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  night INTEGER NOT NULL,               -- when the night's first visit began
  step TEXT NOT NULL,
  round TEXT NOT NULL,
  task TEXT NOT NULL,
  started INTEGER NOT NULL,
  ended INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  code TEXT NOT NULL
) STRICT;
CREATE INDEX sync_events_of ON sync_events (night);
CREATE TRIGGER sync_events_are_bounded AFTER INSERT ON sync_events WHEN new.seq % 256 = 0
BEGIN DELETE FROM sync_events WHERE seq <= new.seq - 20000; END;
CREATE TRIGGER sync_event_was_told AFTER INSERT ON sync_events
BEGIN
  INSERT INTO events (kind, id, study_id, state, reason, at)
  VALUES ('night', CAST(new.night AS TEXT), '', new.outcome, new.code, new.ended);
END;

-- Numbers: how much was written, since when patients may take part after a restored backup.
CREATE TABLE sync_marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
