-- Which version of each model reads studies, and how its shadow compared. Times are milliseconds
-- since 1970, UTC. Nothing here is about one patient: comparisons are counts.

CREATE TABLE deployments (
  name TEXT NOT NULL PRIMARY KEY,
  revision INTEGER NOT NULL CHECK (revision > 0),
  body TEXT NOT NULL                    -- JSON; bedside_core.rollout reads and writes it
) STRICT, WITHOUT ROWID;

CREATE TABLE deployment_changes (
  seq INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  revision INTEGER NOT NULL,
  what TEXT NOT NULL,
  actor TEXT NOT NULL,
  at INTEGER NOT NULL,
  body TEXT NOT NULL,                   -- the deployment after the change
  UNIQUE (name, revision)
) STRICT;

CREATE TABLE shadow_tallies (
  name TEXT NOT NULL,
  version TEXT NOT NULL,                -- that read the study
  shadow TEXT NOT NULL,
  decision TEXT NOT NULL,               -- or 'refused', 'failed'
  shadow_decision TEXT NOT NULL,
  studies INTEGER NOT NULL,
  difference REAL NOT NULL,             -- sum of |p - p of the shadow|, where both gave one
  PRIMARY KEY (name, version, shadow, decision, shadow_decision)
) STRICT, WITHOUT ROWID;
