-- The privacy ledger, frozen study rows and answers. Times are milliseconds since 1970, UTC; money
-- is whole units of 1e-12 rho. No patient's, study's or result's id stands here.

-- Append-only, and each row is an entry of the evidence log of the same transaction (`entry`).
CREATE TABLE privacy_entries (
  seq INTEGER PRIMARY KEY CHECK (seq >= 1),
  kind TEXT NOT NULL,
  at INTEGER NOT NULL,
  body BLOB NOT NULL,                   -- canonical JSON, bedside_core.ledger.codec
  entry INTEGER NOT NULL UNIQUE         -- index in the evidence log, which holds the body's SHA-256
) STRICT;
CREATE TRIGGER privacy_entries_stay BEFORE DELETE ON privacy_entries
BEGIN SELECT raise(ABORT, 'the privacy ledger never forgets'); END;
CREATE TRIGGER privacy_entries_are_fixed BEFORE UPDATE ON privacy_entries
BEGIN SELECT raise(ABORT, 'the privacy ledger never changes'); END;

-- What follows from the entries, kept as the last line of defence: SQLite itself refuses to spend
-- more than a cap, whatever the program believes.
CREATE TABLE privacy_scopes (
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  cap INTEGER NOT NULL CHECK (cap >= 0),
  spent INTEGER NOT NULL CHECK (spent >= 0 AND spent <= cap),
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER privacy_scopes_stay BEFORE DELETE ON privacy_scopes
BEGIN SELECT raise(ABORT, 'a budget never goes'); END;
CREATE TRIGGER privacy_no_refund BEFORE UPDATE OF spent ON privacy_scopes WHEN new.spent < old.spent
BEGIN SELECT raise(ABORT, 'nothing is refunded'); END;

CREATE TABLE privacy_releases (
  fingerprint TEXT PRIMARY KEY,
  state TEXT NOT NULL CHECK (state IN ('reserved', 'final', 'void')),
  cost INTEGER NOT NULL CHECK (cost >= 1),
  nights INTEGER NOT NULL CHECK (nights >= 1),
  snapshot TEXT NOT NULL,
  policy TEXT NOT NULL,
  request BLOB NOT NULL,                -- what was asked, canonical JSON: enough to finish it
  seq INTEGER NOT NULL UNIQUE REFERENCES privacy_entries (seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX privacy_releases_open ON privacy_releases (seq) WHERE state = 'reserved';
CREATE TRIGGER privacy_releases_stay BEFORE DELETE ON privacy_releases
BEGIN SELECT raise(ABORT, 'a release is never forgotten'); END;
CREATE TRIGGER privacy_final_is_final BEFORE UPDATE OF state ON privacy_releases
WHEN old.state <> 'reserved'
BEGIN SELECT raise(ABORT, 'a release is final once'); END;

-- The bytes that everybody gets who asks. Without a night after 0 for what is released once.
CREATE TABLE privacy_answers (
  fingerprint TEXT NOT NULL REFERENCES privacy_releases,
  night INTEGER NOT NULL CHECK (night >= 0),
  document BLOB NOT NULL,
  signature BLOB NOT NULL,
  entry INTEGER NOT NULL,               -- index of the evidence entry that binds the answer
  carry BLOB,                           -- exact vector of the night of a running total, under the
                                        -- box key; gone with the schedule's last night
  PRIMARY KEY (fingerprint, night)
) STRICT;
CREATE TRIGGER privacy_answers_stay BEFORE DELETE ON privacy_answers
BEGIN SELECT raise(ABORT, 'an answer is never taken back'); END;
CREATE TRIGGER privacy_answers_are_fixed
BEFORE UPDATE OF fingerprint, night, document, signature, entry ON privacy_answers
BEGIN SELECT raise(ABORT, 'an answer is never changed'); END;

-- Studies of a patient that a schedule has used up, while it runs. `patient` is a keyed hash of its
-- own kind; it stays when the patient is erased: a patient who came back would count twice.
CREATE TABLE privacy_used (
  fingerprint TEXT NOT NULL REFERENCES privacy_releases,
  patient TEXT NOT NULL,
  used INTEGER NOT NULL CHECK (used >= 1),
  PRIMARY KEY (fingerprint, patient)
) STRICT, WITHOUT ROWID;

-- Frozen study rows under a key of their own, which lies under the box key.
CREATE TABLE privacy_snapshots (
  label TEXT PRIMARY KEY,               -- random: a digest would be an exact function of the data
  dataset TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  starts INTEGER NOT NULL,
  ends INTEGER NOT NULL,
  at INTEGER NOT NULL,
  key BLOB NOT NULL,
  content BLOB NOT NULL
) STRICT;
-- Who is erased is erased here too; what was charged and not finished is then voided.
CREATE TRIGGER privacy_snapshots_are_erased AFTER DELETE ON studies
BEGIN DELETE FROM privacy_snapshots WHERE old.created >= starts AND old.created < ends; END;

CREATE TABLE privacy_policies (
  version TEXT PRIMARY KEY,             -- SHA-256 of the document
  document BLOB NOT NULL,               -- TOML, as it was signed
  envelope BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Numbers beside the entries: since when arrivals may be released after a burn, and the like.
CREATE TABLE privacy_marks (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Randomised answers about single results, remembered: asked again, the same answer. `about` is a
-- keyed hash of the study's own keyed hash: a study sent again after its erasure gets no new draw.
CREATE TABLE local_answers (
  about TEXT NOT NULL,
  label TEXT NOT NULL,
  recipient TEXT NOT NULL,
  epsilon INTEGER NOT NULL CHECK (epsilon >= 1),  -- millionths
  answer BLOB,                          -- NULL while it is charged and not drawn
  entry INTEGER NOT NULL,
  PRIMARY KEY (about, label, recipient)
) STRICT, WITHOUT ROWID;
CREATE TABLE local_spent (
  about TEXT PRIMARY KEY,
  cap INTEGER NOT NULL CHECK (cap >= 0),
  spent INTEGER NOT NULL CHECK (spent >= 0 AND spent <= cap)
) STRICT, WITHOUT ROWID;
