-- What the box learns from its own cases. Times are milliseconds since 1970, UTC.

-- Pooled features of an image, computed once for a package; gone with the study
CREATE TABLE features (
  instance_id TEXT NOT NULL,
  package TEXT NOT NULL,                -- digest of the package, 64 hex digits
  study_id TEXT NOT NULL REFERENCES studies,
  body BLOB NOT NULL,                   -- float32 under the study's data key, bound to both
  PRIMARY KEY (instance_id, package)
) STRICT, WITHOUT ROWID;
CREATE INDEX features_study ON features (study_id);

-- A patient is in one batch of a model, and pays once. Stays after an erasure, so that a patient
-- who comes again does not pay twice: a keyed hash and nothing more.
CREATE TABLE training_batches (
  model TEXT NOT NULL,
  patient TEXT NOT NULL,                -- keyed hash
  round TEXT NOT NULL,
  PRIMARY KEY (model, patient)
) STRICT, WITHOUT ROWID;
CREATE INDEX training_batches_round ON training_batches (round);

-- Published results of rounds that the hospital took over; nothing of a patient stands in them
CREATE TABLE joint_results (
  seq INTEGER PRIMARY KEY,
  kind TEXT NOT NULL CHECK (kind IN ('clean', 'annotate')),
  digest TEXT NOT NULL,
  actor TEXT NOT NULL,
  at INTEGER NOT NULL,
  body BLOB NOT NULL,                   -- canonical JSON
  UNIQUE (kind, digest)
) STRICT;

-- What another source of the hospital says of a patient, for cross-hospital tables
CREATE TABLE extras (
  subject_id TEXT NOT NULL REFERENCES subjects,
  name TEXT NOT NULL,
  body BLOB NOT NULL,                   -- under a key made of the patient's, bound to both
  PRIMARY KEY (subject_id, name)
) STRICT, WITHOUT ROWID;

-- Counts of patients shared with another hospital: letters of a session, and its outcome
CREATE TABLE overlaps (
  session TEXT NOT NULL PRIMARY KEY,    -- 64 hex digits
  role TEXT NOT NULL CHECK (role IN ('asker', 'answerer')),
  partner TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('invited', 'accepted', 'returned', 'counted')),
  at INTEGER NOT NULL,
  actor TEXT NOT NULL,
  body BLOB NOT NULL                    -- JSON under the box key, bound to session; no id is in it
) STRICT, WITHOUT ROWID;
CREATE INDEX overlaps_partner ON overlaps (partner, at);
