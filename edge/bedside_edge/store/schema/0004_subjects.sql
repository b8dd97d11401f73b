-- Patients as the box knows them, and where their keys lie. Times are milliseconds since 1970, UTC.
-- No identifier stands here: patients are found by keyed hash, what is known of them
-- stands in the headers of their studies, under the studies' keys.

CREATE TABLE subjects (
  subject_id TEXT PRIMARY KEY,
  lookup TEXT NOT NULL UNIQUE,          -- keyed hash of (issuer, patient id), or of the one study
  identified INTEGER NOT NULL CHECK (identified IN (0, 1)),
  slot INTEGER NOT NULL,                -- key slot that `key` is wrapped under
  key BLOB NOT NULL,                    -- commitment key, bound to subject_id
  created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- '' and slot 0 only in rows of an earlier version, until the folder is opened
ALTER TABLE studies ADD COLUMN subject_id TEXT NOT NULL DEFAULT '';
ALTER TABLE studies ADD COLUMN slot INTEGER NOT NULL DEFAULT 0;
CREATE INDEX studies_created ON studies (created, study_id);
CREATE INDEX studies_subject ON studies (subject_id);

-- What is being erased and what was: written before the first key is destroyed, so that a kill at
-- any point is made good when the folder opens. Names are the box's own, digests those of the
-- encrypted files.
CREATE TABLE erasures (
  seq INTEGER PRIMARY KEY,
  erasure_id TEXT NOT NULL UNIQUE,
  scope TEXT NOT NULL CHECK (scope IN ('study', 'subject', 'retention')),
  target TEXT NOT NULL,                 -- study_id, subject_id, or '' for a batch
  state TEXT NOT NULL CHECK (state IN ('intended', 'removed', 'done')),
  reason TEXT NOT NULL,                 -- a code, never free text
  actor TEXT NOT NULL,
  at INTEGER NOT NULL,
  done_at INTEGER NOT NULL DEFAULT 0,
  studies TEXT NOT NULL,                -- JSON, study ids
  slots TEXT NOT NULL,                  -- JSON, numbers
  objects TEXT NOT NULL DEFAULT '[]',   -- JSON, [name, sha256 of the file, bytes]
  elsewhere TEXT NOT NULL DEFAULT '[]', -- JSON, [destination, objects sent there]
  entry INTEGER NOT NULL DEFAULT -1     -- its place in the evidence log
) STRICT;
CREATE INDEX erasures_open ON erasures (seq) WHERE state <> 'done';
CREATE INDEX erasures_target ON erasures (target);

-- "Stop processing but store": nothing of the study is erased, by nobody, until released.
CREATE TABLE holds (
  seq INTEGER PRIMARY KEY,
  hold_id TEXT NOT NULL UNIQUE,
  study_id TEXT NOT NULL REFERENCES studies,
  reason TEXT NOT NULL,                 -- a code
  actor TEXT NOT NULL,
  at INTEGER NOT NULL,
  review_at INTEGER NOT NULL,           -- when a person has to look again
  released_at INTEGER NOT NULL DEFAULT 0,
  released_by TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX holds_study ON holds (study_id) WHERE released_at = 0;
