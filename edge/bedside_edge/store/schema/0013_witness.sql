-- Witnesses (docs/witness.md). Times are milliseconds since 1970, UTC; sizes are sizes of a log.

-- Names under which this log went on before a gap: entries [base, end_) are that log. The log in
-- force starts where the last one ends.
CREATE TABLE past_logs (
  base INTEGER PRIMARY KEY,
  end_ INTEGER NOT NULL CHECK (end_ >= base),
  origin TEXT NOT NULL UNIQUE,
  keys TEXT NOT NULL
) STRICT;
CREATE TRIGGER past_log_stays BEFORE UPDATE ON past_logs
BEGIN SELECT RAISE(ABORT, 'a past log never changes'); END;
CREATE TRIGGER past_log_kept BEFORE DELETE ON past_logs
BEGIN SELECT RAISE(ABORT, 'a past log is never removed'); END;

-- What a witness showed: signed by this log's own keys, and not a head of this log
CREATE TABLE gaps (
  base INTEGER PRIMARY KEY,             -- of which log
  found_at INTEGER NOT NULL,
  witness TEXT NOT NULL,
  size INTEGER NOT NULL,
  root BLOB NOT NULL CHECK (length(root) = 32),
  note BLOB NOT NULL,
  incident TEXT NOT NULL DEFAULT '',
  continued_at INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TRIGGER gap_kept BEFORE DELETE ON gaps
BEGIN SELECT RAISE(ABORT, 'a gap is never removed'); END;
CREATE TRIGGER cp_locked BEFORE INSERT ON cp
WHEN EXISTS (SELECT 1 FROM gaps WHERE continued_at = 0)
BEGIN SELECT RAISE(ABORT, 'a log with a gap is not signed'); END;

-- How this log stands with its witnesses
CREATE TABLE witness_standings (
  name TEXT PRIMARY KEY,
  size INTEGER NOT NULL,
  cosigned_at INTEGER NOT NULL,
  tried_at INTEGER NOT NULL,
  failures INTEGER NOT NULL,
  said TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- This box as a witness: which logs it may cosign; what it cosigned last stands in `seen`
CREATE TABLE watched_logs (
  origin TEXT PRIMARY KEY,
  keys TEXT NOT NULL,
  digest TEXT NOT NULL UNIQUE,          -- SHA-256 of the origin, lower hex
  added_by TEXT NOT NULL,
  added_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER watched_log_stays BEFORE UPDATE ON watched_logs
BEGIN SELECT RAISE(ABORT, 'the keys of a log never change'); END;

-- Checkpoints that their own log signed and that speak against it
CREATE TABLE refused_checkpoints (
  seq INTEGER PRIMARY KEY,
  origin TEXT NOT NULL,
  why TEXT NOT NULL,
  size INTEGER NOT NULL,
  last INTEGER NOT NULL,
  digest BLOB NOT NULL UNIQUE,          -- SHA-256 of the note's text: each is kept once
  note BLOB NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE TRIGGER refused_stays BEFORE UPDATE ON refused_checkpoints
BEGIN SELECT RAISE(ABORT, 'proof of misbehaviour never changes'); END;
CREATE TRIGGER refused_kept BEFORE DELETE ON refused_checkpoints
BEGIN SELECT RAISE(ABORT, 'proof of misbehaviour is never removed'); END;
