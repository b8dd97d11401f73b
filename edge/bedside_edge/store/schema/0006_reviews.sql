-- What readers said of results, and requests that must not be carried out twice. Times are
-- milliseconds since 1970, UTC.

-- A row is never changed but for its way out (state, attempts, due, failure): a later verdict is a
-- row of a higher revision. What was said stands inside `body`.
CREATE TABLE reviews (
  seq INTEGER PRIMARY KEY,
  review_id TEXT NOT NULL UNIQUE,
  result_id TEXT NOT NULL REFERENCES results (result_id),
  study_id TEXT NOT NULL REFERENCES studies,
  revision INTEGER NOT NULL CHECK (revision >= 1),
  kind TEXT NOT NULL CHECK (kind IN ('accept', 'reject', 'edit')),
  reader_id TEXT NOT NULL,
  model TEXT NOT NULL,
  version TEXT NOT NULL,
  at INTEGER NOT NULL,
  body BLOB NOT NULL,                   -- under the study's data key, bound to review_id
  state TEXT NOT NULL CHECK (state IN ('waiting', 'done', 'dead')),
  attempts INTEGER NOT NULL DEFAULT 0,
  due INTEGER NOT NULL,
  failure TEXT NOT NULL DEFAULT '',
  UNIQUE (result_id, revision)
) STRICT;
CREATE INDEX reviews_open ON reviews (due, seq) WHERE state = 'waiting';
CREATE INDEX reviews_study ON reviews (study_id);

-- A request under an Idempotency-Key. No answer is kept, only what it was about: `subject` is an
-- id of ours from which the same answer is made again.
CREATE TABLE requests (
  actor_id TEXT NOT NULL,
  route TEXT NOT NULL,
  key_hash TEXT NOT NULL,               -- keyed hash of the key
  digest TEXT NOT NULL,                 -- keyed hash of what was asked
  subject TEXT NOT NULL DEFAULT '',     -- empty while it runs
  at INTEGER NOT NULL,
  PRIMARY KEY (actor_id, route, key_hash)
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_at ON requests (at);

-- What changed, for pages that follow along: ids and states only. The newest 10,000 are kept.
CREATE TABLE events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,                   -- job, result, review, delivery
  id TEXT NOT NULL,
  job_id TEXT NOT NULL DEFAULT '',
  study_id TEXT NOT NULL,
  state TEXT NOT NULL,
  reason TEXT NOT NULL DEFAULT '',
  at INTEGER NOT NULL
) STRICT;

CREATE TRIGGER events_are_bounded AFTER INSERT ON events WHEN new.seq % 256 = 0
BEGIN
  DELETE FROM events WHERE seq <= new.seq - 10000;
END;

CREATE TRIGGER job_was_made AFTER INSERT ON jobs
BEGIN
  INSERT INTO events (kind, id, job_id, study_id, state, reason, at)
  VALUES ('job', new.job_id, new.job_id, new.study_id, new.state, new.reason, new.updated);
END;

CREATE TRIGGER job_changed AFTER UPDATE OF state, priority ON jobs
WHEN old.state <> new.state OR old.priority <> new.priority
BEGIN
  INSERT INTO events (kind, id, job_id, study_id, state, reason, at)
  VALUES ('job', new.job_id, new.job_id, new.study_id, new.state, new.reason, new.updated);
END;

CREATE TRIGGER result_was_made AFTER INSERT ON results
BEGIN
  INSERT INTO events (kind, id, job_id, study_id, state, at)
  VALUES ('result', new.result_id, new.job_id, new.study_id, 'stored', new.created);
END;

CREATE TRIGGER review_was_made AFTER INSERT ON reviews
BEGIN
  INSERT INTO events (kind, id, job_id, study_id, state, at)
  SELECT 'review', new.result_id, r.job_id, new.study_id, new.kind, new.at
  FROM results AS r WHERE r.result_id = new.result_id;
END;

CREATE TRIGGER delivery_changed AFTER UPDATE OF state ON deliveries WHEN old.state <> new.state
BEGIN
  INSERT INTO events (kind, id, job_id, study_id, state, reason, at)
  SELECT 'delivery', o.result_id, r.job_id, new.study_id, new.state, new.reason, new.updated
  FROM outputs AS o JOIN results AS r USING (result_id) WHERE o.output_id = new.output_id;
END;
