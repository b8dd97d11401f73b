-- Consents, withdrawals and what patients ask for. Times are milliseconds since 1970, UTC. No name
-- of anybody stands here: a signed paper is known by its digest.

CREATE TABLE notices (
  digest TEXT PRIMARY KEY,
  parts BLOB NOT NULL,                  -- canonical JSON; about nobody
  actor TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE consents (
  seq INTEGER PRIMARY KEY,
  consent_id TEXT NOT NULL UNIQUE,
  subject_id TEXT NOT NULL REFERENCES subjects,
  purpose TEXT NOT NULL,
  classes TEXT NOT NULL,                -- JSON
  notice TEXT NOT NULL REFERENCES notices,
  given_by TEXT NOT NULL CHECK (given_by IN ('patient', 'guardian')),
  separate INTEGER NOT NULL CHECK (separate IN (0, 1)),
  document TEXT NOT NULL,
  valid_from INTEGER NOT NULL,
  valid_to INTEGER NOT NULL,
  withdrawn_at INTEGER NOT NULL DEFAULT 0,
  actor TEXT NOT NULL,
  at INTEGER NOT NULL
) STRICT;
CREATE INDEX consents_subject ON consents (subject_id);

CREATE TABLE withdrawals (
  subject_id TEXT NOT NULL REFERENCES subjects,
  purpose TEXT NOT NULL,                -- or 'all'
  actor TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (subject_id, purpose)
) STRICT, WITHOUT ROWID;

CREATE TABLE rights_requests (
  seq INTEGER PRIMARY KEY,
  request_id TEXT NOT NULL UNIQUE,
  subject_id TEXT NOT NULL REFERENCES subjects,
  kind TEXT NOT NULL,
  received_at INTEGER NOT NULL,
  due_at INTEGER NOT NULL,
  duty TEXT NOT NULL,                   -- id of the duty that set due_at
  owner TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('open', 'answered', 'refused')),
  identity TEXT NOT NULL DEFAULT '',    -- how the person was recognised, a word
  response TEXT NOT NULL DEFAULT '',    -- digest of what was handed over, or a word
  answered_at INTEGER NOT NULL DEFAULT 0,
  alarmed INTEGER NOT NULL DEFAULT 0 CHECK (alarmed IN (0, 1))
) STRICT;
CREATE INDEX rights_requests_subject ON rights_requests (subject_id);
CREATE INDEX rights_requests_open ON rights_requests (due_at) WHERE state = 'open';

-- A sealed box releases nothing: no statistic, no randomised answer, no snapshot to make one from.
-- What was reserved before may be voided or found spent.
CREATE TRIGGER sealed_releases BEFORE INSERT ON privacy_releases
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_answers BEFORE INSERT ON privacy_answers
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_snapshots BEFORE INSERT ON privacy_snapshots
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
CREATE TRIGGER sealed_local_answers BEFORE INSERT ON local_answers
WHEN (SELECT state FROM box_states ORDER BY seq DESC LIMIT 1) IN ('sealed', 'shutdown')
BEGIN SELECT RAISE(ABORT, 'sealed'); END;
