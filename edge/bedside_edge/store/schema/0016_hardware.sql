-- Verdicts of the acceptance of engines on this very unit. Times are milliseconds since 1970, UTC.

-- Append-only: a verdict is never changed, a new run makes a new row. Each row is an entry of the
-- evidence log of the same transaction.
CREATE TABLE hardware_acceptances (
  seq INTEGER PRIMARY KEY,
  key TEXT NOT NULL,                    -- SHA-256 of the tuple the verdict is about
  profile TEXT NOT NULL,                -- id
  accepted INTEGER NOT NULL CHECK (accepted IN (0, 1)),
  at INTEGER NOT NULL,
  body BLOB NOT NULL,                   -- canonical JSON, bedside_core.hardware.acceptance
  entry INTEGER NOT NULL                -- index in the evidence log
) STRICT;
CREATE INDEX hardware_acceptances_key ON hardware_acceptances (key, seq);
CREATE TRIGGER hardware_acceptances_stay BEFORE DELETE ON hardware_acceptances
BEGIN SELECT raise(ABORT, 'a verdict is never forgotten'); END;
CREATE TRIGGER hardware_acceptances_are_fixed BEFORE UPDATE ON hardware_acceptances
BEGIN SELECT raise(ABORT, 'a verdict is never changed'); END;

-- The highest revision of each profile that was ever accepted here; an older one is refused.
CREATE TABLE hardware_floors (
  id TEXT PRIMARY KEY,
  seq INTEGER NOT NULL CHECK (seq >= 1)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER hardware_floors_stay BEFORE DELETE ON hardware_floors
BEGIN SELECT raise(ABORT, 'a revision is never forgotten'); END;
CREATE TRIGGER hardware_floors_never_fall BEFORE UPDATE ON hardware_floors WHEN new.seq < old.seq
BEGIN SELECT raise(ABORT, 'a revision never falls'); END;
