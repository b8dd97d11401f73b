-- Identifiers stand only inside `header`, `body` and behind keyed hashes (`lookup`, `uid_hash`,
-- `digest_hash`). Times are milliseconds since 1970, UTC.

CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE studies (
  study_id TEXT PRIMARY KEY,
  lookup TEXT NOT NULL UNIQUE,          -- keyed hash of (issuer, patient id, study UID)
  data_key BLOB NOT NULL,               -- wrapped under the box key, bound to study_id
  expected INTEGER NOT NULL DEFAULT 0,  -- instances the sender announced; 0 = unknown
  instances INTEGER NOT NULL DEFAULT 0, -- rows in `instances`
  uids INTEGER NOT NULL DEFAULT 0,      -- different SOP Instances among them
  created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE instances (
  seq INTEGER PRIMARY KEY,
  instance_id TEXT NOT NULL UNIQUE,
  study_id TEXT NOT NULL REFERENCES studies,
  uid_hash TEXT NOT NULL,               -- keyed hash of the SOP Instance UID
  digest_hash TEXT NOT NULL,            -- keyed hash of the digest
  state TEXT NOT NULL CHECK (state IN ('held', 'second', 'same', 'conflict')),
  same_as TEXT NOT NULL DEFAULT '',
  object_name TEXT NOT NULL,
  object_key BLOB NOT NULL,             -- under the study's data key, bound to object_name
  header BLOB NOT NULL,                 -- under the study's data key, bound to instance_id
  way TEXT NOT NULL,
  source TEXT NOT NULL,
  size INTEGER NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX instances_uid ON instances (uid_hash, study_id, digest_hash);
CREATE INDEX instances_study ON instances (study_id);

CREATE TABLE jobs (
  seq INTEGER PRIMARY KEY,
  job_id TEXT NOT NULL UNIQUE,
  study_id TEXT NOT NULL REFERENCES studies,
  state TEXT NOT NULL CHECK (state IN
    ('collecting', 'ready', 'running', 'done', 'refused', 'dead', 'cancelled')),
  priority INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 2),
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  due INTEGER NOT NULL,
  score INTEGER NOT NULL,               -- created less the credit of the priority; smallest first
  attempts INTEGER NOT NULL DEFAULT 0,
  interruptions INTEGER NOT NULL DEFAULT 0,
  reason TEXT NOT NULL DEFAULT '',
  instances INTEGER NOT NULL DEFAULT 0,
  result_id TEXT NOT NULL DEFAULT '',
  lease TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX jobs_open ON jobs (score, seq) WHERE state IN ('collecting', 'ready');
CREATE INDEX jobs_running ON jobs (study_id) WHERE state = 'running';
CREATE INDEX jobs_study ON jobs (study_id, seq);

CREATE TABLE results (
  seq INTEGER PRIMARY KEY,
  result_id TEXT NOT NULL UNIQUE,
  job_id TEXT NOT NULL UNIQUE REFERENCES jobs (job_id),  -- one job, one result
  study_id TEXT NOT NULL REFERENCES studies,
  created INTEGER NOT NULL,
  superseded_by TEXT NOT NULL DEFAULT '',
  body BLOB NOT NULL                    -- under the study's data key, bound to result_id
) STRICT;
CREATE INDEX results_study ON results (study_id) WHERE superseded_by = '';

CREATE TABLE alarms (
  seq INTEGER PRIMARY KEY,
  code TEXT NOT NULL,
  study_id TEXT NOT NULL REFERENCES studies,
  instance_id TEXT NOT NULL,
  at INTEGER NOT NULL,
  UNIQUE (code, instance_id)
) STRICT;
