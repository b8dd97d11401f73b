-- DICOM objects the box makes, and their way to each destination. Times are milliseconds since
-- 1970, UTC. UIDs stand only behind keyed hashes and inside `header`.

-- Written by the trigger below in the very transaction that stores a result, so that no kill can
-- part the two; the box removes nothing here, `state` says what became of it.
CREATE TABLE publications (
  seq INTEGER PRIMARY KEY,
  result_id TEXT NOT NULL UNIQUE REFERENCES results (result_id),
  state TEXT NOT NULL CHECK (state IN ('waiting', 'done', 'dead')),
  attempts INTEGER NOT NULL DEFAULT 0,
  due INTEGER NOT NULL,
  reason TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX publications_open ON publications (due, seq) WHERE state = 'waiting';

-- meta 'publish' is 1 while destinations are configured: without any, objects are made on demand,
-- and configuring one later must not send the past
CREATE TRIGGER result_is_to_be_published AFTER INSERT ON results
WHEN (SELECT value FROM meta WHERE name = 'publish') = x'31'
BEGIN
  INSERT INTO publications (result_id, state, due) VALUES (new.result_id, 'waiting', new.created);
END;

CREATE TABLE outputs (
  seq INTEGER PRIMARY KEY,
  output_id TEXT NOT NULL UNIQUE,
  result_id TEXT NOT NULL REFERENCES results (result_id),
  study_id TEXT NOT NULL REFERENCES studies,
  kind TEXT NOT NULL CHECK (kind IN ('sr', 'sc', 'seg', 'ko')),
  occasion TEXT NOT NULL CHECK (occasion IN ('result', 'accepted', 'edited', 'rejected')),
  uid_hash TEXT NOT NULL UNIQUE,        -- keyed hash of the SOP Instance UID
  object_name TEXT NOT NULL,
  object_key BLOB NOT NULL,             -- under the study's data key, bound to object_name
  header BLOB NOT NULL,                 -- under the study's data key, bound to output_id
  size INTEGER NOT NULL,
  created INTEGER NOT NULL
) STRICT;
CREATE INDEX outputs_study ON outputs (study_id);
CREATE INDEX outputs_result ON outputs (result_id);

CREATE TABLE deliveries (
  seq INTEGER PRIMARY KEY,
  delivery_id TEXT NOT NULL UNIQUE,
  output_id TEXT NOT NULL REFERENCES outputs (output_id),
  study_id TEXT NOT NULL REFERENCES studies,
  destination TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'delivered', 'dead', 'withdrawn')),
  attempts INTEGER NOT NULL DEFAULT 0,
  refusals INTEGER NOT NULL DEFAULT 0,
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  due INTEGER NOT NULL,
  since INTEGER NOT NULL,               -- when the present series of attempts began
  reason TEXT NOT NULL DEFAULT '',
  UNIQUE (output_id, destination)
) STRICT;
CREATE INDEX deliveries_open ON deliveries (destination, seq) WHERE state = 'waiting';
CREATE INDEX deliveries_study ON deliveries (study_id, destination, seq);
