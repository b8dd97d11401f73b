-- Workitems (Unified Procedure Steps). What they say of a patient stands only in `body`: under the
-- workitem's own key until its study is here, under the study's data key from then on, so that an
-- erased study takes its workitems with it. Times are milliseconds since 1970, UTC.

CREATE TABLE workitems (
  seq INTEGER PRIMARY KEY,
  workitem_id TEXT NOT NULL UNIQUE,
  uid_hash TEXT NOT NULL UNIQUE,        -- keyed hash of the SOP Instance UID
  state TEXT NOT NULL CHECK (state IN ('SCHEDULED', 'IN PROGRESS', 'COMPLETED', 'CANCELED')),
  revision INTEGER NOT NULL,            -- counts changes: of two at once, one wins
  ours INTEGER NOT NULL CHECK (ours IN (0, 1)),  -- whether this box performs it
  study_id TEXT NOT NULL DEFAULT '',    -- of the input, once it is here and claimed
  job_id TEXT NOT NULL DEFAULT '',
  data_key BLOB NOT NULL,               -- wrapped under the box key; empty: the study's key counts
  body BLOB NOT NULL,                   -- data set and Transaction UID, bound to workitem_id
  created INTEGER NOT NULL,
  updated INTEGER NOT NULL
) STRICT;
CREATE INDEX workitems_open ON workitems (seq) WHERE state IN ('SCHEDULED', 'IN PROGRESS');
CREATE INDEX workitems_study ON workitems (study_id);
